//! Tables that compare methods, as the paper's Table 1: methods, subjects, seeds and prompts, crossed.
//!
//! A [`TablePlan`] is a file. Its [`cells`] are numbered: each is one method that has learned one subject from one seed, generated
//! and scored, and stands for itself in a folder with a [`CellRecord`]; any machine may compute it. [`Table::of`] collects what is
//! done, and [`Table::write`] shows it in the [`Format`]s that people read and papers print.
//!
//! ```
//! use tables::{TablePlan, cells};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("plan.toml");
//! std::fs::write(&path, r#"
//!     name = "dogs"
//!     model = "sd2.1-base"
//!     reference = "AttnDreamBooth"
//!     subjects = [{ name = "rex", photos = "photos/rex", category = "dog" }]
//!     methods = [{ name = "AttnDreamBooth" }, { name = "OFT", method = "oft" }]
//! "#)?;
//! let plan = TablePlan::read(&path)?;
//! let names: Vec<String> = cells(&plan).iter().map(|cell| cell.name()).collect();
//! assert_eq!(names, ["rex, real pictures", "rex, base model, seed 0", "rex, AttnDreamBooth, seed 0", "rex, OFT, seed 0"]);
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: computes no image and no score; needs no LibTorch; a cell's number depends on the plan alone, and its
//! folder not on the number; every table has two rows
//! of bounds, real pictures of the subjects and the base model without them.

mod cell;
mod format;
mod plan;
mod record;
mod table;

pub use cell::{Cell, System, cells};
pub use format::Format;
pub use plan::{Margin, Method, Protocol, Subject, TablePlan};
pub use record::{CellRecord, Cost};
pub use table::{Against, KindRow, Row, Table};

/// The row of real pictures.
pub const REAL: &str = "real pictures";
/// The row of the base model, which has not seen the subject.
pub const BASE: &str = "base model";
