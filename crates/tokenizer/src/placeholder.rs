use std::collections::BTreeMap;

use tokenizers::AddedToken;

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

impl Tokenizer {
    /// Adds a placeholder of one or more vectors, and gives their ids, which start at the present [`embedding_rows`](Self::embedding_rows).
    ///
    /// The vectors of `<new>` are named `<new>`, `<new>_1`, `<new>_2` and so on, as in diffusers; [`expand`](Self::expand)
    /// puts them all into a prompt. A placeholder is found in any case and next to any characters: beware of names that
    /// are part of ordinary words. After an error the tokenizer is as before.
    ///
    /// # Errors
    /// [`Error::PlaceholderExists`] where a name is a token already, [`Error::InvalidPlaceholder`] where it cannot be one.
    pub fn add_placeholder(&mut self, token: &str, vectors: usize) -> Result<Vec<i64>> {
        let invalid = |reason| Err(Error::InvalidPlaceholder { token: token.to_owned(), reason });
        if token.is_empty() || token.contains(char::is_whitespace) {
            return invalid("give it a name without white space");
        }
        if vectors == 0 {
            return invalid("it needs at least one vector");
        }
        let names: Vec<String> = (0..vectors).map(|i| vector_name(token, i)).collect();
        for name in &names {
            let exact = self.id(name);
            let found = match self.bare_ids(name)?[..] {
                [id] => Some(id),
                _ => exact,
            };
            if let Some(id) = found {
                return Err(Error::PlaceholderExists { token: name.clone(), id });
            }
        }

        let mut changed = self.clone();
        changed.backend.add_tokens(names.iter().map(|name| AddedToken::from(name.as_str(), false)))?;
        let ids: Vec<i64> = (self.embedding_rows()..changed.embedding_rows()).collect();
        for (name, id) in names.iter().zip(&ids) {
            if changed.bare_ids(name)? != [*id] {
                return invalid("a special token of this tokenizer is part of the name; leave that out");
            }
        }
        *self = changed;
        Ok(ids)
    }

    /// The tokens beyond the vocabulary, by id.
    #[must_use]
    pub fn added(&self) -> BTreeMap<i64, String> {
        let added = self.backend.get_added_vocabulary().get_added_tokens_decoder();
        let beyond = added.iter().filter(|(id, _)| i64::from(**id) >= self.vocab_size());
        beyond.map(|(&id, token)| (i64::from(id), token.content.clone())).collect()
    }

    /// The ids of all vectors of an added placeholder; none where there is no such token.
    #[must_use]
    pub fn vectors(&self, token: &str) -> Vec<i64> {
        let ids = (0..).map_while(|i| self.id(&vector_name(token, i)));
        ids.take_while(|&id| self.is_added(id)).collect()
    }

    /// The prompt with all vectors of each placeholder in place: `a <new> hat` becomes `a <new> <new>_1 hat`. Where they
    /// stand already nothing changes, and so the prompt may be expanded again.
    ///
    /// # Errors
    /// [`Error::Backend`] only.
    pub fn expand(&self, prompt: &str) -> Result<String> {
        let encoding = self.backend.encode(prompt, false)?;
        let ids: Vec<i64> = encoding.get_ids().iter().map(|&id| i64::from(id)).collect();
        let mut expanded = String::with_capacity(prompt.len());
        let mut copied = 0;
        for (i, &id) in ids.iter().enumerate() {
            if !self.is_added(id) {
                continue;
            }
            let vectors = self.token(id).map(|token| self.vectors(&token)).unwrap_or_default();
            if vectors.len() < 2 || ids[i..].starts_with(&vectors) {
                continue;
            }
            let end = encoding.get_offsets()[i].1;
            expanded.push_str(prompt.get(copied..end).unwrap_or_default());
            for name in vectors[1..].iter().filter_map(|&id| self.token(id)) {
                expanded.push(' ');
                expanded.push_str(&name);
            }
            copied = end;
        }
        expanded.push_str(prompt.get(copied..).unwrap_or_default());
        Ok(expanded)
    }

    /// Whether this token is cut out of the text before words are: a special token or a placeholder.
    pub(crate) fn is_added(&self, id: i64) -> bool {
        let added = self.backend.get_added_vocabulary().get_added_tokens_decoder();
        u32::try_from(id).is_ok_and(|id| added.contains_key(&id))
    }
}

fn vector_name(token: &str, index: usize) -> String {
    if index == 0 { token.to_owned() } else { format!("{token}_{index}") }
}
