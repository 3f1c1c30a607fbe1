//! Stable Diffusion's autoencoder (`AutoencoderKL` in diffusers): images to latents and back.
//!
//! The U-Net does not work on pixels but on *latents*, which have 4 channels and an eighth of the image's height and
//! width (Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", arXiv 2112.10752). This
//! crate loads a `vae/` folder in the diffusers layout and runs it:
//!
//! ```
//! use std::path::Path;
//! use tch::{Device, Kind, Tensor};
//! use vae::{AutoencoderKl, Tiling};
//!
//! # let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-sd21/vae");
//! # let folder = folder.as_path();
//! let to = (Kind::Float, Device::Cpu);
//! let (vae, _parameters) = AutoencoderKl::from_folder(folder, to)?;
//!
//! // A grey image: RGB in [-1, 1], height and width multiples of 8.
//! let images = Tensor::zeros([1, 3, 96, 64], to);
//! let posterior = vae.encode(&images)?;
//! let noise = libtorch::random::normal(0, &posterior.mean().size());
//! let latents = vae.scale_latents(&posterior.sample(&noise)?); // what the U-Net sees
//! assert_eq!(latents.size(), [1, 4, 12, 8]);
//!
//! // Back again: as a whole, and in tiles of 64x64 pixels, which bounds the memory that large images take.
//! let unscaled = vae.unscale_latents(&latents);
//! assert_eq!(vae.decode(&unscaled)?.size(), [1, 3, 96, 64]);
//! let tiles = Tiling { tile_size: Some(64), ..Tiling::NONE };
//! assert_eq!(vae.decode_tiled(&unscaled, &tiles)?.size(), [1, 3, 96, 64]);
//! # anyhow::Ok(())
//! ```
//!
//! Parameters carry diffusers' names. Files with the old attention names (`query`, `key`, `value`, `proj_attn`), as
//! those that were published with Stable Diffusion 1 and 2, load as well.
//!
//! Invariants: draws no random numbers (the caller gives the noise) and reads no images; knows nothing of prompts,
//! timesteps or pipelines. The dtype of the input decides what is computed in. Gradients flow through everything;
//! whoever needs none says so with [`tch::no_grad`] or leaves the parameters frozen, as they are when loaded.

mod attention;
mod config;
mod decoder;
mod encoder;
mod mid_block;
mod model;
mod posterior;
mod tiling;

pub use config::Config;
pub use model::AutoencoderKl;
pub use posterior::Posterior;
pub use tiling::Tiling;
