//! Which layers the regulariser is made of: for each resolution of a U-Net, how many cross-attention layers it has, and their
//! share of the loss and of its gradient. `cargo run -p attndreambooth-regularizer --example layers -- UNET_FOLDER [LATENT_SIDE]`
//!
//! The latents and the text are noise, in which position 5 stands for `[V]` and 6 for its class noun.

#![allow(clippy::print_stdout, reason = "it reports what it measured")]

use std::collections::BTreeMap;
use std::path::Path;

use regularizer::{AttentionRegularizer, Config};
use tch::{Device, Kind, Tensor};
use unet::{AddedConditions, AttentionMaps, AttentionObserver, CrossAttentionLayer, UNet};

const BATCH: i64 = 4;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().unwrap_or_else(|| "fixtures/tiny-sd21/unet".to_owned());
    let side: i64 = args.next().map_or(Ok(16), |side| side.parse())?;
    let (unet, _) = UNet::from_folder(Path::new(&folder), (Kind::Float, Device::Cpu))?;
    let config = unet.config();
    let normal = libtorch::random::normal;
    let text = normal(1, &[1, 77, config.cross_attention_dim]).set_requires_grad(true);
    let sample = normal(2, &[BATCH, config.in_channels, side, side]);
    let text_embeds = config.pooled_text_dim().map(|width| normal(3, &[1, width]));
    let keys = match text_embeds {
        Some(text_embeds) => {
            let pixels = 8.0 * side as f32;
            let time_ids = Tensor::from_slice2(&[[pixels, pixels, 0.0, 0.0, pixels, pixels]]);
            unet.project_with(&text, &AddedConditions { text_embeds, time_ids })?
        }
        None => unet.project(&text)?,
    };
    let mut maps = AttentionMaps::new([5, 6]);
    let _ = unet.forward_cached(&sample, &Tensor::from_slice(&[100i64, 350, 600, 850]), &keys, Some(&mut maps))?;

    // Layers by their resolution; `None` for all.
    let of = |pixels: Option<i64>| {
        let mut regularizer = AttentionRegularizer::new(&Config::default(), &[5], &[6])?;
        let layers = maps.maps.iter().filter(|map| pixels.is_none_or(|pixels| map.height * map.width == pixels));
        let mut count = 0;
        for map in layers {
            let &unet::AttentionMap { index, heads, height, width, .. } = map;
            let layer = CrossAttentionLayer { name: &map.name, index, heads, height, width };
            regularizer.observe(&layer, &map.probabilities);
            count += 1;
        }
        let loss = regularizer.finish()?.loss;
        let grad = Tensor::run_backward(&[&loss], &[&text], true, false).remove(0);
        let grad = grad.get(0).get(5).norm().double_value(&[]);
        anyhow::Ok((count, loss.double_value(&[]), grad))
    };
    let (all, loss, grad) = of(None)?;
    println!("{folder}: {all} layers, loss {loss:.3e}, gradient of [V] {grad:.3e}");
    let sizes: BTreeMap<i64, [i64; 2]> =
        maps.maps.iter().map(|map| (map.height * map.width, [map.height, map.width])).collect();
    for (pixels, [height, width]) in sizes {
        let (count, part, part_grad) = of(Some(pixels))?;
        // Each subset is a mean over its own layers.
        let weight = f64::from(count) / f64::from(all);
        println!(
            "{height}x{width}: {count} layers ({:.0} %), {:.0} % of the loss, a gradient of {:.2} of the whole one's norm",
            weight * 100.0,
            part * weight / loss * 100.0,
            part_grad * weight / grad
        );
    }
    Ok(())
}
