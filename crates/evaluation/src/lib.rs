//! How well a learned subject is generated: CLIP-I and CLIP-T over a set of prompts (the paper's section 5, after Textual
//! Inversion's evaluation, arXiv 2208.01618). Photos go to CLIP as its own preparation says, the shorter side resized and the
//! middle cut out; that evaluation squashed them into squares first.
//!
//! - [`Gallery`]: a folder with the images of a [`prompts::Plan`]; generates what is missing, and refuses what does not belong there.
//! - [`FeatureExtractor`]: any CLIP ([`find_clip`]), for texts and for image files; with a [`DinoFeatures`] also DINO-I.
//! - [`evaluate_images`]: [`runs::Scores`] by image, prompt and kind, with intervals by [`statistics::bootstrap_mean`].
//! - [`across_runs`]: several [`runs::Evaluation`]s together.
//!
//! ```
//! use std::path::Path;
//! use evaluation::{GeneratedImage, FeatureExtractor, Reference, evaluate_images};
//! use prompts::{Prompt, PromptSet};
//! use statistics::Bootstrap;
//! use tch::Device;
//!
//! let fixtures = Path::new("../../fixtures");
//! let extractor = FeatureExtractor::open(&fixtures.join("tiny-clip"), Device::Cpu)?;
//! let prompts = [Prompt { text: "a {} on the beach".to_owned(), kind: "background".to_owned() }];
//! let prompts = PromptSet { name: "one".to_owned(), source: String::new(), note: String::new(), prompts: prompts.to_vec() };
//! let images = fixtures.join("evaluation/images");
//! let generated = ["000-00.png", "000-01.png"].map(|name| GeneratedImage { path: images.join(name), prompt: 0, seed: 0 });
//!
//! let photos = [fixtures.join("evaluation/photos/front.png")];
//! let reference = Reference { photos: &photos, category: "toy", prompts: &prompts, masks: None };
//! let scores = evaluate_images(&extractor, &generated, &reference, &Bootstrap::default(), &mut |_| {})?;
//! let subject = scores.mean.clip_i;
//! assert!(subject.low <= subject.mean && subject.mean <= subject.high);
//! assert_eq!(scores.prompts[0].images.len(), 2);
//! # anyhow::Ok(())
//! ```
//!
//! A score is the mean over images of each prompt, then over prompts. CLIP-I of an image is its mean cosine
//! with all photos, so that the mean is that over all pairs.
//!
//! Invariants: knows nothing of training or terminals; no image is overwritten that is complete; memory does not grow
//! with the number of images.

mod across_runs;
mod clip_folder;
mod dino_features;
mod encoding;
mod features;
mod gallery;
mod image_file;
mod scores;

pub use across_runs::{across_runs, paired_differences};
pub use clip_folder::{clip_name, find_clip};
pub use dino_features::DinoFeatures;
pub use features::FeatureExtractor;
pub use gallery::{Gallery, GalleryProgress};
pub use image_file::{ImageFile, Mask};
pub use scores::{GeneratedImage, Masks, Reference, estimate, evaluate_images, evaluate_photos};
