//! TI+DB, a baseline of AttnDreamBooth's paper (section 4.1): Textual Inversion and DreamBooth at once.

use runs::{Group, GroupConfig, Phase, Phases, TrainConfig};

use crate::Method;

/// The embedding and the U-Net together from the first step; only the U-Net's gradients are clipped.
#[derive(Debug)]
pub struct TiDb;

impl Method for TiDb {
    fn name(&self) -> &'static str {
        "ti-db"
    }

    fn recipe(&self) -> TrainConfig {
        let mut phase = Phase::new([Group::Embedding, Group::Unet], 660, 2e-6, 8);
        phase.trains.insert(Group::Embedding, GroupConfig { clip: false, ..GroupConfig::default() });
        TrainConfig {
            phases: Phases::from([("both".to_owned(), phase)]),
            max_grad_norm: Some(1.0),
            ..TrainConfig::of(self.name())
        }
    }
}
