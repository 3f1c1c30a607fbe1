//! Reading safetensors: one file, several (with or without an index), or a component's folder.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use libtorch::MappedFile;
use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

use crate::dtype::{is_float, kind_of};
use crate::scope::{Problem, Source};
use crate::{Init, Tensors};

/// Why weights cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system's own reason.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A folder without any of the usual file names.
    #[error("no weights in {}: expected {expected}", folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
        /// The names that were looked for.
        expected: String,
    },
    /// A pickle file, which runs code when it is read.
    #[error(
        "{} is a pickle file, which may run code when it is read and is therefore refused; convert it with \
         `python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('{}', weights_only=True), \
         'model.safetensors', {{'format': 'pt'}})\"` or download the .safetensors version",
        path.display(), path.file_name().unwrap_or_default().display()
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// A damaged or foreign file.
    #[error("{} is not a valid safetensors file ({reason}); download or write it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What its header claims wrongly.
        reason: String,
    },
    /// An index that does not match its files.
    #[error("the index {} is wrong: {reason}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Tensors in memory-mapped safetensors files, by name.
#[derive(Debug)]
pub struct Archive {
    pub(crate) files: Vec<(PathBuf, MappedFile)>,
    pub(crate) entries: BTreeMap<String, Entry>,
    pub(crate) metadata: HashMap<String, String>,
    pub(crate) variant: Option<Variant>,
}

/// A file that was opened in place of one that the folder does not have.
#[derive(Debug)]
pub struct Variant {
    /// The file, such as `model.fp16.safetensors`, or the index of its shards.
    pub path: PathBuf,
    /// What the file would be called without the variant: `model.safetensors`.
    pub plain_name: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    file: usize,
    dtype: Dtype,
    pub(crate) shape: Vec<i64>,
    pub(crate) bytes: Range<usize>,
    /// Whether the file has the matrix transposed.
    pub(crate) transposed: bool,
}

/// What a component's weights are called in front of `.safetensors`: by diffusers, and by transformers.
const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];
/// The variants of weights that are read where the plain ones are missing, best first. `non_ema` are those that training
/// went on from, in place of their running average.
const VARIANTS: [&str; 4] = ["fp32", "fp16", "bf16", "non_ema"];
const PICKLE_EXTENSIONS: [&str; 5] = ["bin", "ckpt", "pt", "pth", "pkl"];

