//! Heat maps of where each word of a prompt acts in a image, as DAAM makes them (arXiv 2210.04885).
//!
//! For each token of the prompt, the probabilities with which pixels attend to it are summed over all passes of the
//! U-Net, layer by layer and head by head. At the end each of these maps is brought to the size of the latents
//! (bicubic), freed of negative values, and all of them are averaged: a head counts as much as any other.
//!
//! [`HeatMapRecorder`] watches the U-Net and keeps only the sums; [`HeatMaps`] is their mean; [`overlay`] lays
//! a map over the image:
//!
//! ```
//! use heatmaps::{Config, HeatMapRecorder, Scale, overlay};
//! use images::RgbImage;
//! use tch::{Device, Kind, Tensor};
//! # use unet::UNet;
//! # let config: unet::Config = serde_json::from_str(
//! #     r#"{"block_out_channels": [8, 16], "cross_attention_dim": 32, "attention_head_dim": 2, "norm_num_groups": 4,
//! #         "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
//! #         "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}"#,
//! # )?;
//! # let to = (Kind::Float, Device::Cpu);
//! # let (unet, _) = weights::build(&weights::Random { seed: 0 }, to, |vs| UNet::new(vs, &config))?;
//! # let (latents, text) = (Tensor::randn([2, 4, 16, 16], to), Tensor::randn([2, 77, 32], to));
//! // "a photo of a cat" is 7 positions with the start and the end of the text; "cat" is at position 5.
//! let mut recorder = HeatMapRecorder::new(Config::default(), 7, (16, 16), 1)?;
//! for timestep in [981_i64, 481] {
//!     // A guided batch: the prompt of the one image comes second.
//!     let _noise = unet.forward(&latents, &Tensor::from(timestep), &text, Some(&mut recorder))?;
//! }
//! let maps = recorder.finish()?;
//! assert_eq!(maps.maps.size(), [1, 7, 16, 16]);
//! let cat = maps.word(5..6)?.get(0);
//! let image = overlay(&RgbImage::new(128, 128), &cat, Scale::MinMax)?;
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: memory does not grow with the number of passes; sums are f32 at least, whatever the dtype of the maps.
//! Knows nothing of prompts, tokenizers or sampling.

mod config;
mod display;
mod jet;
mod maps;
mod recorder;

pub use config::Config;
pub use display::{Scale, display, overlay};
pub use jet::jet;
pub use maps::HeatMaps;
pub use recorder::HeatMapRecorder;
