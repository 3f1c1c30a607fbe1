//! The training loop: a method's phases, step by step, with checkpoints that resume bit by bit.
//!
//! A [`Session`] is a whole run in its folder, as the program `train` does it. Below it, [`Trainer`] holds a pipeline
//! with what is to be learned, and [`PhaseRun`] is one phase on its way:
//!
//! ```no_run
//! use sampling::Pipeline;
//! use tch::{Device, Kind};
//! use trainer::{PhotoBatches, Trainer};
//! use runs::TrainConfig;
//!
//! let config = TrainConfig { category: "dog".to_owned(), ..TrainConfig::paper() };
//! let pipeline = Pipeline::from_folder("models/sd2.1-base".as_ref(), (Kind::Float, Device::Cpu))?;
//! let photos = photos::PhotoFolder::open("photos/dog")?.photos;
//! let mut batches = PhotoBatches::new(&config, &pipeline, vec![photos], Vec::new())?;
//! let trainer = Trainer::new(config, pipeline)?;
//! for (number, phase) in trainer.config.phases.values().enumerate() {
//!     let mut phase_run = trainer.start(number)?;
//!     while phase_run.done() < phase.steps {
//!         let report = phase_run.step(&trainer, &mut batches)?.wait()?;
//!         eprintln!("{} {}: {:?}", report.phase, report.step, report.losses);
//!     }
//!     phase_run.finish(&trainer)?;
//! }
//! # anyhow::Ok(())
//! ```
//!
//! Several processes (`distributed`) share each batch: rank 0 is the [`Session`], which alone writes, and each other one a [`Follower`].
//!
//! Invariants: all randomness of a step derives from (seed, phase, step); a phase changes the groups that it trains and nothing
//! else, never the VAE; trained parameters are f32; a run's base model and photos are told by their contents, not by where they
//! are. Knows nothing of terminals.

mod batches;
mod buckets;
mod checkpoint;
mod event;
mod extension;
mod finished_run;
mod fixed_batch;
mod follower;
mod init_from;
mod latent_cache;
mod latents;
mod memory;
mod order;
mod outputs;
mod phase_run;
mod phases;
mod prefetcher;
mod prior;
mod prompts;
mod reference;
mod rehearsal;
mod session;
mod share;
mod space;
mod start;
mod step_logger;
mod stop_rule;
mod stopping;
mod subject_attention;
mod text_alignment;

pub use batches::{BatchIndex, Batches, PhotoBatches};
pub use checkpoint::{Checkpoint, PendingCheckpoint, State};
pub use event::{Event, Outcome};
pub use finished_run::FinishedRun;
pub use follower::Follower;
pub use latents::LatentEncoder;
pub use memory::NeedsMemory;
pub use phase_run::{LaunchedStep, PhaseRun, StepReport, Trainer};
pub use rehearsal::Rehearsal;
pub use session::{Opening, Session, unet_dtype};
pub use share::Share;
