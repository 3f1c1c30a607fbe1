//! The tensors of a probe's input and output files.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use tch::{Device, Kind, Tensor};
use weights::{Archive, Tensors};

pub(super) type Outputs = Tensors;

/// The input file's tensors.
pub(super) struct Inputs {
    path: PathBuf,
    tensors: Tensors,
}

impl Inputs {
    pub(super) fn read(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), tensors: Archive::open(path)?.tensors()? })
    }

    /// A tensor that may be left out, as it is in the file.
    pub(super) fn optional(&self, name: &str) -> Option<Tensor> {
        self.tensors.get(name).map(Tensor::shallow_clone)
    }

    /// A tensor that must be there.
    pub(super) fn get(&self, name: &str) -> Result<Tensor> {
        match self.optional(name) {
            Some(tensor) => Ok(tensor),
            None => {
                let names: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
                bail!("{} has no tensor {name:?}; it has: {}", self.path.display(), names.join(", "))
            }
        }
    }

    /// A tensor of floating-point numbers, as the component computes with it.
    pub(super) fn float(&self, name: &str, (kind, device): (Kind, Device)) -> Result<Tensor> {
        Ok(self.get(name)?.to_device(device).to_kind(kind))
    }

    /// All tensors, each the UTF-8 text of a prompt, in order of their names.
    pub(super) fn texts(&self) -> Result<Vec<String>> {
        let text = |(name, tensor): (&String, &Tensor)| {
            let bytes = tensor.kind() == Kind::Uint8 && tensor.dim() == 1;
            ensure!(bytes, "{name:?} in {} must be a one-dimensional tensor of bytes (uint8)", self.path.display());
            match String::from_utf8(Vec::try_from(tensor)?) {
                Ok(text) => Ok(text),
                Err(_) => bail!("{name:?} in {} is not UTF-8 text", self.path.display()),
            }
        };
        self.tensors.iter().map(text).collect()
    }
}
