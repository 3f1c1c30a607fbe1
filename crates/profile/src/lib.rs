//! Where the time goes: nested spans, a table of them, and a trace for `chrome://tracing` and `ui.perfetto.dev`.
//!
//! Code marks its parts with [`span`] or [`timed`], and a program that wants to know calls [`start`]:
//!
//! ```
//! let recording = profile::start(None).expect("nobody else is recording");
//! {
//!     let _span = profile::span("train/step");
//!     profile::timed("train/optimizer", || std::thread::sleep(std::time::Duration::from_millis(1)));
//! }
//! let profile = recording.stop();
//! assert!(profile.to_string().contains("  train/optimizer"));
//! let mut trace = Vec::new();
//! profile.write_trace(&mut trace)?;
//! # std::io::Result::Ok(())
//! ```
//!
//! A GPU works behind the program's back: [`start`] takes a function that waits for it, and calls it at both ends of each
//! span, so that work counts where it was queued. That makes the whole slower, as nothing is queued ahead any more; and
//! it waits for what other threads have queued too, so that spans at the same time in two threads include each other's
//! work.
//!
//! Spans of the thread that records add up to the time that passed. Threads beside it are shown beside it; those of one
//! name, or of none, count as one.
//!
//! Invariants: without a recording, a span costs one relaxed atomic load; with one, memory is bounded, for the table has
//! a row for each place in the code and the trace has [`MOST_EVENTS`] spans at most; knows nothing of what it measures.

mod name;
mod recording;
mod span;
mod state;
mod table;
mod trace;
mod tree;

pub use name::Name;
pub use recording::{Profile, Recording, Synchronize, start};
pub use span::{Span, span, timed};
pub use state::MOST_EVENTS;
