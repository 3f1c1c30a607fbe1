//! A whole page, one file that needs nothing else, and the parts that several pages have.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use crate::embedded::Image;

/// The script of all pages but that of a study: `enliven(element)` makes what is in an element work.
pub const SCRIPT: &str = include_str!("../assets/report.js");

/// The style sheet of all pages.
pub const STYLE: &str = include_str!("../assets/style.css");

/// The program that generated a page.
const GENERATOR: &str = concat!("attndreambooth ", env!("CARGO_PKG_VERSION"));

/// A part of a page with a heading, to which the contents at the top link.
pub(crate) struct Section {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) body: Markup,
}

impl Section {
    pub(crate) fn new(id: &'static str, title: &'static str, body: Markup) -> Self {
        Self { id, title, body }
    }
}

/// Whether a file is a page of this program, of whichever version.
pub fn is_page(path: &Path) -> bool {
    /// The mark stands near the beginning.
    const HEAD: u64 = 4096;
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    read.is_ok() && String::from_utf8_lossy(&head).contains(r#"<meta name="generator" content="attndreambooth "#)
}

/// A page of a header, links to the sections, the sections, and a dialog that shows an image large.
pub(crate) fn sections(title: &str, header: &Markup, sections: &[Section]) -> String {
    let body = html! {
        header { (header) }
        nav aria-label="Contents" { @for section in sections { a href={ "#" (section.id) } { (section.title) } } }
        main {
            @for Section { id, title, body } in sections { section id=(id) { h2 { (title) } (body) } }
        }
        dialog id="large" aria-label="Image, large" {}
    };
    document(title, SCRIPT, &body)
}

/// The document. Its policy allows images within the file and `script`, and nothing else: no network, and no other script,
/// should a text ever find its way out of where it belongs. maud escapes markup in texts; what could disguise what a text
/// says, control and bidirectional characters, is escaped here for the whole page.
pub(crate) fn document(title: &str, script: &str, body: &Markup) -> String {
    let hash = BASE64_STANDARD.encode(Sha256::digest(script));
    let policy = format!("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{hash}'");
    let page = html! {
        (PreEscaped("<!doctype html>\n"))
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="generator" content=(GENERATOR);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) script { (PreEscaped(script)) } }
        }
    };
    terminal::escaped_lines(&page.into_string()) + "\n"
}

/// An image with a caption, which the script shows large when asked; `alt` says what is to be seen.
pub(crate) fn figure(image: &Image, alt: &str, caption: &str) -> Markup {
    html! {
        figure {
            button class="zoom" type="button" { (image.img(alt)) }
            @if !caption.is_empty() { figcaption { (caption) } }
        }
    }
}

/// A table with a head; the first cell of each row names it. It scrolls sideways where it has no room.
pub(crate) fn table<'a>(
    head: impl IntoIterator<Item = &'a str>,
    rows: impl IntoIterator<Item = (String, Vec<Markup>)>,
) -> Markup {
    html! {
        div class="scroll" tabindex="0" {
            table {
                thead { tr { @for name in head { th scope="col" { (name) } } } }
                tbody {
                    @for (name, cells) in rows { tr { th scope="row" { (name) } @for cell in cells { td { (cell) } } } }
                }
            }
        }
    }
}

/// A text as a cell of a table.
pub(crate) fn cell(text: impl AsRef<str>) -> Markup {
    html! { span { (text.as_ref()) } }
}

/// Names and values.
pub(crate) fn pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Markup {
    table(["", ""], pairs.into_iter().map(|(name, value)| (name, vec![cell(value)])))
}

/// Frames in their order, each with its name; the slider shows one, at first the last. A frame alone needs no slider.
/// Without scripts, all of them stand one below the other.
pub(crate) fn slider(id: &str, label: &str, frames: &[(String, Markup)]) -> Markup {
    let stacked = html! {
        div class="frames" {
            @for (name, body) in frames { div class="frame" data-name=(name) { h4 { (name) } (body) } }
        }
    };
    let [(first, _), .., (last, _)] = frames else { return stacked };
    let end = frames.len() - 1;
    html! {
        div class="slider" {
            div class="controls" {
                label for=(id) { (label) ": " }
                output for=(id) {}
                label class="all" { input type="checkbox"; span { "all at once" } }
                input type="range" id=(id) min="0" max=(end) step="1" value=(end);
                div class="ends" aria-hidden="true" { span { (first) } span { (last) } }
            }
            (stacked)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_breaks_out_or_disguises_what_it_says() {
        let hostile = "</script><img src=x onerror='alert(1)'>\"&\0\u{202e}\u{1b}";
        let page = document(hostile, "", &html! { p title=(hostile) { (hostile) } });
        let escaped = "&lt;/script&gt;&lt;img src=x onerror='alert(1)'&gt;&quot;&amp;\\u{0}\\u{202e}\\u{1b}";
        assert!(page.contains(&format!("<p title=\"{escaped}\">{escaped}</p>")), "{page}");
        assert!(page.contains(&format!("<title>{escaped}</title>")));
    }

    #[test]
    fn only_several_frames_have_a_slider() {
        let frame = |name: &str| (name.to_owned(), html! { p { "body" } });
        let one = slider("id", "Model", &[frame("a")]).into_string();
        assert_eq!(one, r#"<div class="frames"><div class="frame" data-name="a"><h4>a</h4><p>body</p></div></div>"#);
        let two = slider("id", "Model", &[frame("a"), frame("b")]).into_string();
        assert!(
            two.contains(r#"max="1" step="1" value="1""#)
                && two.ends_with(&format!("{}</div>", &two[two.find("<div class=\"frames").unwrap()..two.len() - 6]))
        );
        assert_eq!(slider("id", "Model", &[]).into_string(), r#"<div class="frames"></div>"#);
    }
}
