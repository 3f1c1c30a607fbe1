//! Tiles bound the memory. Alone in its process, whose peak it measures.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use common::{numbers, tiny};
use tch::Device;
use vae::Tiling;

#[test]
fn memory_does_not_grow_with_the_image() {
    let (vae, _) = tiny("tiny-sd21");
    // MiB that decoding an image of `size` pixels squared takes at most.
    let growth = |size: i64, tiling: Tiling| {
        let latents = numbers("many latents", &[1, 4, size / 8, size / 8]);
        libtorch::reset_peak_memory(Device::Cpu).unwrap();
        let before = libtorch::peak_memory(Device::Cpu).unwrap();
        drop(tch::no_grad(|| vae.decode_tiled(&latents, &tiling).unwrap()));
        let mebibytes = (libtorch::peak_memory(Device::Cpu).unwrap() - before) >> 20;
        println!("{size} pixels, {tiling:?}: {mebibytes} MiB");
        mebibytes
    };
    let tiles = Tiling { slice_batch: true, tile_size: Some(256) };
    // What LibTorch sets up once does not count.
    growth(256, Tiling::NONE);
    let (tiled, large) = (growth(1024, tiles), growth(1536, tiles));
    let whole = growth(1024, Tiling::NONE);
    assert!(4 * tiled < whole, "1024 pixels: {tiled} MiB in tiles, {whole} MiB whole");
    assert!(large < whole, "1536 pixels: {large} MiB in tiles, but 1024 whole take {whole} MiB");
}
