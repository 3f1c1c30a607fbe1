//! The text encoder of Stable Diffusion 2.x in OpenCLIP's naming, in which the projections to queries, keys and values
//! are one, and with the parts that Stable Diffusion does not use.

use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};
use weights::Tensors;

use crate::components::renamed;
use crate::names::{Names, count_after, number_after};

const LAYERS: &str = "text_model.encoder.layers.";
const BLOCKS: &str = "transformer.resblocks.";
/// The parts of `in_proj_*` from the top.
const PARTS: [&str; 3] = ["q_proj", "k_proj", "v_proj"];
/// Where CLIP's training clips the temperature of its loss: ln 100.
const LOGIT_SCALE: f32 = 4.605_170_2;

/// OpenCLIP's parameters, with stand-ins for those that diffusers does not keep: the last layer is a copy of the one
/// before it.
pub(crate) fn from_diffusers(mut tensors: Tensors) -> Result<Tensors> {
    let layers = count_after(tensors.keys(), LAYERS);
    let mut fused = Tensors::new();
    for (name, parts) in projections(layers) {
        let parts = parts.iter().map(|part| tensors.remove(part).with_context(|| missing(part)));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        fused.insert(name, libtorch::catch(|| Tensor::cat(&parts, 0))?);
    }
    let mut tensors = renamed(tensors, "the text encoder", |_| table(layers), Names::to_ldm)?;
    tensors.append(&mut fused);

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

/// diffusers' parameters: of all layers but the last.
pub(crate) fn to_diffusers(mut tensors: Tensors) -> Result<Tensors> {
    const UNUSED: [&str; 4] = ["text_projection", "text_projection.weight", "logit_scale", "attn_mask"];
    let mut layers = count_after(tensors.keys(), BLOCKS);
    // A file without what is last in OpenCLIP was made from diffusers' parameters, and has lost the last layer too.
    if tensors.keys().any(|name| name.starts_with("text_projection")) {
        layers = layers.saturating_sub(1);
    }
    tensors.retain(|name, _| number_after(name, BLOCKS) != Some(layers) && !UNUSED.contains(&name.as_str()));
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
    format!("the text encoder has no {name}, so it is not that of Stable Diffusion 2.x")
}

/// OpenCLIP's name of each fused parameter, with diffusers' names of its parts.
fn projections(layers: usize) -> impl Iterator<Item = (String, [String; 3])> {
    let kinds = (0..layers).flat_map(|layer| ["weight", "bias"].map(|kind| (layer, kind)));
    kinds.map(|(layer, kind)| {
        let parts = PARTS.map(|part| format!("{LAYERS}{layer}.self_attn.{part}.{kind}"));
        (format!("{BLOCKS}{layer}.attn.in_proj_{kind}"), parts)
    })
}

/// The names of everything else.
fn table(layers: usize) -> Names {
    const LAYER: [(&str, &str); 5] = [
        ("layer_norm1", "ln_1"),
        ("layer_norm2", "ln_2"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
        ("self_attn.out_proj", "attn.out_proj"),
    ];
    let mut names = Names::default();
    names.add("text_model.embeddings.token_embedding", "token_embedding");
    names.add("text_model.embeddings.position_embedding.weight", "positional_embedding");
    names.add("text_model.final_layer_norm", "ln_final");
    for layer in 0..layers {
        names.add_all(&format!("{LAYERS}{layer}"), &format!("{BLOCKS}{layer}"), &LAYER);
    }
    names
}
