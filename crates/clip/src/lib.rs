//! CLIP (Radford et al., 2021, arXiv 2103.00020): a text encoder and an image encoder whose outputs can be compared.
//!
//! - [`ClipTextModel`]: what conditions Stable Diffusion. Takes token ids, or embeddings of which rows were replaced.
//! - [`ClipVisionModel`]: the image encoder, a vision transformer.
//! - [`ClipModel`]: both, with their projections into one space; [`ClipTextModelWithProjection`] and
//!   [`ClipVisionModelWithProjection`]: one of them.
//! - [`ImageProcessor`]: turns images into what the image encoder takes.
//!
//! ```
//! use std::path::Path;
//! use clip::{ClipModel, ImageProcessor};
//! use tch::{Device, Kind, Tensor};
//!
//! let folder = Path::new("../../fixtures/tiny-clip");
//! let (model, _) = ClipModel::from_folder(folder, (Kind::Float, Device::Cpu))?;
//!
//! let ids = Tensor::from_slice2(&[[1198i64, 320, 1199], [1198, 345, 1199]]); // from the crate `tokenizer`
//! let texts = model.text_features(&ids)?;
//!
//! let grey = vec![128; 3 * 40 * 60];
//! let image = ImageProcessor::from_folder(folder)?.process_rgb8(&grey, 40, 60)?;
//! let images = model.image_features(&image.unsqueeze(0))?;
//!
//! assert_eq!(clip::cosine_similarity(&images, &texts)?.size(), [1, 2]);
//! # anyhow::Ok(())
//! ```
//!
//! The text encoder of a Stable Diffusion folder, with one token learned by somebody:
//!
//! ```
//! # use std::path::Path;
//! # use clip::ClipTextModel;
//! # use tch::{Device, Kind, Tensor};
//! let folder = Path::new("../../fixtures/tiny-sd21/text_encoder");
//! let (text_encoder, _) = ClipTextModel::from_folder(folder, (Kind::Float, Device::Cpu))?;
//! let learned = text_encoder.token_embeddings().narrow(0, 320, 1) * 1.5;
//! let text_encoder = text_encoder.with_extra_tokens(&learned)?;
//!
//! let ids = Tensor::from_slice2(&[[1198i64, 1200, 1199]]); // 1200: the first id after the vocabulary
//! let encoder_hidden_states = text_encoder.forward(&ids)?;
//! assert_eq!(encoder_hidden_states.size(), [1, 3, 32]);
//! let penultimate = text_encoder.hidden_state(&ids, 1)?; // transformers' hidden_states[-2]
//! let skipped = text_encoder.forward_skipping(&ids, 1)?; // diffusers' clip_skip=1: after the final norm
//! # assert_eq!(penultimate.size(), skipped.size());
//! # anyhow::Ok(())
//! ```
//!
//! Models load from folders in transformers' layout (config.json and model.safetensors) and have transformers' parameter
//! names; new ones ([`weights::Random`]) start as transformers' do.
//!
//! Invariants: knows nothing of tokenizers, diffusion and image files. What it computes equals transformers 5.23.

mod config;
mod encoder;
mod folder;
mod model;
mod processor;
mod text;
mod vision;

pub use config::{ClipConfig, TextConfig, VisionConfig};
pub use model::{ClipModel, ClipTextModelWithProjection, ClipVisionModelWithProjection, cosine_similarity};
pub use processor::{ImageProcessor, Resampler, Size};
pub use text::ClipTextModel;
pub use vision::ClipVisionModel;
