//! Where the time goes: a table of nested spans, and a trace for `chrome://tracing` and `ui.perfetto.dev`; and log lines.
//!
//! Libraries mark their parts with [`tracing`]'s spans of the level TRACE, and log its events. A program calls [`install`] at
//! its start, and [`start`] where it wants to know where the time goes:
//!
//! ```
//! profile::install("warn", |line| eprintln!("{line}"))?;
//! let recording = profile::start(None).expect("nobody else is recording");
//! {
//!     let _span = tracing::trace_span!("train/step").entered();
//!     tracing::trace_span!("train/optimizer").in_scope(|| std::thread::sleep(std::time::Duration::from_millis(1)));
//! }
//! let profile = recording.stop();
//! assert!(profile.to_string().contains("  train/optimizer"));
//! let mut trace = Vec::new();
//! profile.write_trace(&mut trace)?;
//! # anyhow::Ok(())
//! ```
//!
//! The name of a span is the area of the program, a slash, and the part of it; a field `number` tells parts of one name
//! apart: `trace_span!("unet/down_blocks", number = 0)` is `unet/down_blocks.0`.
//!
//! A GPU works asynchronously: [`start`] takes a function that waits for it, and calls it at both ends of each span, so that
//! work counts where it was queued. That makes the whole slower, as nothing is queued ahead any more; and it waits for what
//! other threads have queued too, so that spans at the same time in two threads include each other's work.
//!
//! Spans of the thread that records add up to the time that passed. Threads beside it are shown beside it; those of one
//! name, or of none, count as one.
//!
//! Invariants: without a recording, spans of the level TRACE are disabled, which costs one relaxed atomic load; with one,
//! memory does not grow with time, for the table has a row for each place in the code and the trace [`MOST_EVENTS`] spans
//! at most (and a line for each thread); knows nothing of what it measures.

mod install;
mod recording;
mod state;
mod table;
mod trace;
mod tree;

pub use install::install;
pub use recording::{Profile, Recording, Synchronize, start};
pub use state::MOST_EVENTS;
