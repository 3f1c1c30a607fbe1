//! Custom Diffusion (arXiv 2212.04488): a new token, and the keys and values of cross-attention.

use anyhow::Result;
use options::SchedulerKind;
use runs::{Group, Phase, Phases, Prior, Sizes, TrainConfig, Validation};
use tch::Kind;
use unet::KvCache;

use crate::{Method, Step};

/// As the authors' code and diffusers' have it: photos at different sizes with a masked loss, a set of class images, and no
/// gradient of the first position's keys and values.
#[derive(Debug)]
pub struct CustomDiffusion;

impl Method for CustomDiffusion {
    fn name(&self) -> &'static str {
        "custom-diffusion"
    }

    fn recipe(&self) -> TrainConfig {
        let mut config = TrainConfig {
            placeholder: "<new1>".to_owned(),
            prompt: "photo of a [V] [category]".to_owned(),
            phases: Phases::from([(
                "both".to_owned(),
                Phase::new([Group::Embedding, Group::KeysValues], 500, 4e-5, 2),
            )]),
            max_grad_norm: Some(1.0),
            prior: Some(Prior { images: 200, prompt: "[category]".to_owned(), ..Prior::default() }),
            sizes: Some(Sizes::default()),
            ..TrainConfig::of(self.name())
        };
        config.validation = Validation {
            steps: 100,
            guidance_scale: 6.0,
            scheduler: Some(SchedulerKind::Ddim),
            eta: Some(1.0),
            ..config.validation
        };
        config
    }

    fn text(&self, step: &Step<'_>, dtype: Kind) -> Result<KvCache> {
        Ok(step.project(dtype)?.with_first_detached())
    }
}
