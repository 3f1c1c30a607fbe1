use std::ops::Range;

use crate::Encoding;
use crate::error::Result;
use crate::tokenizer::{END_OF_WORD, Tokenizer};

impl Tokenizer {
    /// The positions (BOS is 0) of each occurrence of a word, phrase or placeholder in a prompt, from left to right and
    /// without overlaps. Whole words count, in any case: "cat" is in "Cat's" but not in "cats". What was truncated has
    /// no position.
    ///
    /// A word may take several tokens, so a span may be longer than the phrase has words.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend) only; a phrase that does not occur has no spans.
    pub fn spans(&self, encoding: &Encoding, phrase: &str) -> Result<Vec<Range<usize>>> {
        let phrase = self.bare_ids(phrase)?;
        let mut spans = Vec::new();
        if phrase.is_empty() {
            return Ok(spans);
        }
        // Each position up to the last is a token of the prompt; the last holds EOS.
        let last = encoding.len - 1;
        let mut start = 1;
        while start + phrase.len() <= last {
            let end = start + phrase.len();
            // The end needs no check: the phrase's own last token ends a word.
            if encoding.ids[start..end] == phrase && (start == 1 || self.ends_word(encoding.ids[start - 1])) {
                spans.push(start..end);
                start = end;
            } else {
                start += 1;
            }
        }
        Ok(spans)
    }

    /// Whether a new word begins after this token.
    fn ends_word(&self, id: i64) -> bool {
        self.is_added(id) || self.token(id).is_some_and(|token| token.ends_with(END_OF_WORD))
    }
}
