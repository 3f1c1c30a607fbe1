//! Prompt sets with a gap for the subject, and which images to generate of them; training templates, size phrases and captions.
//!
//! ```
//! use prompts::{Plan, PromptSet, TemplateSet};
//!
//! let plan = Plan { prompts: PromptSet::load("ours24")?, images: 4, seed: 0 };
//! let images = plan.images("[V] dog");
//! assert_eq!((images.len(), images[5].file_name().as_str()), (96, "001-01.png"));
//!
//! let templates = TemplateSet::load("photo27")?;
//! assert_eq!((templates.prompts.len(), templates.prompts[1].as_str()), (27, "a rendering of a [V]"));
//! # anyhow::Ok(())
//! ```
//!
//! The sets that need no file, and who made each, are in `data/`, `templates/`, `phrases/` and `captions/`. Invariants: an image's
//! seed depends on the plan's seed, its prompt and its number alone; needs no LibTorch.

mod captions;
mod plan;
mod set;
mod size_phrases;
mod templates;
mod text;

pub use captions::CaptionSet;
pub use plan::{Plan, PlannedImage};
pub use set::{Prompt, PromptSet};
pub use size_phrases::{SizePhrases, with_phrase};
pub use templates::TemplateSet;
