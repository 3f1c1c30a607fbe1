//! AttnDreamBooth's three stages (arXiv 2406.05000, section 4).
//!
//! A [`Session`] is a whole run in its folder, as the program `train` does it. Below it, [`Trainer`] holds a pipeline
//! with a new word, and [`Learning`] is one stage on its way:
//!
//! ```no_run
//! use sampling::Pipeline;
//! use tch::{Device, Kind};
//! use trainer::{PhotoBatches, Trainer};
//! use runs::{Stage, TrainConfig};
//!
//! let config = TrainConfig { category: "dog".to_owned(), ..TrainConfig::paper() };
//! let pipeline = Pipeline::from_folder("models/sd2.1-base".as_ref(), (Kind::Float, Device::Cpu))?;
//! let photos = photos::PhotoFolder::open("photos/dog")?.photos;
//! let mut batches = PhotoBatches::new(&config, &pipeline, photos, None)?;
//! let trainer = Trainer::new(config, pipeline)?;
//! for stage in Stage::ALL {
//!     let mut learning = trainer.start(stage)?;
//!     while learning.done() < trainer.config.stage(stage).steps {
//!         let report = learning.step(&trainer, &mut batches)?.wait()?;
//!         eprintln!("{stage} {}: {:.4} + {:.4}", report.step, report.diffusion_loss, report.attention_loss);
//!     }
//!     learning.finish(&trainer)?;
//! }
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: all randomness of a step derives from (seed, stage, step); the text encoder and the VAE are never
//! changed; trained parameters are f32; a run's base model and photos are told by their contents, not by where they are. Knows
//! nothing of terminals.

mod ahead;
mod batches;
mod checkpoint;
mod event;
mod latents;
mod learned;
mod learning;
mod loss;
mod memory;
mod moments;
mod outputs;
mod prior;
mod record;
mod rehearsal;
mod session;
mod snapshot;
mod space;
mod subject;
mod views;

pub use batches::{Batches, PhotoBatches, Place};
pub use checkpoint::{Checkpoint, State};
pub use event::{Event, Outcome};
pub use latents::LatentEncoder;
pub use learned::FinishedRun;
pub use learning::{LaunchedStep, Learning, StepReport, Trainer, trains};
pub use loss::{Batch, Losses, Objective};
pub use memory::NeedsMemory;
pub use rehearsal::Rehearsal;
pub use session::Session;
pub use snapshot::Snapshot;
pub use subject::Subject;
