#![doc = include_str!("../README.md")]
//!
//! The miniature's own CLIP has heard its captions only, and so finds nothing of a penguin in "a bird in the snow". The judge is
//! another CLIP, with other random numbers, trained on a [`world`] in which the held-out characters are nouns: under their names
//! and under their class nouns, in poses that no photo of `fixtures/subjects` has. Half of its pictures have gone through the
//! miniature's VAE and a blur, as generated ones have. An [`attributes::Reader`] on its image features tells background, colour, style and
//! things.
//!
//! ```no_run
//! use tch::Device;
//!
//! let sources = judge::sources("drawings".as_ref(), "animations".as_ref())?;
//! let (miniature, run) = ("fixtures/miniature".as_ref(), "runs/judge".as_ref());
//! let mut training = judge::training(&judge::preset(), &sources, miniature, run, Device::Cpu)?;
//! training.run(&|| false, &mut |report| eprintln!("{}", report.step))?;
//! judge::assemble(run, &sources, "fixtures/judge".as_ref())?;
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: only scoring may load a judge: nothing that learns, generates or stops; all randomness of step n derives from
//! (seed, n); what it is measured on has compositions that it has not seen.

mod check;
mod examination;
mod labelled;
mod labels;
mod model;
mod pictures;
mod sheet;
mod training;
mod world;

pub use check::{Bound, Check, Recalls, Sight, check};
pub use examination::Examination;
pub use labelled::{Agreement, Labelled, LabelledImage};
pub use labels::attributes;
pub use training::{Config, assemble, preset, training};
pub use world::{sources, world};
