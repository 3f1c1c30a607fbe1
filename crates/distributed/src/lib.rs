#![doc = include_str!("../README.md")]
//!
//! ```
//! use distributed::{Environment, Group, share};
//!
//! // Nothing is set: a process alone.
//! assert_eq!(Environment::read(&|_| None)?, None);
//! let group = Group::alone();
//! assert!(group.leads());
//! assert_eq!(group.any([true, false])?, [true, false]);
//!
//! // Of five samples, the second of three processes takes two.
//! assert_eq!(share(5, 1, 3), 2..4);
//! # anyhow::Ok(())
//! ```
//!
//! How it works. [`Environment`] is what `torchrun` sets: `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR` and `MASTER_PORT`. Rank 0
//! serves a store of keys there (c10d's `TCPStore`; `torchrun`'s own, where it says so), in which all ranks find each other; then they
//! are connected by Gloo. A process that ends closes its connections, and the others' operations fail at once. One that hangs, or
//! whose machine is gone, misses heartbeats in the store, and what waits for it fails after [`LOST_AFTER`] ([`Lost`]).
//!
//! Invariants: all ranks must call the same functions of a [`Group`] in the same order; a group of one does nothing, and costs nothing.
//! Knows nothing of models, runs or files.

mod environment;
mod gradients;
mod group;
mod heartbeat;

pub use environment::Environment;
pub use gradients::Gradients;
pub use group::{Group, Lost, share};
pub use heartbeat::LOST_AFTER;
