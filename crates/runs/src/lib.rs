//! A run's folder: the one owner of its format.
//!
//! | file | what | type |
//! |---|---|---|
//! | `config.json` | configuration, base model and photos by their contents, versions and format | [`SavedRun`], [`TrainConfig`] |
//! | `log.jsonl` | a JSON object for each step | [`Log`], [`read_log`], [`LogReader`] |
//! | `events.out.tfevents.*` | the same for TensorBoard | [`Scalars`] |
//! | `stop.json` | the measurements of `--stop`, and how the run ended by them | [`StopRecord`] |
//! | `validation/`, `samples.png` | validation images | [`samples`] |
//! | `comparison/` | the subject beside the base model | [`Comparison`] |
//! | `evaluation/SET/` | images of a prompt set and their scores | [`Evaluation`], [`GalleryConfig`] |
//! | `images/` | images of prompts with their parameters | [`ImageFolder`], [`read_images`] |
//! | `attend/`, `inspect/` | attention maps, the learned embedding | [`Attention`], [`Inspection`] |
//! | `.lock` | held by the process that works in the folder | [`RunFolder`], [`Lock`] |
//!
//! [`layout`] has all names. What a command makes beside runs goes into a [`ResultsFolder`]; neither replaces what this program
//! has not written. A configuration is put together by [`ConfigLayers`], from presets, JSON and TOML files and single values.
//!
//! ```
//! use runs::{Entry, Log, RunFolder, Scalars};
//! use serde_json::json;
//!
//! # let parent = tempfile::tempdir()?;
//! # let path = parent.path().join("run");
//! let run = RunFolder::create(&path)?;
//! run.write_config(&json!({"learning_rate": 2e-6}), [("example", "1.0")])?;
//! let mut log = Log::open(run.path(), 0)?;
//! let mut scalars = Scalars::open(run.path(), 0)?;
//! for step in 1..=3 {
//!     let entry = Entry::now(step, "warm-up", [("loss", 1.0 / step as f64)]);
//!     log.append(&entry)?;
//!     scalars.append(&entry)?;
//! }
//! drop(run);
//!
//! // Another process resumes it from a checkpoint of step 2.
//! let run = RunFolder::resume(&path)?;
//! let changes = runs::differences(&run.saved_config()?.config, &json!({"learning_rate": 1e-5}));
//! assert_eq!(changes, ["learning_rate was 2e-6, is 1e-5"]);
//! let log = Log::open(run.path(), 2)?;
//! assert_eq!(runs::read_log(run.path())?.len(), 2);
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: needs no LibTorch; a record that is absent is none, one that is damaged an error that names its file and key, a
//! run of a later format an error that names both formats; one process at a time works in a folder; the log of a run that was
//! killed and resumed equals that of one that was not, but for what the clock says.

mod attention;
mod bounds;
mod checkpoints;
mod concept;
mod config;
mod config_layers;
mod curves;
mod folder;
mod images;
pub mod layout;
mod lock;
mod log;
mod model_fingerprint;
mod paths;
mod phase;
mod read;
mod results_folder;
mod samples;
mod saved_config;
mod saved_run;
mod scores;
mod stop;
mod stop_record;

mod tfevents;

pub use attention::{
    Attention, AttentionArguments, AttentionRow, AttentionWord, BeforeOrAfter, HeatMapSettings, InspectedVector,
    Inspection, InspectionImage, NearToken, Overlay, attention_maps,
};
pub use checkpoints::{CheckpointFolder, write_checkpoint};
pub use concept::{Concept, FurtherConcept};
pub use config::{Captions, Masks, Prior, Reference, RegularizerConfig, Sizes, TrainConfig, Validation, config_schema};
pub use config_layers::ConfigLayers;
pub use curves::{curves, draw_curves};
pub use folder::{RunFolder, vacant};
pub use images::{ImageEntry, ImageFolder, read_images};
pub use lock::Lock;
pub use log::{Entry, Log, LogReader, read_log};
pub use model_fingerprint::ModelFingerprint;
pub use paths::settle_paths;
pub use phase::{Group, GroupConfig, Phase, Phases};
pub use results_folder::ResultsFolder;
pub use samples::{Comparison, ComparisonRow, Sample, SampleTime, samples};
pub use saved_config::{SavedConfig, Versions, differences, holds_run};
pub use saved_run::{Extends, FORMAT, RunRecord, SavedPhoto, SavedRun, by_contents};
pub use scores::{
    Ablation, AblationRow, AcrossRuns, ClipName, ComparedRun, Differences, Evaluation, GalleryConfig, ImageScores,
    KindScores, Metrics, PromptScores, RunComparison, Scores, Variant, evaluations,
};
pub use stop::{AutoStop, Dvar, Stop, StopClip};
pub use stop_record::{Ending, Measurement, Reason, StopRecord, TimestepBin};

pub use tfevents::Scalars;
