//! Writing safetensors.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use libtorch::HostBytes;
use safetensors::{Dtype, tensor::TensorInfo};
use serde_json::{Map, Value};
use tch::Tensor;

use crate::dtype::dtype_of;

/// Writes named tensors to a safetensors file with the metadata `{"format": "pt"}` that transformers asks for.
///
/// The tensors may be on any device and need not be contiguous.
///
/// # Errors
/// When a tensor's dtype has no place in the format, or the file cannot be written; the old file, if any, stays.
pub fn save<N: AsRef<str>, T: Borrow<Tensor>>(path: &Path, tensors: impl IntoIterator<Item = (N, T)>) -> Result<()> {
    save_with_metadata(path, tensors, &[])
}

/// The same with further metadata.
///
/// The same tensors and metadata always make the same bytes, in whatever order they are given. (The safetensors crate
/// writes metadata in an order that changes from run to run, so the header is made here.)
///
/// # Errors
/// As [`save`].
pub fn save_with_metadata<N: AsRef<str>, T: Borrow<Tensor>>(
    path: &Path,
    tensors: impl IntoIterator<Item = (N, T)>,
    metadata: &[(&str, &str)],
) -> Result<()> {
    let entries = tensors.into_iter().map(|(name, tensor)| Ok((dtype(name.as_ref(), tensor.borrow())?, name, tensor)));
    let mut entries = entries.collect::<Result<Vec<_>>>()?;
    // The wider types first, so that every element is aligned.
    entries.sort_by(|(a, a_name, _), (b, b_name, _)| b.cmp(a).then_with(|| a_name.as_ref().cmp(b_name.as_ref())));
    let header =
        header(entries.iter().map(|(dtype, name, tensor)| (*dtype, name.as_ref(), tensor.borrow())), metadata)?;
    atomic::replace_file(path, |file, _| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for (_, _, tensor) in &entries {
            file.write_all(&HostBytes::of(tensor.borrow())?)?;
        }
        Ok(())
    })
}

fn dtype(name: &str, tensor: &Tensor) -> Result<Dtype> {
    dtype_of(tensor.kind())
        .ok_or_else(|| anyhow!("tensor {name:?} of type {:?} has no place in a safetensors file", tensor.kind()))
}

/// The file's JSON header, padded to whole words, of tensors that follow in this order.
fn header<'a>(
    tensors: impl Iterator<Item = (Dtype, &'a str, &'a Tensor)>,
    metadata: &[(&str, &str)],
) -> Result<Vec<u8>> {
    let metadata: BTreeMap<_, _> = [("format", "pt")].iter().chain(metadata).copied().collect();
    let mut header = Map::from_iter([("__metadata__".to_owned(), serde_json::to_value(metadata)?)]);
    let mut end = 0;
    for (dtype, name, tensor) in tensors {
        let shape = tensor.size().into_iter().map(usize::try_from).collect::<Result<Vec<_>, _>>()?;
        let start = end;
        end += tensor.numel() * tensor.kind().elt_size_in_bytes();
        let info = TensorInfo { dtype, shape, data_offsets: (start, end) };
        let before: Option<Value> = header.insert(name.to_owned(), serde_json::to_value(info)?);
        ensure!(before.is_none(), "two tensors are called {name:?}, but a safetensors file holds one of each name");
    }
    let mut bytes = serde_json::to_vec(&header)?;
    bytes.resize(bytes.len().next_multiple_of(size_of::<u64>()), b' ');
    Ok(bytes)
}