impl Archive {
    /// Opens one `.safetensors` file, or the shards that a `.safetensors.index.json` file lists.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if PICKLE_EXTENSIONS.contains(&extension) {
            return Err(OpenError::Pickle { path: path.to_owned() });
        }
        if extension == "json" {
            return Self::open_index(path);
        }
        let mut archive = Self::empty();
        archive.add_file(path)?;
        Ok(archive)
    }

    fn empty() -> Self {
        Self { files: Vec::new(), entries: BTreeMap::new(), metadata: HashMap::new(), variant: None }
    }

    /// Opens the weights in a component's folder, such as `unet/` of a diffusers model: the first of
    /// `diffusion_pytorch_model` or `model` that is there, whole or sharded. Where there is only a variant of them, such as
    /// `model.fp16.safetensors`, it is opened, and [`Source::notes`] says so.
    ///
    /// # Errors
    /// When there are none, and as [`Archive::open`].
    pub fn open_folder(folder: &Path) -> Result<Self, OpenError> {
        if let Err(source) = std::fs::read_dir(folder) {
            return Err(OpenError::Io { path: folder.to_owned(), source });
        }
        let plain = ["safetensors", "safetensors.index.json"];
        let plain_names = plain.iter().flat_map(|suffix| STEMS.map(|stem| format!("{stem}.{suffix}")));
        if let Some(path) = plain_names.map(|name| folder.join(name)).find(|path| path.exists()) {
            return Self::open(&path);
        }
        let variants = variants().map(|(name, plain_name)| Variant { path: folder.join(name), plain_name });
        if let Some(variant) = variants.into_iter().find(|variant| variant.path.exists()) {
            let mut archive = Self::open(&variant.path)?;
            archive.variant = Some(variant);
            return Ok(archive);
        }
        let variants = [""].into_iter().chain(VARIANTS).map(|variant| match variant {
            "" => String::new(),
            variant => format!(".{variant}"),
        });
        let pickles = variants.flat_map(|variant| {
            PICKLE_EXTENSIONS.into_iter().flat_map(move |extension| {
                ["diffusion_pytorch_model", "pytorch_model"].map(|stem| format!("{stem}{variant}.{extension}"))
            })
        });
        let pickles = pickles.map(|name| folder.join(name));
        if let Some(path) = pickles.into_iter().find(|path| path.exists()) {
            return Err(OpenError::Pickle { path });
        }
        let expected = STEMS.map(|stem| format!("{stem}.safetensors")).join(" or ");
        Err(OpenError::NoWeights { folder: folder.to_owned(), expected })
    }

    fn open_index(path: &Path) -> Result<Self, OpenError> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let wrong = |reason: String| OpenError::Index { path: path.to_owned(), reason };
        let text = json::text(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        let index: Index = json::parse(&text).map_err(|error| wrong(error.to_string()))?;
        let shards: BTreeSet<&String> = index.weight_map.values().collect();
        let mut archive = Self::empty();
        for shard in shards {
            if Path::new(shard).components().count() != 1 {
                return Err(wrong(format!("the shard name {shard:?} must be a plain file name")));
            }
            archive.add_file(&path.with_file_name(shard))?;
        }
        match index.weight_map.keys().find(|name| !archive.entries.contains_key(*name)) {
            Some(name) => Err(wrong(format!("tensor {name:?} is in none of its shards"))),
            None => Ok(archive),
        }
    }

    fn add_file(&mut self, path: &Path) -> Result<(), OpenError> {
        let map = MappedFile::open(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        let damaged = |reason: String| OpenError::Damaged { path: path.to_owned(), reason };
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|error| damaged(error.to_string()))?;
        let data = header + size_of::<u64>();
        for (name, info) in metadata.tensors() {
            let shape = info.shape.iter().map(|&d| i64::try_from(d)).collect::<Result<_, _>>();
            let (start, end) = info.data_offsets;
            let entry = Entry {
                file: self.files.len(),
                dtype: info.dtype,
                shape: shape.map_err(|_| damaged(format!("tensor {name:?} has an impossible shape")))?,
                bytes: data + start..data + end,
                transposed: false,
            };
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(damaged(format!("tensor {name:?} is also in another shard")));
            }
        }
        self.metadata.extend(metadata.metadata().clone().unwrap_or_default());
        self.files.push((path.to_owned(), map));
        Ok(())
    }

    /// The files that hold the tensors.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// The variant that [`Archive::open_folder`] has opened for lack of the plain weights, if so.
    pub fn variant(&self) -> Option<&Variant> {
        self.variant.as_ref()
    }

    /// The header's free-form metadata, such as `format`.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// Names and shapes of all tensors, in order of their names.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[i64])> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry.shape.as_slice()))
    }

    /// A copy of the tensor called `name`, in the dtype it has in the file; `None` when there is none of that name.
    ///
    /// # Errors
    /// When the file's dtype is not one that LibTorch computes with, or memory runs out.
    pub fn tensor(&self, name: &str) -> anyhow::Result<Option<Tensor>> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let kind = kind_of(entry.dtype)
            .ok_or_else(|| anyhow::anyhow!("tensor {name:?} has the unsupported type {:?}", entry.dtype))?;
        Ok(Some(self.copy(entry, kind, (kind, Device::Cpu))?))
    }

    /// Copies of all tensors.
    ///
    /// # Errors
    /// As [`Archive::tensor`].
    pub fn tensors(&self) -> anyhow::Result<Tensors> {
        let named = self.entries.keys().map(|name| Ok((name.clone(), self.tensor(name)?)));
        named.filter_map(|pair| pair.map(|(name, tensor)| tensor.map(|t| (name, t))).transpose()).collect()
    }

    fn copy(&self, entry: &Entry, kind: Kind, to: (Kind, Device)) -> Result<Tensor, libtorch::Error> {
        let map = &self.files[entry.file].1;
        let bytes = &map[entry.bytes.clone()];
        let tensor = match (entry.transposed, &entry.shape[..]) {
            (true, &[rows, columns]) => libtorch::tensor_from_bytes(bytes, kind, &[columns, rows], to)
                .and_then(|tensor| libtorch::catch(|| tensor.tr().contiguous())),
            _ => libtorch::tensor_from_bytes(bytes, kind, &entry.shape, to),
        };
        // What was copied need not stay in memory twice.
        map.release(entry.bytes.clone());
        tensor
    }
}

/// The name of each file that may hold a variant, and its name without the variant.
fn variants() -> impl Iterator<Item = (String, String)> {
    VARIANTS.into_iter().flat_map(|variant| {
        STEMS.into_iter().flat_map(move |stem| {
            let index = format!("{stem}.safetensors.index.json");
            [
                (format!("{stem}.{variant}.safetensors"), format!("{stem}.safetensors")),
                (format!("{stem}.safetensors.index.{variant}.json"), index.clone()),
                // As earlier releases of transformers and diffusers, and other programs, have written it.
                (format!("{stem}.safetensors.{variant}.index.json"), index.clone()),
                (format!("{stem}.{variant}.safetensors.index.json"), index),
            ]
        })
    })
}

impl Source for Archive {
    fn describe(&self) -> String {
        let paths: Vec<String> = self.files.iter().map(|(path, _)| path.display().to_string()).collect();
        paths.join(", ")
    }

    fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    fn notes(&self) -> Vec<String> {
        let note = |Variant { path, plain_name }: &Variant| {
            format!("{} is read, because its folder has no {plain_name}", path.display())
        };
        self.variant.iter().map(note).collect()
    }

    fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    fn fetch(&self, name: &str, shape: &[i64], _: Init, to: (Kind, Device)) -> Result<Tensor, Problem> {
        let entry = self.entries.get(name).ok_or(Problem::Missing)?;
        if entry.shape != shape {
            return Err(Problem::Shape { found: entry.shape.clone(), expected: shape.to_owned() });
        }
        let kind = kind_of(entry.dtype)
            .filter(|kind| to.0 == *kind || (is_float(*kind) && is_float(to.0)))
            .ok_or_else(|| Problem::Type { found: format!("{:?}", entry.dtype), expected: to.0 })?;
        self.copy(entry, kind, to).map_err(Problem::Copy)
    }
}
