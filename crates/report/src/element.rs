//! Elements of HTML, of which no text can break out.

use std::fmt::{self, Display, Write};

use images::Escaped;

/// An element with its attributes and contents. Texts and values are escaped as they come in; only [`Element::raw`] takes
/// markup, and it is for what this crate and `pictures` have made.
#[derive(Debug, Clone)]
pub(crate) struct Element {
    name: &'static str,
    attributes: String,
    contents: String,
}

impl Element {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, attributes: String::new(), contents: String::new() }
    }

    /// An element of one text.
    pub(crate) fn of(name: &'static str, text: impl Display) -> Self {
        Self::new(name).text(text)
    }

    pub(crate) fn attr(mut self, name: &'static str, value: impl Display) -> Self {
        let _infallible = write!(self.attributes, " {name}=\"{}\"", Escaped(&value.to_string()));
        self
    }

    /// An attribute without a value, if `on`.
    pub(crate) fn flag(mut self, name: &'static str, on: bool) -> Self {
        if on {
            self.attributes.push(' ');
            self.attributes.push_str(name);
        }
        self
    }

    pub(crate) fn class(self, names: &str) -> Self {
        self.attr("class", names)
    }

    pub(crate) fn text(mut self, text: impl Display) -> Self {
        let _infallible = write!(self.contents, "{}", Escaped(&text.to_string()));
        self
    }

    pub(crate) fn child(mut self, child: impl Into<Option<Self>>) -> Self {
        if let Some(child) = child.into() {
            let _infallible = write!(self.contents, "{child}");
        }
        self
    }

    pub(crate) fn children(self, children: impl IntoIterator<Item = Self>) -> Self {
        children.into_iter().fold(self, Self::child)
    }

    pub(crate) fn raw(mut self, markup: &str) -> Self {
        self.contents.push_str(markup);
        self
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, attributes, contents } = self;
        match *name {
            "img" | "input" | "meta" => write!(f, "<{name}{attributes}>"),
            _ => write!(f, "<{name}{attributes}>{contents}</{name}>"),
        }
    }
}

/// A table with a head; the first cell of each row names it. It scrolls sideways where it has no room.
pub(crate) fn table<'a>(
    head: impl IntoIterator<Item = &'a str>,
    rows: impl IntoIterator<Item = (String, Vec<Element>)>,
) -> Element {
    let head = head.into_iter().map(|name| Element::of("th", name).attr("scope", "col"));
    let rows = rows.into_iter().map(|(name, cells)| {
        let cells = cells.into_iter().map(|cell| Element::new("td").child(cell));
        Element::new("tr").child(Element::of("th", name).attr("scope", "row")).children(cells)
    });
    let table = Element::new("table")
        .child(Element::new("thead").child(Element::new("tr").children(head)))
        .child(Element::new("tbody").children(rows));
    Element::new("div").class("scroll").attr("tabindex", 0).child(table)
}

/// A text as a cell of a table.
pub(crate) fn cell(text: impl Display) -> Element {
    Element::of("span", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_nest_and_void_ones_do_not_end() {
        let image = Element::new("img").attr("alt", "a dog");
        let figure =
            Element::new("figure").class("wide").child(image).child(Element::of("figcaption", "dog")).child(None);
        assert_eq!(
            figure.flag("hidden", true).flag("open", false).to_string(),
            r#"<figure class="wide" hidden><img alt="a dog"><figcaption>dog</figcaption></figure>"#
        );
    }

    #[test]
    fn no_text_breaks_out() {
        let hostile = "</script><img src=x onerror='alert(1)'>\"&\0\u{202e}\u{1b}";
        let element = Element::of("p", hostile).attr("title", hostile).to_string();
        let escaped = "&lt;/script&gt;&lt;img src=x onerror=&#39;alert(1)&#39;&gt;&quot;&amp;\\u{0}\\u{202e}\\u{1b}";
        assert_eq!(element, format!("<p title=\"{escaped}\">{escaped}</p>"));
    }
}
