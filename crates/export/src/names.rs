//! Parameters under the names of the other layout.

use anyhow::{Result, bail};
use model_files::names::Names;
use weights::Tensors;

/// Gives every parameter its name in the other layout.
pub(crate) fn renamed(
    tensors: Tensors,
    network: &str,
    table: impl Fn(&[&str]) -> Names,
    rename: impl Fn(&Names, &str) -> Option<String>,
) -> Result<Tensors> {
    let names = table(&tensors.keys().map(String::as_str).collect::<Vec<_>>());
    let renamed = tensors.into_iter().map(|(name, tensor)| match rename(&names, &name) {
        Some(renamed) => Ok((renamed, tensor)),
        None => bail!("{network} has a tensor {name}, which is in no Stable Diffusion 1.x, 2.x or XL"),
    });
    renamed.collect()
}
