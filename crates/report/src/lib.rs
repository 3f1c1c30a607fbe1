//! Runs as HTML pages.
//!
//! [`run_page`] shows one run, [`Comparison`] several side by side and as a blind study, whose answers [`tally`] counts.
//! Each page is one HTML file with its images inside; it fits a laptop and a phone and needs no network.
//!
//! ```
//! # let parent = tempfile::tempdir()?;
//! # let folder = parent.path().join("my-dog");
//! # let run = runs::RunFolder::create(&folder)?;
//! # run.write_config(&serde_json::json!({"config": {"category": "dog"}}), [])?;
//! let page = report::run_page(&folder)?;
//! assert!(page.starts_with("<!doctype html>") && page.contains("my-dog"));
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: knows nothing of tensors or models, and reads other crates' files without demands, leaving out what is not
//! there; no text of a file can become markup; pages do without a network.

mod answers;
mod attention;
mod comparison;
mod configuration;
mod embedded;
mod embedding;
mod generated;
mod interval;
mod page;
mod run;
mod run_page;
mod scores;
mod study;

pub use answers::{Preference, Tally, tally};
pub use comparison::Comparison;
pub use interval::wilson;
pub use page::is_page;
pub use run_page::run_page;
pub use study::StudyOptions;
