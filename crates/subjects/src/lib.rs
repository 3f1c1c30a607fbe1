#![doc = include_str!("../README.md")]
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let file = folder.path().join("subjects.toml");
//! # let text = r#"
//! [[subjects]]
//! photos = "photos/rex"
//! category = "dog"
//!
//! [[subjects]]
//! name = "tom"
//! photos = "photos/tom"
//! category = "cat"
//! steps = 300
//! # "#;
//! # std::fs::write(&file, text)?;
//! // or, as CSV: photos,category,name,steps
//! let all = requests::TrainOptions { method: Some("lora".to_owned()), steps: Some(800), ..Default::default() };
//! let subjects = subjects::read(&file, &all)?;
//! assert_eq!(subjects[0].name, "rex");
//! assert_eq!((subjects[0].options.steps, subjects[1].options.steps), (Some(800), Some(300)));
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: looks at no photo; a key that nobody knows is an error that names it and its place; every name is fit for a folder's,
//! and no two are the same.

mod list;
mod names;
mod options;

pub use list::{Subject, read};
pub use names::check_names;
pub use options::{options_over, parse_options};
