//! Methods of personalisation: what each trains, adds to the model and minimises.
//!
//! A [`Method`] is mostly data, its recipe: a configuration with phases, of which each says what groups of parameters it trains,
//! for how many steps and at which learning rate. What data cannot say, a method overrides. One of your own is a file such as
//! this, and a line in [`ALL`]:
//!
//! ```
//! use anyhow::Result;
//! use methods::{LossTerm, Method, Step};
//! use runs::{Group, Phase, Phases, TrainConfig};
//!
//! /// Learns the embedding and the cross-attention together, and weighs late timesteps less.
//! #[derive(Debug)]
//! struct Mine;
//!
//! impl Method for Mine {
//!     fn name(&self) -> &'static str {
//!         "mine"
//!     }
//!
//!     fn recipe(&self) -> TrainConfig {
//!         let phase = Phase::new([Group::Embedding, Group::CrossAttention], 300, 1e-5, 4);
//!         TrainConfig { phases: Phases::from([("both".to_owned(), phase)]), ..TrainConfig::of("mine") }
//!     }
//!
//!     fn losses(&self, step: &Step<'_>) -> Result<Vec<LossTerm>> {
//!         let prediction = step.predict(None)?;
//!         step.diffusion(&prediction)
//!     }
//! }
//! assert_eq!(Mine.recipe().steps(), 300);
//! ```
//!
//! Invariants: a method keeps no state: all that is learned is in [`Learned`] or the pipeline; the same [`Method::install`] comes
//! before training and before a finished run is loaded; no random numbers but those of a batch and the seeded ones of a start.
//! Knows no files, no optimiser and no photos.

mod attndreambooth;
mod batch;
mod custom_diffusion;
mod denoising;
mod dreambooth;
mod learned;
mod lora;
mod loss;
mod method;
mod neti;
mod oft;
mod textual_inversion;
mod ti_db;
mod vico;

use anyhow::{Context, Result};

pub use attndreambooth::{AttnDreamBooth, AttnDreamBoothLora};
pub use batch::Batch;
pub use custom_diffusion::CustomDiffusion;
pub use denoising::Denoising;
pub use dreambooth::DreamBooth;
pub use learned::{Learned, initial_embedding};
pub use lora::Lora;
pub use loss::{LossTerm, Reduction};
pub use method::{Method, Step};
pub use neti::{NeTi, add_mapper, mapper_size};
pub use oft::Oft;
pub use textual_inversion::TextualInversion;
pub use ti_db::TiDb;
pub use vico::{ViCo, add_blocks};

/// All methods.
pub const ALL: [&dyn Method; 11] = [
    &AttnDreamBooth,
    &AttnDreamBoothLora,
    &TextualInversion,
    &DreamBooth,
    &TiDb,
    &CustomDiffusion,
    &Oft { constrained: false },
    &Oft { constrained: true },
    &Lora,
    &NeTi,
    &ViCo,
];

/// The method of a name.
///
/// # Errors
/// When there is none; names all there are.
pub fn named(name: &str) -> Result<&'static dyn Method> {
    let found = ALL.into_iter().find(|method| method.name() == name);
    found.with_context(|| {
        let names = ALL.map(Method::name).join(", ");
        format!("there is no method {:?}; the methods are {names}", terminal::shortened(name))
    })
}
