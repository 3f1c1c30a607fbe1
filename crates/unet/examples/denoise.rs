//! Predicts the noise in random latents and shows where the text is attended to.
//!
//! `cargo run -p attndreambooth-unet --example denoise -- path/to/stable-diffusion-2-1-base/unet` (default: a tiny model)
#![allow(clippy::print_stdout, reason = "it is what an example is for")]

use std::path::PathBuf;

use anyhow::Result;
use libtorch::{DeviceChoice, random};
use tch::{Kind, Tensor};
use unet::{AttentionMaps, UNet};

fn main() -> Result<()> {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-sd21/unet");
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(tiny), PathBuf::from);
    let device = libtorch::resolve(DeviceChoice::Auto)?;
    let (unet, parameters) = UNet::from_folder(&folder, (Kind::Float, device))?;
    println!("{}: {} parameters on {device:?}", folder.display(), parameters.count());

    let config = unet.config();
    let side = config.sample_size.unwrap_or(64);
    let latents = random::normal(0, &[1, config.in_channels, side, side]).to_device(device);
    let text = random::normal(1, &[1, 77, config.cross_attention_dim]).to_device(device);
    let mut attention = AttentionMaps::new([5, 6]);
    let predict = || unet.forward(&latents, &Tensor::from(500_i64), &text, Some(&mut attention));
    let noise = libtorch::catch(|| tch::no_grad(predict))??;
    println!("predicted noise {:?} with standard deviation {:.4}", noise.size(), noise.std(true).double_value(&[]));
    for map in &attention.maps {
        let means = map.probabilities.mean_dim([0i64, 2, 3].as_slice(), false, Kind::Float);
        let (first, second) = (means.double_value(&[0]), means.double_value(&[1]));
        println!("{first:.4} {second:.4}  {:2} heads {:3}x{:<3} {}", map.heads, map.height, map.width, map.name);
    }
    Ok(())
}
