//! What gradient checkpointing is for. Alone in its program: on a CPU the memory of the whole process counts.
#![allow(clippy::unwrap_used)]

use golden::Formula;
use libtorch::{DeviceChoice, random};
use tch::{Kind, Tensor};
use unet::{AttentionMaps, Config, PerBlock, UNet};

/// Stable Diffusion 2.1 at a quarter of its widths, with latents of 32x32 and a batch of 4.
#[test]
fn checkpointing_saves_most_of_the_activations() {
    let to = (Kind::Float, libtorch::resolve(DeviceChoice::Auto).unwrap());
    let config = Config {
        block_out_channels: vec![64, 128, 256, 256],
        attention_head_dim: PerBlock::Each(vec![2, 4, 8, 8]),
        ..Config::sd21_base()
    };
    let (mut unet, parameters) = weights::build(&Formula, to, |vs| UNet::new(vs, &config)).unwrap();
    let text = random::normal(2, &[4, 77, 1024]).to_device(to.1);
    let timesteps = Tensor::from(500_i64).to_device(to.1);
    parameters.train(|name| name.contains("attn2"));
    let mut grown = |checkpointing, side| {
        let latents = random::normal(1, &[4, 4, side, side]).to_device(to.1);
        unet.set_gradient_checkpointing(checkpointing);
        libtorch::reset_peak_memory(to.1).unwrap();
        let before = libtorch::peak_memory(to.1).unwrap();
        let mut watch = AttentionMaps::new([5, 6]);
        let output = unet.forward(&latents, &timesteps, &text, Some(&mut watch)).unwrap();
        let attention = watch.maps.iter().map(|map| map.probabilities.square().sum(Kind::Float)).sum::<Tensor>();
        (output.square().sum(Kind::Float) + attention).backward();
        (libtorch::peak_memory(to.1).unwrap() - before) >> 20
    };
    // A small pass brings the gradients, and the libraries' own pages, into memory. What the second leaves behind can
    // only help the third.
    grown(true, 8);
    let (checkpointed, plain) = (grown(true, 32), grown(false, 32));
    // Measured: 69 and 309 MiB of tensors; 130 and 300 with what malloc keeps, which varies.
    assert!(checkpointed * 3 < plain * 2, "{checkpointed} MiB with checkpointing, {plain} MiB without");
}
