//! Writing safetensors.

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::path::Path;

use anyhow::{Result, anyhow};
use libtorch::HostBytes;
use safetensors::{Dtype, View};
use tch::Tensor;

use crate::dtype::dtype_of;

/// Writes named tensors to a safetensors file with the metadata `{"format": "pt"}` that transformers asks for.
///
/// The tensors may be on any device and need not be contiguous.
///
/// # Errors
/// When a tensor's kind has no place in the format, or the file cannot be written; the old file, if any, stays.
pub fn save<N: AsRef<str>, T: Borrow<Tensor>>(path: &Path, tensors: impl IntoIterator<Item = (N, T)>) -> Result<()> {
    save_with_metadata(path, tensors, &[])
}

/// The same with further metadata.
///
/// # Errors
/// As [`save`].
pub fn save_with_metadata<N: AsRef<str>, T: Borrow<Tensor>>(
    path: &Path,
    tensors: impl IntoIterator<Item = (N, T)>,
    metadata: &[(&str, &str)],
) -> Result<()> {
    let views = tensors
        .into_iter()
        .map(|(name, tensor)| Ok((name.as_ref().to_owned(), Writable::new(name.as_ref(), tensor.borrow())?)))
        .collect::<Result<Vec<_>>>()?;
    let pairs = [("format", "pt")].iter().chain(metadata);
    let header: HashMap<String, String> = pairs.map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
    atomic::replace_file(path, |_, hidden| Ok(safetensors::serialize_to_file(views, Some(header), hidden)?))
}

/// A tensor as the safetensors crate wants to see it.
struct Writable {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: HostBytes,
}

impl Writable {
    fn new(name: &str, tensor: &Tensor) -> Result<Self> {
        let dtype = dtype_of(tensor.kind())
            .ok_or_else(|| anyhow!("tensor {name:?} of type {:?} has no place in a safetensors file", tensor.kind()))?;
        let shape = tensor.size().into_iter().map(usize::try_from).collect::<Result<_, _>>()?;
        Ok(Self { dtype, shape, bytes: HostBytes::of(tensor)? })
    }
}

impl View for Writable {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
