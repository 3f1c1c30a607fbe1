//! A checkpoint in one file, in the layout of the original code.

use std::path::Path;

use anyhow::{Result, ensure};
use model_files::BaseModel;
use tch::Kind;

use crate::base::{Base, Replaced};
use crate::components::Components;
use crate::family::Family;

/// How a single file is written.
#[derive(Debug, Clone, Copy)]
pub struct SingleFile<'a> {
    /// The dtype of all tensors: [`Kind::Float`], [`Kind::Half`] or [`Kind::BFloat16`].
    pub kind: Kind,
    /// The title in programs that list models (`modelspec.title`).
    pub title: &'a str,
    /// Further metadata, such as `("modelspec.license", ...)`.
    pub metadata: &'a [(&'a str, &'a str)],
}

impl Default for SingleFile<'_> {
    /// f32 without loss.
    fn default() -> Self {
        Self { kind: Kind::Float, title: "Stable Diffusion, fine-tuned", metadata: &[] }
    }
}

/// Writes the model in `base`, with another `unet` where one is given, to the file `out`, which A1111's web UI and ComfyUI
/// load, and diffusers by `from_single_file(file, config=BASE)`: without the folder of the base model it takes each model of
/// this width for Stable Diffusion 2.1 at 768 pixels, which predicts something else. Its metadata follow the Stability AI model metadata standard (ModelSpec).
///
/// # Errors
/// When the model is of another family than Stable Diffusion 1.x, 2.x and XL or has tokens of its own, a component is missing,
/// the U-Net does not belong to it, `out` exists, or it cannot be written.
pub fn single_file(base: &BaseModel, out: &Path, replaced: &Replaced, format: &SingleFile) -> Result<()> {
    ensure!(
        out.extension().is_some_and(|extension| extension == "safetensors"),
        "{} must end in .safetensors, by which loaders know the format",
        out.display()
    );
    ensure!(
        matches!(format.kind, Kind::Float | Kind::Half | Kind::BFloat16),
        "a checkpoint's tensors may be f32, f16 or bf16, not {:?}",
        format.kind
    );
    atomic::ensure_new(out)?;
    let base = Base::open(base)?;
    let tokens = check_tokens(base.model)?;
    let tensors = Components::of(&base, replaced)?.without_padding(tokens).into_ldm(format.kind)?;
    let resolution = format!("{0}x{0}", base.resolution);
    let (architecture, prediction_type) = match (base.family, base.predicts_velocity) {
        (Family::V1, false) => ("stable-diffusion-v1", "epsilon"),
        (Family::V1, true) => ("stable-diffusion-v1", "v"),
        (Family::V2, false) => ("stable-diffusion-v2-512", "epsilon"),
        (Family::V2, true) => ("stable-diffusion-v2-768-v", "v"),
        (Family::Sdxl, velocity) => ("stable-diffusion-xl-v1-base", if velocity { "v" } else { "epsilon" }),
    };
    let mut metadata = vec![
        ("modelspec.sai_model_spec", "1.0.0"),
        ("modelspec.architecture", architecture),
        ("modelspec.implementation", "sgm"),
        ("modelspec.prediction_type", prediction_type),
        ("modelspec.resolution", &resolution),
        ("modelspec.title", format.title),
    ];
    metadata.extend(format.metadata);
    weights::save_with_metadata(out, tensors, &metadata)
}

/// Loaders bring the vocabulary along, and refuse a text encoder that has more. Returns how many tokens it has, if that can
/// be known.
fn check_tokens(model: &BaseModel) -> Result<Option<i64>> {
    // A folder without a tokenizer is good enough for this.
    if model.folder().is_some_and(|folder| !folder.component("tokenizer").is_dir()) {
        return Ok(None);
    }
    let tokenizer = model.tokenizer()?;
    let added: Vec<String> = tokenizer.added().into_values().collect();
    ensure!(
        added.is_empty(),
        "the model in {} has tokens of its own ({}), for which a single file has no place; give the model that it was \
             made from, with its U-Net, and the embedding in a file of its own",
        model.path().display(),
        added.join(", ")
    );
    Ok(Some(tokenizer.embedding_rows()))
}
