//! What a run has learned in a file of its own: all that `generate` needs beside the base model and a reference photo.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use model_files::names::{self, Names};
use tch::{Device, Kind, Tensor};
use unet::UNet;
use weights::{Archive, LoadError, OpenError, Tensors};

use crate::blocks::{ImageAttention, MODULE, places};

/// What the blocks' names begin with in the authors' `cross_attention-N.pt`, before those of LDM.
const BLOCKS: &str = "diffusion_model.";
/// What the token's name begins with, as in the authors' `embeddings_gs-N.pt`.
const TOKEN: &str = "string_to_param.";
/// A parameter whose shape is the width of the features.
const WIDTH: &str = "image_cross_attention.norm1.weight";

/// Whether a file's tensors are ViCo's.
pub fn is_vico(archive: &Archive) -> bool {
    archive.shapes().any(|(name, _)| name.starts_with(BLOCKS) && name.contains(MODULE))
}

/// Writes blocks under the authors' names, `diffusion_model.output_blocks.4.1.image_cross_attention...`, and the embedding [1, width]
/// of a token as `string_to_param.TOKEN`.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, unet: &UNet, blocks: &ImageAttention, (token, rows): (&str, &Tensor)) -> Result<()> {
    let names = table(unet);
    let official = |(name, tensor): &(String, Tensor)| {
        let name = names.to_ldm(name).with_context(|| format!("{name} has no name in the authors' code"))?;
        Ok((format!("{BLOCKS}{name}"), tensor.shallow_clone()))
    };
    let mut tensors = blocks.parameters().iter().map(official).collect::<Result<Vec<_>>>()?;
    tensors.push((format!("{TOKEN}{token}"), rows.shallow_clone()));
    weights::save(path, tensors)
}

/// Reads such a file for a U-Net and embeddings of a width: the blocks, on a device, and the token with its embedding [1, width], f32.
///
/// # Errors
/// When the file cannot be read, holds something else, or belongs to another family of models; names both sides.
pub fn read(path: &Path, unet: &UNet, width: i64, device: Device) -> Result<(ImageAttention, String, Tensor)> {
    let shown = path.display();
    let archive = match Archive::open(path) {
        Err(OpenError::Pickle { .. }) => bail!(
            "{shown} is a pickle file, which may run code when it is read and is therefore refused; convert it with the script in \
             docs/methods/vico.md"
        ),
        opened => opened?,
    };
    ensure!(is_vico(&archive), "{shown} holds no blocks of ViCo; give a file of `export --format vico`");
    let names = table(unet);
    let mut blocks = Tensors::new();
    let mut tokens = Vec::new();
    for (name, tensor) in archive.tensors()? {
        match (name.strip_prefix(BLOCKS), name.strip_prefix(TOKEN)) {
            (Some(ldm), _) => {
                let known = names.to_diffusers(ldm).filter(|name| name.contains(MODULE));
                let name =
                    known.with_context(|| format!("{shown} has the tensor {name}, which is no block's of ViCo"))?;
                blocks.insert(name, tensor);
            }
            (None, Some(token)) => tokens.push((token.to_owned(), tensor.to_kind(Kind::Float))),
            (None, None) => bail!("{shown} has the tensor {name}, which is no block's of ViCo"),
        }
    }
    let [(token, rows)] = <[_; 1]>::try_from(tokens).map_err(|found| {
        anyhow::anyhow!("{shown} has the embeddings of {} tokens ({TOKEN}...), but ViCo's file has one", found.len())
    })?;
    let found = rows.size();
    ensure!(
        found == [1, width],
        "{shown} has an embedding of shape {found:?}, but this model's have the width {width}: use the base model that it was learned \
         on, or one of the same family (768 is Stable Diffusion 1.x, 1024 is 2.x)"
    );
    for place in places(unet)? {
        let found = blocks.get(&format!("{}.{WIDTH}", place.name)).map(Tensor::size);
        ensure!(
            found.as_deref().is_none_or(|found| found == [place.channels]),
            "{shown} is of a model whose features at {} have the width {}, but this model's have {}: use the base model that it was \
             learned on, or one of the same family",
            place.name,
            found.iter().flatten().next().copied().unwrap_or(0),
            place.channels
        );
    }
    let blocks =
        ImageAttention::of(unet, &blocks, device).map_err(|error| match error.downcast_ref::<LoadError>() {
            Some(LoadError { problems, .. }) => {
                let first = problems.first().map(|(name, problem)| format!("{name}: {problem}")).unwrap_or_default();
                anyhow::anyhow!(
                    "{shown} has {} tensors that do not fit this model's blocks ({first}); export it again",
                    problems.len()
                )
            }
            None => error.context(format!("the blocks in {shown}")),
        })?;
    ensure!(
        f64::try_from(rows.sum(Kind::Double))?.is_finite(),
        "{shown} has an embedding of numbers that are not finite"
    );
    ensure!(!token.trim().is_empty(), "{shown} has an embedding without the token's name: {TOKEN}TOKEN");
    Ok((blocks, token, rows))
}

/// The names in diffusers and in the authors' code.
fn table(unet: &UNet) -> Names {
    let config = unet.config();
    let layers = config.layers_per_block.at(0) as usize;
    names::unet::table(layers, config.block_out_channels.iter().map(|_| true))
}
