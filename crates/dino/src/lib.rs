//! DINO's image encoder (Caron et al., arXiv 2104.14294): a vision transformer whose class token tells apart what CLIP's calls by one
//! word. DreamBooth and its successors report the cosine of these features as DINO-I.
//!
//! ```
//! use std::path::Path;
//! use tch::{Device, Kind};
//!
//! let folder = Path::new("../../fixtures/tiny-dino");
//! let (model, _) = dino::ViT::from_folder(folder, (Kind::Float, Device::Cpu))?;
//! let processor = dino::image_processor(folder)?;
//! let pixels = processor.process_rgb8(&[128; 3 * 40 * 50], 40, 50)?.unsqueeze(0);
//! assert_eq!(model.features(&pixels)?.size(), [1, 32]);
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: parameter names equal those of transformers' `ViTModel`; no shape is hard-coded; knows nothing of what is compared.

mod config;
mod model;
mod processor;

pub use config::Config;
pub use model::ViT;
pub use processor::image_processor;
