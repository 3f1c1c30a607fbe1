//! What Custom Diffusion learns of a U-Net, in diffusers' file.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use tch::Tensor;
use weights::{Archive, Tensors};

/// `MODULE.to_k.weight` as `MODULE.processor.to_k_custom_diffusion.weight`; likewise of values.
fn key(name: &str) -> Option<String> {
    ["to_k", "to_v"].into_iter().find_map(|part| {
        let module = name.strip_suffix(&format!(".{part}.weight"))?;
        module.ends_with(".attn2").then(|| format!("{module}.processor.{part}_custom_diffusion.weight"))
    })
}

/// Writes the keys' and values' weights of the text, given by the U-Net's names, as diffusers' `save_attn_procs` does
/// for `CustomDiffusionAttnProcessor`.
///
/// # Errors
/// When another parameter is among them, or the file cannot be written.
pub fn save_custom_diffusion<'a>(path: &Path, weights: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<()> {
    let mut named = Vec::new();
    for (name, tensor) in weights {
        match key(name) {
            Some(key) => named.push((key, tensor)),
            None => {
                bail!("{name} is no weight of the text's keys or values; a file of Custom Diffusion holds nothing else")
            }
        }
    }
    weights::save(path, named)
}

/// Whether a file's tensors are named as [`save_custom_diffusion`] names them.
pub fn is_custom_diffusion(archive: &Archive) -> bool {
    archive.shapes().any(|(name, _)| {
        ["to_k", "to_v"].iter().any(|part| name.ends_with(&format!(".processor.{part}_custom_diffusion.weight")))
    })
}

/// Reads such a file for a U-Net whose keys' and values' weights have the names and shapes `expected`: the weights by
/// these names. A file with the names themselves, as the authors' `delta.bin` has them, is understood too.
///
/// # Errors
/// When the file cannot be read, lacks a weight, has one that the U-Net lacks, or one of another shape.
pub fn load_custom_diffusion<'a>(
    path: &Path,
    expected: impl IntoIterator<Item = (&'a str, Vec<i64>)>,
) -> Result<Tensors> {
    let archive = Archive::open(path)?;
    let shown = path.display();
    let mut tensors = archive.tensors()?;
    let mut found = Tensors::new();
    for (name, shape) in expected {
        let tensor = key(name).and_then(|key| tensors.remove(&key)).or_else(|| tensors.remove(name));
        let Some(tensor) = tensor else {
            bail!("{shown} has no weights for {name}; give the file of a Custom Diffusion of this model's family")
        };
        ensure!(
            tensor.size() == shape,
            "{shown} has weights of shape {:?} for {name}, but this model's have {shape:?}; give the file of a Custom \
             Diffusion of this model's family",
            tensor.size()
        );
        found.insert(name.to_owned(), tensor);
    }
    if let Some(name) = tensors.keys().next() {
        bail!("{shown} has {name}, which is no weight of this model's text keys or values; give another file");
    }
    Ok(found)
}
