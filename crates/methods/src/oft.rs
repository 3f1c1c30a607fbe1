//! OFT and COFT (arXiv 2306.07280): the inputs of the attention layers are rotated, in blocks.

use options::Adapter;
use runs::{Group, Phase, Phases, Prior, TrainConfig};

use crate::Method;

/// All of `to_q`, `to_k`, `to_v` and `to_out` of self- and cross-attention, with prior preservation, as the paper has it.
#[derive(Debug)]
pub struct Oft {
    /// COFT: the rotations stay within a distance of none.
    pub constrained: bool,
}

impl Method for Oft {
    fn name(&self) -> &'static str {
        if self.constrained { "coft" } else { "oft" }
    }

    fn recipe(&self) -> TrainConfig {
        TrainConfig {
            placeholder: "qwe".to_owned(),
            new_token: false,
            prompt: "a photo of [V] [category]".to_owned(),
            phases: Phases::from([("adapter".to_owned(), Phase::new([Group::Adapter], 1000, 6e-5, 1))]),
            adapter: Some(if self.constrained { Adapter::coft() } else { Adapter::oft() }),
            max_grad_norm: Some(1.0),
            prior: Some(Prior { images: 200, ..Prior::default() }),
            ..TrainConfig::of(self.name())
        }
    }
}
