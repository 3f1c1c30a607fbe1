//! The denoising U-Net of Stable Diffusion 1.x and 2.x (diffusers' `UNet2DConditionModel`), instrumented.
//!
//! [`UNet::from_folder`] loads a `unet/` folder in the diffusers layout; [`UNet::forward`] predicts the noise (or the
//! velocity) in noisy latents. Parameters are called as in diffusers' `state_dict`.
//!
//! An [`AttentionObserver`] sees which pixels attend to which token, in each cross-attention layer, as tensors of the
//! autograd graph: enough to regularise attention while training (AttnDreamBooth, arXiv 2406.05000) and to draw heat
//! maps (DAAM, arXiv 2210.04885). Without an observer nothing is computed or kept for it.
//!
//! ```
//! use tch::{Device, Kind, Tensor};
//! use unet::{AttentionMaps, Config, UNet};
//!
//! let config: Config = serde_json::from_str(
//!     r#"{"block_out_channels": [8, 16], "cross_attention_dim": 32, "attention_head_dim": 2, "norm_num_groups": 4,
//!         "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
//!         "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}"#,
//! )?;
//! let to = (Kind::Float, Device::Cpu);
//! let (unet, parameters) = weights::build(&weights::Random { seed: 0 }, to, |vs| UNet::new(vs, &config))?;
//! assert!(parameters.get("mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight").is_some());
//!
//! let (latents, text) = (Tensor::randn([2, 4, 16, 16], to), Tensor::randn([2, 77, 32], to));
//! let timesteps = Tensor::from_slice(&[981_i64, 20]);
//! let noise = unet.forward(&latents, &timesteps, &text, None)?;
//! assert_eq!(noise.size(), latents.size());
//!
//! // Many passes with the same text project it once.
//! let cache = unet.project(&text)?;
//! assert_eq!(unet.forward_cached(&latents, &timesteps, &cache, None)?, noise);
//!
//! // Where do the words at positions 5 and 6 act?
//! let mut attention = AttentionMaps::new([5, 6]);
//! let _ = unet.forward(&latents, &timesteps, &text, Some(&mut attention))?;
//! let map = &attention.maps[0];
//! assert_eq!(map.name, "down_blocks.0.attentions.0.transformer_blocks.0.attn2");
//! assert_eq!(map.probabilities.size(), [2, 2, map.heads, map.height * map.width]);
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: knows no text encoder, scheduler, loss or heat map. Each layer is a function of its explicit inputs,
//! so that it can be run again ([`UNet::set_gradient_checkpointing`]). [`UNet::forward`] checks the shapes of what it is
//! given; LibTorch's own exceptions (memory, mixed devices) are left to the caller's `libtorch::catch`.

mod attention;
mod blocks;
mod config;
mod embeddings;
mod layer;
mod model;
mod observer;
mod transformer;

pub use attention::KvCache;
pub use config::{Config, PerBlock};
pub use model::UNet;
pub use observer::{AttentionMap, AttentionMaps, AttentionObserver, CrossAttentionLayer};
