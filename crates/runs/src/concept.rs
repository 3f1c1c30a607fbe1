//! The subjects of a run.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A subject that is learned beside the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FurtherConcept {
    /// Folder with photos of it, or a single photo.
    pub concept: PathBuf,
    /// Its class noun.
    pub category: String,
    /// Its placeholder token, which prompts call it by.
    pub placeholder: String,
    /// Word whose embedding the token starts from; the class noun if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_word: Option<String>,
}

/// One subject of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concept<'a> {
    /// Its class noun.
    pub category: &'a str,
    /// Its placeholder token.
    pub placeholder: &'a str,
    /// Word whose embedding a new token starts from.
    pub initial_word: Option<&'a str>,
    /// Whether prompts call it `[V]`, as they do the first.
    pub(crate) first: bool,
}

impl Concept<'_> {
    /// A prompt with its class noun filled in. `[V]` becomes the token of a further subject; that of the first stays for the
    /// pipeline to replace.
    pub fn fill(&self, prompt: &str) -> String {
        let prompt = prompt.replace("[category]", self.category);
        if self.first { prompt } else { prompt.replace("[V]", self.placeholder) }
    }

    /// A prompt that [`Concept::fill`] has filled, with the class noun alone where the subject was.
    pub fn without_token(&self, prompt: &str) -> String {
        let name = if self.first { "[V]" } else { self.placeholder };
        prompt.replace(&format!("{name} {}", self.category), self.category).replace(name, self.category)
    }
}
