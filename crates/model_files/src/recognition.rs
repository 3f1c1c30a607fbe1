//! What a file of tensors is, by their names.

use std::path::Path;

use anyhow::{Result, bail};
use weights::Archive;

use crate::names::{CLIP, OPEN_CLIP, SDXL_CLIP, SDXL_OPEN_CLIP, UNET, VAE};

/// Whose names the text encoder has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextLayout {
    /// transformers', below [`CLIP`].
    Clip,
    /// OpenCLIP's, below [`OPEN_CLIP`].
    OpenClip,
    /// SDXL's two: transformers' below [`SDXL_CLIP`] and OpenCLIP's below [`SDXL_OPEN_CLIP`].
    Sdxl,
}

/// The first convolution of the U-Net, whose input channels tell variants apart.
const CONV_IN: &str = "model.diffusion_model.input_blocks.0.0.weight";

/// Makes sure that a file holds a Stable Diffusion 1.x, 2.x or XL that makes images of prompts.
///
/// # Errors
/// Says what the file is instead, as far as its tensors tell.
pub(crate) fn text_layout(path: &Path, archive: &Archive) -> Result<TextLayout> {
    let any = |prefix: &str| archive.shapes().any(|(name, _)| name.starts_with(prefix));
    let (unet, vae) = (any(UNET), any(VAE));
    let text = if any(SDXL_OPEN_CLIP) {
        Some(TextLayout::Sdxl)
    } else if any(OPEN_CLIP) {
        Some(TextLayout::OpenClip)
    } else if any(CLIP) {
        Some(TextLayout::Clip)
    } else {
        None
    };
    let what = other_kind(archive).map(str::to_owned).or_else(|| variant(archive).map(str::to_owned)).or_else(|| {
        let lacks = [(unet, "the U-Net", UNET), (vae, "the VAE", VAE), (text.is_some(), "the text encoder", CLIP)];
        let lacks: Vec<_> = lacks.into_iter().filter(|(there, ..)| !there).collect();
        match lacks.len() {
            0 => None,
            3 => Some("no model that is known here".to_owned()),
            _ => {
                let lacks = lacks.into_iter().map(|(_, part, prefix)| format!("{part} ({prefix}*)"));
                Some(format!("a checkpoint without {}", lacks.collect::<Vec<_>>().join(" and ")))
            }
        }
    });
    match (what, text) {
        (None, Some(text)) => Ok(text),
        (what, _) => bail!(
            "{} is {}, but a model is a whole checkpoint of Stable Diffusion 1.x, 2.x or XL, or a folder in the diffusers \
             layout (unet/, vae/, text_encoder/, ...)",
            path.display(),
            what.as_deref().unwrap_or("no model that is known here")
        ),
    }
}

/// What holds no Stable Diffusion 1.x, 2.x or XL at all.
fn other_kind(archive: &Archive) -> Option<&'static str> {
    let any = |test: &dyn Fn(&str) -> bool| archive.shapes().any(|(name, _)| test(name));
    let has = |part: &'static str| any(&|name| name.contains(part));
    let starts = |prefix: &'static str| any(&|name| name.starts_with(prefix));
    let adapter = ["lora_", ".lora.", "hada_w1", "lokr_w"];
    if adapter.into_iter().any(has) {
        return Some("a LoRA or another adapter");
    }
    if starts("conditioner.embedders.0.") && !starts(SDXL_CLIP) {
        return Some("a checkpoint of SDXL's refiner, which refines images of SDXL's base model");
    }
    if has("joint_blocks.") {
        return Some("a checkpoint of Stable Diffusion 3");
    }
    if has("double_blocks.") || has("double_stream_blocks.") {
        return Some("a checkpoint of Flux");
    }
    if starts("control_model.") || starts("controlnet_") {
        return Some("a ControlNet");
    }
    if [UNET, CLIP, OPEN_CLIP, SDXL_CLIP, SDXL_OPEN_CLIP].into_iter().any(starts) {
        return None;
    }
    let whole_vae = |encoder: &'static str, decoder: &'static str| starts(encoder) && starts(decoder);
    if whole_vae("encoder.conv_in.", "decoder.conv_in.")
        || whole_vae("first_stage_model.encoder.", "first_stage_model.decoder.")
    {
        return Some("a VAE alone");
    }
    if starts("down_blocks.") && starts("up_blocks.") {
        return Some("a U-Net alone, in the diffusers layout");
    }
    if starts("text_model.") || starts("embeddings.token_embedding.") {
        return Some("a text encoder alone");
    }
    // Of the width of a text encoder of Stable Diffusion 1.x, 2.x or XL.
    let is_row =
        |shape: &[i64]| shape.len() <= 2 && shape.last().is_some_and(|width| [768, 1024, 1280].contains(width));
    if archive.shapes().count() <= 4 && archive.shapes().any(|(_, shape)| is_row(shape)) {
        return Some("the embedding of a token");
    }
    None
}

/// A relative of Stable Diffusion that takes more than a prompt.
fn variant(archive: &Archive) -> Option<&'static str> {
    let any = |prefix: &str| archive.shapes().any(|(name, _)| name.starts_with(prefix));
    if any("edm_mean") || any("edm_vpred.") {
        return Some("an EDM checkpoint of SDXL, such as Playground 2.5, whose noise schedule is another");
    }
    // SDXL's sizes and pooled text stand where others have a class: 6 · 256 and 1280 numbers.
    let label = archive.shapes().find(|(name, _)| *name == "model.diffusion_model.label_emb.0.0.weight");
    if label.is_some_and(|(_, shape)| shape.get(1) == Some(&2816)) && !any(SDXL_OPEN_CLIP) {
        return Some("a checkpoint of SDXL without its text encoders (conditioner.embedders.*)");
    }
    if any("model.diffusion_model.label_emb.") && !any(SDXL_OPEN_CLIP) {
        return Some("a checkpoint whose U-Net takes a class, such as an upscaler or unCLIP");
    }
    let (_, shape) = archive.shapes().find(|(name, _)| *name == CONV_IN)?;
    match *shape.get(1)? {
        4 => None,
        5 => Some("a depth-to-image checkpoint (5 input channels)"),
        7 => Some("an upscaler (7 input channels)"),
        8 => Some("a checkpoint that edits images, such as InstructPix2Pix (8 input channels)"),
        9 => Some("an inpainting checkpoint (9 input channels)"),
        _ => Some("a checkpoint whose U-Net takes other latents than Stable Diffusion's 4 channels"),
    }
}
