//! Attention maps (`attend.json`) and what was found about the learned embedding (`inspect.json`).

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Result;
use options::GenerationSettings;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::read::{entries, read, write};
use crate::{Versions, layout};

/// Attention maps of a prompt's words (`attend.json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// The command's arguments.
    pub arguments: AttentionArguments,
    /// Steps, guidance and size of the images.
    pub settings: GenerationSettings,
    /// The scheduler's class name.
    pub scheduler: String,
    /// What counts in the maps.
    pub heat_maps: HeatMapSettings,
    /// The device that computed, in LibTorch's words.
    pub device: String,
    /// The dtype of the computation, likewise.
    pub dtype: String,
    /// Versions of what the numbers depend on, by name.
    pub versions: Versions,
    /// How long it took.
    pub seconds: f64,
    /// The prompt's tokens, from the start to the end of the text.
    pub tokens: Vec<String>,
    /// The words that are shown.
    pub words: Vec<AttentionWord>,
    /// A row for each model.
    pub rows: Vec<AttentionRow>,
}

/// The arguments of the command that made the maps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttentionArguments {
    /// The prompt.
    pub prompt: String,
    /// All others, by name.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// What counts in a heat map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeatMapSettings {
    /// The layers that count, by how many times smaller than the latents their feature maps are.
    pub factors: Vec<i64>,
    /// Whether the layers of the U-Net's middle block count too.
    pub mid: bool,
    /// Whether each pixel's values are divided by their sum over the tokens.
    pub normalize: bool,
}

/// A word of the prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttentionWord {
    /// As it stands in the prompt, or `[V]`.
    pub word: String,
    /// The positions of its tokens, where the start of the text is 0.
    pub positions: Range<usize>,
}

/// The image of one model, and a map for each word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttentionRow {
    /// The model's name in files.
    pub name: String,
    /// The model's name for readers.
    pub title: String,
    /// The image's file, as seen from the record's folder.
    #[serde(rename = "picture")]
    pub image: PathBuf,
    /// Passes of the U-Net, of which some schedulers make more than steps.
    pub passes: u64,
    /// The image under the map of each word.
    pub overlays: Vec<Overlay>,
}

/// An image under the map of a word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overlay {
    /// The word.
    pub word: String,
    /// The image's file, as seen from the record's folder.
    pub file: PathBuf,
    /// The map's mean: the word's share of the attention.
    pub mean: f64,
    /// The map's greatest value.
    pub max: f64,
}

impl Attention {
    /// Reads the record in a folder of attention maps, if there is one.
    ///
    /// # Errors
    /// When `attend.json` cannot be read or has another form; names the key.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        read(&folder.join(layout::ATTENTION_RECORD), "a record of attention maps")
    }

    /// Writes it into a folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write(&folder.join(layout::ATTENTION_RECORD), self)
    }
}

impl AttentionRow {
    /// The images' files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.image.as_path()).chain(self.overlays.iter().map(|overlay| overlay.file.as_path()))
    }
}

/// The attention maps of a run, in its `attend/` and in the folders within, each with its folder.
///
/// # Errors
/// As [`Attention::read`].
pub fn attention_maps(run: &Path) -> Result<Vec<(PathBuf, Attention)>> {
    let folder = run.join(layout::ATTENTION);
    let within = entries(&folder)?.into_iter().filter(|path| path.is_dir());
    let read = std::iter::once(folder.clone()).chain(within);
    let read = read.map(|folder| Ok(Attention::read(&folder)?.map(|attention| (folder, attention))));
    Ok(read.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// What was found about the learned embedding (`inspect.json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// The command's arguments, by name.
    pub arguments: Map<String, Value>,
    /// The placeholder token.
    pub placeholder: String,
    /// The class noun.
    pub category: String,
    /// Each vector of the embedding.
    pub vectors: Vec<InspectedVector>,
    /// Steps, guidance and size of the images.
    pub settings: GenerationSettings,
    /// The scheduler's class name.
    pub scheduler: String,
    /// The device that computed, in LibTorch's words.
    pub device: String,
    /// The dtype of the computation, likewise.
    pub dtype: String,
    /// Versions of what the numbers depend on, by name.
    pub versions: Versions,
    /// Images of the prompt `[V]` by the base model's U-Net.
    #[serde(rename = "pictures")]
    pub images: Vec<InspectionImage>,
}

/// One vector of the learned embedding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InspectedVector {
    /// The cosine with its start; 1 is the same direction.
    pub cosine: f64,
    /// Its Euclidean length at the start.
    pub start_norm: f64,
    /// Its Euclidean length now.
    pub norm: f64,
    /// The Euclidean distance from its start.
    pub distance: f64,
    /// The nearest tokens of the vocabulary, the nearest first.
    pub nearest: Vec<NearToken>,
    /// The tokens of the class noun.
    pub category: Vec<NearToken>,
}

/// A token of the vocabulary as seen from a vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NearToken {
    /// The token.
    pub token: String,
    /// Its id.
    pub id: i64,
    /// The cosine between its embedding and the vector.
    pub cosine: f64,
    /// Its rank by cosine, from 1.
    pub rank: usize,
}

/// An image of the prompt `[V]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectionImage {
    /// Its file, as seen from the record's folder.
    pub file: PathBuf,
    /// With the embedding of before or after training.
    pub moment: BeforeOrAfter,
    /// Its seed.
    pub seed: u64,
}

/// On which side of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BeforeOrAfter {
    /// With the embedding at its start.
    Before,
    /// With the learned embedding.
    After,
}

impl BeforeOrAfter {
    /// Its name in files and for readers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
        }
    }
}

impl Inspection {
    /// Reads the record in a folder, if there is one.
    ///
    /// # Errors
    /// When `inspect.json` cannot be read or has another form; names the key.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        read(&folder.join(layout::INSPECTION_RECORD), "a record of a learned embedding")
    }

    /// Writes it into a folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write(&folder.join(layout::INSPECTION_RECORD), self)
    }
}
