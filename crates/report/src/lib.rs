//! Runs as HTML pages.
//!
//! [`run_page`] shows one run, [`Comparison`] several side by side and as a blind study, whose answers [`tally`] counts;
//! [`table_page`] a table of methods.
//! Each page is one HTML file with its images inside; it fits a laptop and a phone and needs no network.
//!
//! ```
//! # let parent = tempfile::tempdir()?;
//! # let folder = parent.path().join("my-dog");
//! # let config = runs::TrainConfig { category: "dog".into(), ..runs::TrainConfig::paper() };
//! # let record = runs::RunRecord { config, ..runs::RunRecord::default() };
//! # runs::RunFolder::create(&folder)?.write_record(&record, "2.11.0", "Cpu")?;
//! let page = report::run_page(&folder)?;
//! assert!(page.starts_with("<!doctype html>") && page.contains("my-dog"));
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: knows nothing of tensors or models; what is not in a run's folder is left out, what is damaged or of another
//! form is an error that names it (`runs` reads it); no text of a file can become markup; pages do without a network.

mod answers;
mod attention;
mod comparison;
mod configuration;
mod embedded;
mod embedding;
mod generated;
mod page;
mod run;
mod run_page;
mod scores;
mod study;
mod table_page;

pub use answers::{Preference, Tally, tally};
pub use comparison::Comparison;
pub use page::{SCRIPT, STYLE, is_page};
pub use run_page::run_page;
pub use study::StudyOptions;
pub use table_page::{table_page, table_study};
