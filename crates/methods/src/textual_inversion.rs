//! Textual Inversion (arXiv 2208.01618): the embedding of a new token alone, in many prompts.

use runs::{Group, Phase, Phases, TrainConfig};

use crate::Method;

/// As diffusers' example has it: 27 photo templates, all other embeddings and the models frozen.
#[derive(Debug)]
pub struct TextualInversion;

impl Method for TextualInversion {
    fn name(&self) -> &'static str {
        "textual-inversion"
    }

    fn recipe(&self) -> TrainConfig {
        let phase = Phase::new([Group::Embedding], 3000, 2e-3, 4);
        TrainConfig {
            prompt: "a photo of a [V]".to_owned(),
            templates: Some("photo27".to_owned()),
            phases: Phases::from([("embedding".to_owned(), phase)]),
            ..TrainConfig::of(self.name())
        }
    }
}
