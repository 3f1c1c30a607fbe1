//! AttnDreamBooth's three stages (arXiv 2406.05000, section 4).
//!
//! A [`Session`] is a whole run in its folder, as the program `train` does it. Below it, [`Trainer`] holds a pipeline
//! with a new word, and [`StageRun`] is one stage on its way:
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
//!     let mut stage_run = trainer.start(stage)?;
//!     while stage_run.done() < trainer.config.stage(stage).steps {
//!         let report = stage_run.step(&trainer, &mut batches)?.wait()?;
//!         eprintln!("{stage} {}: {:.4} + {:.4}", report.step, report.diffusion_loss, report.attention_loss);
//!     }
//!     stage_run.finish(&trainer)?;
//! }
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: all randomness of a step derives from (seed, stage, step); the text encoder and the VAE are never
//! changed; trained parameters are f32; a run's base model and photos are told by their contents, not by where they are. Knows
//! nothing of terminals.

mod batches;
mod checkpoint;
mod event;
mod finished_run;
mod latent_cache;
mod latents;
mod loss;
mod memory;
mod outputs;
mod prefetcher;
mod prior;
mod rehearsal;
mod session;
mod space;
mod stage_run;
mod step_logger;
mod subject;

pub use batches::{BatchIndex, Batches, PhotoBatches};
pub use checkpoint::{Checkpoint, Snapshot, State};
pub use event::{Event, Outcome};
pub use finished_run::FinishedRun;
pub use latents::LatentEncoder;
pub use loss::{Batch, Losses, Objective};
pub use memory::NeedsMemory;
pub use rehearsal::Rehearsal;
pub use session::Session;
pub use stage_run::{LaunchedStep, StageRun, StepReport, Trainer, trains};
pub use subject::Subject;
