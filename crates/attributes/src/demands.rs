//! What prompts ask images to show beside their subject.

use crate::attributes::Attributes;
use crate::reader::Reading;

/// What a prompt asks for, as far as a [`Reader`](crate::Reader) can see it; the subject itself is not among it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demands {
    /// A colour or a place.
    pub background: Option<String>,
    /// The colour of the subject.
    pub color: Option<String>,
    /// A style.
    pub style: Option<String>,
    /// Other things.
    pub things: Vec<String>,
}

impl Demands {
    /// Of a prompt with `{}` for the subject: `a red {} and an apple in the snow`.
    pub fn of(attributes: &Attributes, prompt: &str) -> Self {
        let mut text = format!(" {} ", prompt.split_whitespace().collect::<Vec<_>>().join(" "));
        // Each phrase is taken out, so that no word of it is read again: a table is a place, and not a thing on it.
        let mut take = |phrase: &str| {
            let spaced = format!(" {phrase} ");
            let found = text.contains(&spaced);
            text = text.replacen(&spaced, " ", 1);
            found
        };
        let style = attributes.style_phrases.iter().find(|(_, phrase)| take(phrase)).map(|(name, _)| name.clone());
        let place = attributes.places.iter().find(|(_, phrase)| take(phrase)).map(|(name, _)| name.clone());
        let on = |color: &&String| ["a", "an"].into_iter().any(|a| take(&format!("on {a} {color} background")));
        let background = attributes.backgrounds.iter().find(on).cloned();
        let color = attributes.colors.iter().skip(1).find(|color| take(&format!("{color} {{}}"))).cloned();
        let named = |word: &str| {
            let word = attributes.plurals.get(word).map_or(word, String::as_str);
            attributes.things.iter().find(|thing| *thing == word).cloned()
        };
        let things = text.split(' ').filter_map(named).collect();
        Self { background: place.or(background), color, style, things }
    }

    /// Whether an image shows all of it.
    pub fn met_by(&self, reading: &Reading) -> bool {
        let is = |wanted: &Option<String>, found: &String| wanted.as_ref().is_none_or(|wanted| wanted == found);
        is(&self.background, &reading.background)
            && is(&self.color, &reading.color)
            && is(&self.style, &reading.style)
            && self.things.iter().all(|thing| reading.things.contains(thing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that a prompt may say is tested on the miniature's world in the crate `judge`.
    #[test]
    fn a_phrase_is_read_once_and_unknown_words_ask_for_nothing() {
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let attributes = Attributes {
            backgrounds: ["plain", "red", "table"].map(str::to_owned).to_vec(),
            colors: ["own", "red"].map(str::to_owned).to_vec(),
            styles: ["none", "sketch"].map(str::to_owned).to_vec(),
            things: ["apple", "table"].map(str::to_owned).to_vec(),
            places: pairs(&[("table", "on a table")]),
            style_phrases: pairs(&[("sketch", "a sketch of")]),
            plurals: pairs(&[("apples", "apple")]),
        };
        let demands = |prompt: &str| Demands::of(&attributes, prompt);
        let things = |things: &[&str]| things.iter().map(|thing| (*thing).to_owned()).collect::<Vec<_>>();
        let some = |word: &str| Some(word.to_owned());
        let expected = Demands { background: some("table"), style: some("sketch"), ..Demands::default() };
        assert_eq!(demands("a sketch of a {} on a table"), expected);
        assert_eq!(demands("a {} and two apples").things, things(&["apple"]));
        assert_eq!(demands("a {} and a table").things, things(&["table"]));
        let red = Demands { color: some("red"), background: some("red"), ..Demands::default() };
        assert_eq!(demands("a red {}   on a red background"), red);
        assert_eq!(demands("my own {} as a pirate, dramatic light"), Demands::default());
    }
}
