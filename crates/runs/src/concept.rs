//! The subjects of a run.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::TrainConfig;

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
    first: bool,
}

impl Concept<'_> {
    /// A prompt with its class noun filled in. `[V]` becomes the token of a further subject; that of the first stays for the
    /// pipeline to replace.
    pub fn fill(&self, prompt: &str) -> String {
        let prompt = prompt.replace("[category]", self.category);
        if self.first { prompt } else { prompt.replace("[V]", self.placeholder) }
    }
}

impl TrainConfig {
    /// All subjects, `[V]` first.
    pub fn concepts(&self) -> Vec<Concept<'_>> {
        let first = Concept {
            category: &self.category,
            placeholder: &self.placeholder,
            initial_word: self.initial_word.as_deref(),
            first: true,
        };
        let further = self.more_concepts.iter().map(|concept| Concept {
            category: &concept.category,
            placeholder: &concept.placeholder,
            initial_word: concept.initial_word.as_deref(),
            first: false,
        });
        std::iter::once(first).chain(further).collect()
    }
}
