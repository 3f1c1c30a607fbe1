//! Prompt sets with a gap for the subject, and which images to generate of them.
//!
//! ```
//! use prompts::{Plan, PromptSet};
//!
//! let plan = Plan { prompts: PromptSet::load("ours24")?, images: 4, seed: 0 };
//! let images = plan.images("[V] dog");
//! assert_eq!((images.len(), images[5].file_name().as_str()), (96, "001-01.png"));
//! # anyhow::Ok(())
//! ```
//!
//! The sets that need no file, and who made each, are in `data/`. Invariants: an image's seed depends on the plan's seed,
//! its prompt and its number alone; needs no LibTorch.

mod plan;
mod set;

pub use plan::{Plan, PlannedImage};
pub use set::{Prompt, PromptSet};
