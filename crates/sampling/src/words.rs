//! Which tokens of a prompt belong to which word.

use std::ops::Range;

use anyhow::{Result, bail};
use tokenizer::Tokenizer;

/// How users write the subject that a model has learned.
pub(crate) const SUBJECT: &str = "[V]";

/// A word of a prompt; see [`Pipeline::words`](crate::Pipeline::words).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// As it stands in the prompt, or `[V]`.
    pub text: String,
    /// The positions of its tokens, where the start of the text is 0.
    pub positions: Range<usize>,
}

/// The words of a prompt in which `subject` stands by its name.
pub(crate) fn words(tokenizer: &Tokenizer, prompt: &str, subject: Option<&str>) -> Result<Vec<Word>> {
    let encoding = tokenizer.encode(prompt)?;
    if let Some(truncation) = &encoding.truncation {
        bail!("{truncation}; shorten it");
    }
    let subjects = match subject {
        Some(name) => tokenizer.spans(&encoding, &tokenizer.expand(name)?)?,
        None => Vec::new(),
    };
    let text = |bytes: Range<usize>| prompt.get(bytes).unwrap_or_default();
    // Where the run without white space begins that a position is in.
    let run = |position: usize| text(0..encoding.text[position].start).rfind(char::is_whitespace);
    let mut words: Vec<Word> = Vec::new();
    for position in 1..encoding.len - 1 {
        if let Some(span) = subjects.iter().find(|span| span.contains(&position)) {
            if span.start == position {
                words.push(Word { text: SUBJECT.to_owned(), positions: span.clone() });
            }
            continue;
        }
        // An apostrophe or a hyphen within a word is covered by what follows it.
        if text(encoding.text[position].clone()).chars().all(|c| c.is_ascii_punctuation()) {
            continue;
        }
        match words.last_mut() {
            Some(word) if run(word.positions.start) == run(position) && !subjects.contains(&word.positions) => {
                word.positions.end = position + 1;
            }
            _ => words.push(Word { text: String::new(), positions: position..position + 1 }),
        }
    }
    for word in words.iter_mut().filter(|word| word.text.is_empty()) {
        let (first, last) = (word.positions.start, word.positions.end - 1);
        word.text = text(encoding.text[first].start..encoding.text[last].end).to_owned();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use golden::fixtures;

    use super::*;

    fn tokenizer(vectors: usize) -> Tokenizer {
        let mut tokenizer = Tokenizer::load(fixtures().join("tiny-sd21/tokenizer")).unwrap();
        tokenizer.add_placeholder("<new>", vectors).unwrap();
        tokenizer
    }

    fn found(prompt: &str, vectors: usize) -> Vec<Word> {
        let tokenizer = tokenizer(vectors);
        words(&tokenizer, &tokenizer.expand(prompt).unwrap(), Some("<new>")).unwrap()
    }

    fn texts(prompt: &str) -> Vec<String> {
        found(prompt, 1).into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn words_are_what_white_space_separates_without_punctuation_around() {
        assert_eq!(texts("A photo, of  a <new> cat."), ["A", "photo", "of", "a", "[V]", "cat"]);
        assert_eq!(texts("(half-time) the dog's <new>'s"), ["half-time", "the", "dog's", "[V]", "'s"]);
        assert_eq!(texts("K\u{e4}tzchen \u{1f431} <new>"), ["K\u{e4}tzchen", "\u{1f431}", "[V]"]);
        assert_eq!(texts(""), [""; 0]);
        assert_eq!(texts("?!"), [""; 0]);
    }

    #[test]
    fn positions_cover_all_tokens_of_a_word() {
        let tokenizer = tokenizer(3);
        let prompt = tokenizer.expand("an <new> extraordinary cat").unwrap();
        let encoding = tokenizer.encode(&prompt).unwrap();
        let words = found("an <new> extraordinary cat", 3);
        assert_eq!(words[1], Word { text: "[V]".to_owned(), positions: 2..5 });
        assert!(words[2].positions.len() > 1);
        let last = words.last().unwrap();
        assert_eq!((last.text.as_str(), last.positions.end), ("cat", encoding.len - 1));
        for pair in words.windows(2) {
            assert_eq!(pair[0].positions.end, pair[1].positions.start);
        }
    }

    #[test]
    fn two_subjects_side_by_side_are_two_words() {
        let words = found("<new><new> <new>", 1);
        assert_eq!(words.iter().map(|word| word.positions.clone()).collect::<Vec<_>>(), [1..2, 2..3, 3..4]);
    }

    #[test]
    fn a_prompt_that_is_too_long_is_refused() {
        let error = words(&tokenizer(1), &"cat ".repeat(90), None).unwrap_err().to_string();
        assert!(error.contains("too long") && error.ends_with("shorten it"), "{error}");
    }
}
