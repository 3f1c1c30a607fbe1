#![doc = include_str!("../README.md")]
//!
//! ```
//! use lease::{Claim, Lease};
//!
//! # let parent = tempfile::tempdir()?;
//! # let folder = parent.path().join("rex");
//! match Lease::of_folder(&folder, || std::process::abort())? {
//!     Claim::Ours(lease) => {
//!         // Work. Whoever asks meanwhile is told who is at it.
//!         assert!(matches!(Lease::of_folder(&folder, || {})?, Claim::Theirs { alive: true, .. }));
//!         drop(lease);
//!     }
//!     Claim::Theirs { holder, .. } => println!("{holder} is at it"),
//! }
//! assert!(matches!(Lease::of_folder(&folder, || {})?, Claim::Ours(_)));
//! # anyhow::Ok(())
//! ```
//!
//! How it works. Leases of one piece of work are numbered; the highest one counts. To claim is to create the next number, which only
//! one of several can do, and only where the last one was given back or has missed [`MISSED`] heartbeats. Ages are by the clock
//! of the place where leases are kept, so that clocks of workers may differ.
//!
//! Invariants: the highest number is never removed, so no slow worker creates one a second time; a worker that finds a higher number
//! than its own, or could not beat for so long that another may have claimed, is told so at once and must end without writing.

mod folder;
mod holder;
mod lease;
mod place;

pub use folder::Folder;
pub use holder::{EVERY, Holder, Identity};
pub use lease::{Claim, Lease, MISSED, release_all};
pub use place::{Entry, Place};
