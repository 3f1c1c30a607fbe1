//! The text encoders of Stable Diffusion 2.x and of SDXL (the second one) in OpenCLIP's naming, in which the projections to queries,
//! keys and values are one, and with the parts that Stable Diffusion does not use.

use anyhow::{Context, Result, ensure};
use model_files::names::open_clip::{BLOCKS, LAYERS, projections, table};
use model_files::names::{Names, count_after, number_after};
use tch::{Device, Kind, Tensor};
use weights::Tensors;

use crate::names::renamed;

/// diffusers' name of the projection.
pub(crate) const PROJECTION: &str = "text_projection.weight";

/// Where CLIP's training clips the temperature of its loss: ln 100.
const LOGIT_SCALE: f32 = 4.605_170_2;

/// OpenCLIP's parameters, with stand-ins for those that diffusers does not keep: the last layer is a copy of the one
/// before it.
pub(crate) fn from_diffusers(tensors: Tensors) -> Result<Tensors> {
    let layers = count_after(tensors.keys(), LAYERS);
    let mut tensors = layers_from_diffusers(tensors)?;
    let last = format!("{BLOCKS}{}.", layers.saturating_sub(1));
    let copied = tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(&last)?, tensor)));
    let copied = copied.map(|(name, tensor)| (format!("{BLOCKS}{layers}.{name}"), tensor.shallow_clone()));
    let copied: Tensors = copied.collect();
    tensors.extend(copied);
    let width = tensors.get("ln_final.weight").with_context(|| missing("final_layer_norm"))?.numel() as i64;
    tensors.insert("text_projection".to_owned(), Tensor::eye(width, (Kind::Float, Device::Cpu)));
    tensors.insert("logit_scale".to_owned(), Tensor::from(LOGIT_SCALE));
    Ok(tensors)
}

/// OpenCLIP's parameters of an encoder with all its layers and its projection, which OpenCLIP has transposed.
pub(crate) fn from_diffusers_whole(mut tensors: Tensors) -> Result<Tensors> {
    let projection = tensors.remove(PROJECTION).with_context(|| missing(PROJECTION))?;
    let mut tensors = layers_from_diffusers(tensors)?;
    tensors.insert("text_projection".to_owned(), projection.tr().contiguous());
    tensors.insert("logit_scale".to_owned(), Tensor::from(LOGIT_SCALE));
    Ok(tensors)
}

/// The layers, the embeddings and the last norm.
fn layers_from_diffusers(mut tensors: Tensors) -> Result<Tensors> {
    let layers = count_after(tensors.keys(), LAYERS);
    let mut fused = Tensors::new();
    for (name, parts) in projections(layers) {
        let parts = parts.iter().map(|part| tensors.remove(part).with_context(|| missing(part)));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        fused.insert(name, libtorch::catch(|| Tensor::cat(&parts, 0))?);
    }
    let mut tensors = renamed(tensors, "the text encoder", |_| table(layers), Names::to_ldm)?;
    tensors.append(&mut fused);
    Ok(tensors)
}

/// diffusers' parameters: of all layers but the last.
pub(crate) fn to_diffusers(mut tensors: Tensors) -> Result<Tensors> {
    const UNUSED: [&str; 4] = ["text_projection", "text_projection.weight", "logit_scale", "attn_mask"];
    let mut layers = count_after(tensors.keys(), BLOCKS);
    // A file without what is last in OpenCLIP was made from diffusers' parameters, and has lost the last layer too.
    if tensors.keys().any(|name| name.starts_with("text_projection")) {
        layers = layers.saturating_sub(1);
    }
    tensors.retain(|name, _| number_after(name, BLOCKS) != Some(layers) && !UNUSED.contains(&name.as_str()));
    layers_to_diffusers(tensors, layers)
}

/// The way back of [`from_diffusers_whole`].
pub(crate) fn to_diffusers_whole(mut tensors: Tensors) -> Result<Tensors> {
    tensors.retain(|name, _| !["logit_scale", "attn_mask"].contains(&name.as_str()));
    // Some programs write it as diffusers has it.
    let projection = match tensors.remove("text_projection") {
        Some(transposed) => transposed.tr().contiguous(),
        None => tensors.remove(PROJECTION).with_context(|| missing("text_projection"))?,
    };
    let layers = count_after(tensors.keys(), BLOCKS);
    let mut tensors = layers_to_diffusers(tensors, layers)?;
    tensors.insert(PROJECTION.to_owned(), projection);
    Ok(tensors)
}

fn layers_to_diffusers(mut tensors: Tensors, layers: usize) -> Result<Tensors> {
    let mut split = Tensors::new();
    for (name, parts) in projections(layers) {
        let fused = tensors.remove(&name).with_context(|| missing(&name))?;
        let rows = fused.size().first().copied().unwrap_or(0);
        ensure!(
            rows > 0 && rows % 3 == 0,
            "the text encoder's {name} has {rows} rows, which are not three equal parts"
        );
        split.extend(parts.into_iter().zip(fused.chunk(3, 0).iter().map(Tensor::contiguous)));
    }
    let mut tensors = renamed(tensors, "the text encoder", |_| table(layers), Names::to_diffusers)?;
    tensors.append(&mut split);
    Ok(tensors)
}

fn missing(name: &str) -> String {
    format!("the text encoder has no {name}, so it is not that of Stable Diffusion 2.x or SDXL")
}
