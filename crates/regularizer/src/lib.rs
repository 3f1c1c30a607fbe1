//! The cross-attention regulariser of AttnDreamBooth (arXiv 2406.05000): a new word \[V\] shall attend
//! to the image about as strongly, and as unevenly, as the word for its category that follows it.
//!
//! Of a layer's attention to one token, P (heads × pixels, for one sample), let m be the mean and s the unbiased
//! variance of all its values. As in the authors' code ([`Mode::PerLayer`]), with layers l = 1..L (16 in Stable
//! Diffusion), samples b, placeholder rows r = 1..R (usually one) and the category c:
//!
//! ```text
//! loss = 1/L Σ_l Σ_b 1/R Σ_r [ λ_mean (m_lbr - m_lbc)² + λ_variance (s_lbr - s_lbc)² ]
//! ```
//!
//! Both words get gradients. [`Config`] holds what may be chosen otherwise.
//!
//! [`AttentionRegularizer`] watches a U-Net's forward pass, reduces each layer to m and s at once and keeps no map:
//!
//! ```
//! use regularizer::{AttentionRegularizer, Config};
//! use tch::{Device, Kind, Tensor};
//! # use unet::UNet;
//! # let config: unet::Config = serde_json::from_str(
//! #     r#"{"block_out_channels": [8, 16], "cross_attention_dim": 32, "attention_head_dim": 2, "norm_num_groups": 4,
//! #         "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
//! #         "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}"#,
//! # )?;
//! # let to = (Kind::Float, Device::Cpu);
//! # let (unet, _) = weights::build(&weights::Random { seed: 0 }, to, |vs| UNet::new(vs, &config))?;
//! # let (latents, timesteps) = (Tensor::randn([2, 4, 16, 16], to), Tensor::from_slice(&[981_i64, 20]));
//! # let text = Tensor::randn([2, 77, 32], to).set_requires_grad(true);
//! // "a photo of a [V] dog": after the start of text [V] is at position 5, its category at 6.
//! let mut regularizer = AttentionRegularizer::new(&Config::default(), &[5], &[6])?;
//! let noise = unet.forward(&latents, &timesteps, &text, Some(&mut regularizer))?;
//! let attention = regularizer.finish()?;
//! (noise.square().mean(Kind::Float) + &attention.loss).backward();
//! for layer in attention.summary()? {
//!     println!("{}: {:.4} and {:.4}", layer.name, layer.placeholder.mean, layer.category.mean);
//! }
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: computes in f32 at least, whatever the dtype of the maps; waits for the GPU only where a summary is
//! read. Knows nothing of prompts, tokenizers or training.

mod config;
mod observer;
mod statistics;

pub use config::{Batch, Category, Config, Mode};
pub use observer::{AttentionRegularizer, Regularization};
pub use statistics::{LayerStatistics, LayerSummary, Moments};
