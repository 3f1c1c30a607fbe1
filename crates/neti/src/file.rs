//! A mapper in a file of its own: all that `generate` needs beside the base model.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use weights::{Archive, Init, OpenError, Scope};

use crate::mapper::LAST_WEIGHT;
use crate::{Config, Mapper};

/// The key of the file's metadata that has [`Header`] as JSON.
const KEY: &str = "neti";
const FREQUENCIES: &str = "frequencies";

/// What the tensors do not say.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    config: Config,
    layers: usize,
    norm: f64,
    token: String,
}

/// Whether a file's tensors are a mapper's.
pub fn is_mapper(archive: &Archive) -> bool {
    [FREQUENCIES, LAST_WEIGHT].iter().all(|name| archive.shapes().any(|(known, _)| known == *name))
}

impl Mapper {
    /// Writes the parameters by their official names, the frequencies, and in the file's metadata the configuration and the token.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path, token: &str) -> Result<()> {
        let header =
            Header { config: self.config().clone(), layers: self.layers(), norm: self.norm(), token: token.to_owned() };
        let header = serde_json::to_string(&header)?;
        let frequencies = (FREQUENCIES.to_owned(), self.frequencies().shallow_clone());
        weights::save_with_metadata(path, self.parameters().into_iter().chain([frequencies]), &[(KEY, &header)])
    }

    /// Reads such a file for a model whose text encoder has a width, and whose U-Net so many cross-attention layers: the mapper, on
    /// a device, and its token.
    ///
    /// # Errors
    /// When the file cannot be read, holds something else, or belongs to another family of models; names both sides.
    pub fn read(path: &Path, (width, layers): (i64, usize), device: Device) -> Result<(Self, String)> {
        let shown = path.display();
        let archive = match Archive::open(path) {
            Err(OpenError::Pickle { .. }) => bail!(
                "{shown} is a pickle file, which may run code when it is read and is therefore refused; convert it with the script \
                 in docs/methods/neti.md"
            ),
            opened => opened?,
        };
        ensure!(is_mapper(&archive), "{shown} holds no mapper of NeTI; give a file of `export --format neti`");
        let header = archive.metadata().get(KEY).with_context(|| {
            format!("{shown} does not say in its metadata ({KEY}) what its mapper is made of; export it again")
        })?;
        let header = serde_json::from_str(header)
            .with_context(|| format!("{shown} says in its metadata ({KEY}) what is no mapper's configuration"))?;
        let Header { config, layers: own_layers, norm, token } = header;
        let own_width =
            archive.shapes().find(|(name, _)| *name == LAST_WEIGHT).and_then(|(_, shape)| shape.first().copied());
        let own_width = own_width.unwrap_or(0) / 2;
        ensure!(
            (own_width, own_layers) == (width, layers),
            "{shown} is of a model with embeddings of width {own_width} and {own_layers} cross-attention layers, but this model has \
             {width} and {layers}: use the base model that it was learned on, or one of the same family"
        );
        let shape = [config.frequencies, 2];
        config.validate().with_context(|| format!("the mapper in {shown}"))?;
        let build = |vs: &Scope| {
            let frequencies = vs.get(FREQUENCIES, &shape, Init::Const(0.0));
            Self::build(vs, &config, (width, layers), norm, frequencies)
        };
        let (mapper, parameters) = libtorch::catch(|| weights::build(&archive, (Kind::Float, device), build))??;
        parameters.check_finite().with_context(|| shown.to_string())?;
        ensure!(!token.trim().is_empty(), "the mapper in {shown} has no token; export it again");
        Ok((mapper, token))
    }

    /// An embedding for whoever wants a single one: that of the middle of denoising in the first layer, [1, width].
    ///
    /// # Errors
    /// None but LibTorch's.
    pub fn typical(&self) -> Result<Tensor> {
        let [embedding, _] = tch::no_grad(|| self.forward(&Tensor::from_slice(&[500i64]), 0, None))?;
        Ok(embedding)
    }
}
