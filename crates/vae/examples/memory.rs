//! How much memory decoding takes, whole or in tiles, with Stable Diffusion's geometry and random weights.
//!
//! ```console
//! $ cargo run -p attndreambooth-vae --example memory -- 768        # whole
//! $ cargo run -p attndreambooth-vae --example memory -- 768 512    # in tiles of 512 pixels
//! ```

#![allow(clippy::print_stdout, reason = "it reports what it measured")]

use std::time::Instant;

use anyhow::{Context, Result};
use libtorch::{DeviceChoice, peak_memory, random, reset_peak_memory, synchronize};
use tch::Kind;
use vae::{AutoencoderKl, Config, Tiling};
use weights::Random;

fn main() -> Result<()> {
    let numbers = std::env::args().skip(1).map(|text| text.parse().with_context(|| format!("{text:?} is no number")));
    let numbers = numbers.collect::<Result<Vec<i64>>>()?;
    let size = numbers.first().copied().unwrap_or(768);
    let tiling = Tiling { slice_batch: true, tile_size: numbers.get(1).copied() };
    let device = libtorch::resolve(DeviceChoice::Auto)?;

    let new = |vs: &weights::Scope| AutoencoderKl::new(vs, &Config::sd21());
    let (vae, _) = weights::build(&Random { seed: 0 }, (Kind::Float, device), new)?;
    let latents = random::normal(1, &[1, 4, size / 8, size / 8]).to_device(device);
    reset_peak_memory(device)?;
    let before = peak_memory(device)?;
    let start = Instant::now();
    let images = tch::no_grad(|| libtorch::catch(|| vae.decode_tiled(&latents, &tiling)))??;
    synchronize(device);
    let seconds = start.elapsed().as_secs_f64();
    let mebibytes = (peak_memory(device)? - before) >> 20;
    println!("{:?} took {seconds:.1} s and at most {mebibytes} MiB beside the weights", images.size());
    Ok(())
}
