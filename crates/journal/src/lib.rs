//! The record of a long run, in the run's folder.
//!
//! | file | what |
//! |---|---|
//! | `config.json` | the configuration, and under `versions` what it ran with |
//! | `log.jsonl` | a JSON object for each step |
//! | `events.out.tfevents.*` | the same for TensorBoard |
//! | `.lock` | held by the process that works in the folder ([`Lock`], which other folders may have too) |
//!
//! What a command makes beside runs goes into a [`ResultsFolder`]. Neither replaces what this program has not written.
//!
//! ```
//! use journal::{Entry, Log, RunFolder, Scalars};
//! use serde_json::json;
//!
//! # let parent = tempfile::tempdir()?;
//! # let path = parent.path().join("run");
//! let run = RunFolder::create(&path)?;
//! run.write_config(&json!({"learning_rate": 2e-6}), &[("example", "1.0")])?;
//! let mut log = Log::open(run.path(), 0)?;
//! let mut scalars = Scalars::open(run.path(), 0)?;
//! for step in 1..=3 {
//!     let entry = Entry::now(step, "warm-up", [("loss", 1.0 / step as f64)]);
//!     log.append(&entry)?;
//!     scalars.append(&entry)?;
//! }
//! drop(run);
//!
//! // Another process goes on, with a checkpoint of step 2.
//! let run = RunFolder::resume(&path)?;
//! let changes = journal::differences(&run.saved_config()?.config, &json!({"learning_rate": 1e-5}));
//! assert_eq!(changes, ["learning_rate was 2e-6, is 1e-5"]);
//! let log = Log::open(run.path(), 2)?;
//! assert_eq!(journal::read_log(run.path())?.len(), 2);
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: knows nothing of models; one process at a time works in a folder; the log of a run that was killed and
//! resumed equals that of one that was not, but for what the clock says.

mod config;
mod curves;
mod events;
mod folder;
mod lock;
mod log;
mod record;
mod results;

pub use config::{SavedConfig, differences, holds_run};
pub use curves::{curves, draw_curves};
pub use events::Scalars;
pub use folder::{RunFolder, vacant};
pub use lock::Lock;
pub use log::{Entry, Log, read_log};
pub use results::ResultsFolder;
