//! Encodes an image, decodes it again, and says how much was lost.
//!
//! ```console
//! $ cargo run -p attndreambooth-vae --example reconstruct                                    # the tiny model in fixtures
//! $ cargo run -p attndreambooth-vae --example reconstruct -- MODEL/vae PHOTO.jpg OUT.png     # a real one
//! ```

#![allow(clippy::print_stdout, reason = "it reports what it did")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use libtorch::DeviceChoice;
use tch::vision::image;
use tch::{Device, Kind, Tensor};
use vae::{AutoencoderKl, Tiling};

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let tiny = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-sd21/vae");
    let folder = arguments.first().cloned().unwrap_or_else(tiny);
    let device = libtorch::resolve(DeviceChoice::Auto)?;

    let (vae, parameters) = AutoencoderKl::from_folder(&folder, (Kind::Float, device))?;
    println!("{}: {} parameters", folder.display(), parameters.count());

    let images = match arguments.get(1) {
        Some(path) => load(path, vae.config().downscale_factor())?,
        None => gradient(),
    };
    let images = images.to_device(device);
    // What follows needs no gradients, and memory for a tile only.
    let _guard = tch::no_grad_guard();
    let posterior = vae.encode_tiled(&images, &Tiling::BOUNDED)?;
    let decoded = vae.decode_tiled(&posterior.mode(), &Tiling::BOUNDED)?.clamp(-1.0, 1.0);
    let scaled = vae.scale_latents(&posterior.mode());
    println!("latents {:?}, standard deviation {:.3} after scaling", scaled.size(), f64::try_from(scaled.std(true))?);
    let error = f64::try_from((&decoded - &images).square().mean(Kind::Double))?.sqrt() / 2.0;
    println!("images {:?}, root mean square error {:.1}/255", decoded.size(), error * 255.0);

    if let Some(path) = arguments.get(2) {
        let pixels = ((decoded.squeeze_dim(0) + 1.0) * 127.5).round().to_kind(Kind::Uint8).to_device(Device::Cpu);
        image::save(&pixels, path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// An image file as [1, 3, H, W] in [-1, 1], cropped to sizes that the VAE takes.
fn load(path: &Path, factor: i64) -> Result<Tensor> {
    let pixels = image::load(path).with_context(|| format!("cannot read the image {}", path.display()))?;
    let (height, width) = (pixels.size()[1] / factor * factor, pixels.size()[2] / factor * factor);
    let cropped = pixels.narrow(1, 0, height).narrow(2, 0, width);
    Ok((cropped.to_kind(Kind::Float) / 127.5 - 1.0).unsqueeze(0))
}

/// Red from left to right, green from top to bottom.
fn gradient() -> Tensor {
    let ramp = Tensor::linspace(-1.0, 1.0, 64, (Kind::Float, Device::Cpu));
    let (red, green) = (ramp.view([1, 64]).expand([64, 64], false), ramp.view([64, 1]).expand([64, 64], false));
    Tensor::stack(&[&red, &green, &red.zeros_like()], 0).unsqueeze(0)
}
