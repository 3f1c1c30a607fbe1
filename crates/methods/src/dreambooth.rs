//! DreamBooth (arXiv 2208.12242): the whole U-Net and a rare word, on request the text encoder and prior preservation too.

use runs::{Group, Phase, Phases, TrainConfig};

use crate::Method;

/// As diffusers' example has it. `phases.unet.trains.text_encoder` trains the text encoder as well, `prior` adds class images.
#[derive(Debug)]
pub struct DreamBooth;

impl Method for DreamBooth {
    fn name(&self) -> &'static str {
        "dreambooth"
    }

    fn recipe(&self) -> TrainConfig {
        TrainConfig {
            placeholder: "sks".to_owned(),
            new_token: false,
            prompt: "a photo of [V] [category]".to_owned(),
            phases: Phases::from([("unet".to_owned(), Phase::new([Group::Unet], 400, 5e-6, 1))]),
            max_grad_norm: Some(1.0),
            ..TrainConfig::of(self.name())
        }
    }
}
