//! DreamBooth with LoRA (arXiv 2106.09685): a low-rank change of the attention's weights, and a rare word.

use options::Adapter;
use runs::{Group, Phase, Phases, TrainConfig};

use crate::Method;

/// As diffusers' `train_dreambooth_lora.py`, with rank 32.
#[derive(Debug)]
pub struct Lora;

impl Method for Lora {
    fn name(&self) -> &'static str {
        "lora"
    }

    fn recipe(&self) -> TrainConfig {
        TrainConfig {
            placeholder: "sks".to_owned(),
            new_token: false,
            prompt: "a photo of [V] [category]".to_owned(),
            phases: Phases::from([("adapter".to_owned(), Phase::new([Group::Adapter], 500, 1e-4, 1))]),
            adapter: Some(Adapter::lora()),
            max_grad_norm: Some(1.0),
            ..TrainConfig::of(self.name())
        }
    }
}
