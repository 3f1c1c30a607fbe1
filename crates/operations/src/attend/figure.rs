//! The figure: a row for each model, in each its image and the image under the map of each word.

use std::path::Path;

use anyhow::Result;
use heatmaps::{HeatMaps, Scale, overlay};
use images::{Grid, RgbImage, save_generated};
use runs::{AttentionRow, Overlay};
use sampling::{Request, Settings, Word};
use tch::{Device, Kind, Tensor};

use crate::context::Context;

/// What is shown.
pub(super) struct Figure {
    /// Of the prompt, from the start to the end of the text.
    pub(super) tokens: Vec<String>,
    /// The columns.
    pub(super) words: Vec<Word>,
    pub(super) request: Request,
    pub(super) settings: Settings,
    pub(super) scheduler: &'static str,
    /// Whether values are shares of the words' attention.
    pub(super) normalized: bool,
    pub(super) rows: Vec<Row>,
}

/// What one model has made of the prompt.
pub(super) struct Row {
    name: String,
    title: String,
    image: RgbImage,
    /// [positions, height, width] on the CPU: the sum over passes, or the share.
    maps: Tensor,
    /// [height, width] of each word: the mean over passes, or the share.
    words: Vec<Tensor>,
    /// Passes of the U-Net, of which some schedulers make more than steps.
    passes: u64,
}

impl Row {
    pub(super) fn new(
        name: &str,
        phase: Option<usize>,
        image: RgbImage,
        maps: &HeatMaps,
        figure: &Figure,
    ) -> Result<Self> {
        let title = phase.map_or_else(|| format!("{name} model"), |number| format!("after phase {number}"));
        let of_word = |word: &Word| {
            let sum = maps.word(word.positions.clone())?.get(0).to_device(Device::Cpu);
            Ok(if figure.normalized { sum } else { sum / maps.passes as f64 })
        };
        let words = figure.words.iter().map(of_word).collect::<Result<_>>()?;
        let (passes, maps) = (maps.passes, maps.maps.get(0).to_device(Device::Cpu));
        Ok(Self { name: name.to_owned(), title, image, maps, words, passes })
    }
}

impl Figure {
    /// Writes each row's maps [positions, height, width] under the row's name: sums over passes, or shares.
    pub(super) fn save_maps(&self, path: &Path) -> Result<()> {
        let tokens = serde_json::to_string(&self.tokens)?;
        let maps = self.rows.iter().map(|row| (row.name.as_str(), row.maps.to_kind(Kind::Float)));
        weights::save_with_metadata(path, maps, &[("prompt", &self.request.prompt), ("tokens", &tokens)])
    }

    /// Writes grid.png and each image; returns what they are, row by row.
    pub(super) fn write(&self, out: &Path, common: bool, context: &Context<'_>) -> Result<Vec<AttentionRow>> {
        let scale = if common { self.common_scale() } else { Scale::MinMax };
        let mut grid = Grid::new(1 + self.words.len());
        let mut records = Vec::new();
        for row in &self.rows {
            let file = format!("{}.png", row.name);
            let parameters = self.request.describe(&self.settings, self.scheduler, &row.title);
            save_generated(&out.join(&file), &row.image, &[("parameters", &parameters)])?;
            grid.push(row.image.clone(), &row.title);
            let mut overlays = Vec::new();
            for ((i, word), map) in self.words.iter().enumerate().zip(&row.words) {
                let over = overlay(&row.image, map, scale)?;
                let file = format!("{}-{:02}-{}.png", row.name, i + 1, plain(&word.text));
                let title = format!("{} in {:?}, {}", word.text, self.request.prompt, row.title);
                save_generated(&out.join(&file), &over, &[("Title", &title)])?;
                let (mean, max) = (map.mean(Kind::Double).double_value(&[]), map.max().double_value(&[]));
                grid.push(over, format!("{} {:.1}%", word.text, mean * 100.0));
                overlays.push(Overlay { word: word.text.clone(), file: file.into(), mean, max });
            }
            let Row { name, title, passes, .. } = row;
            let (name, title, passes) = (name.clone(), title.clone(), *passes);
            records.push(AttentionRow { name, title, image: file.into(), passes, overlays });
        }
        save_generated(&out.join("grid.png"), &grid.draw(), &[("Title", &self.request.prompt)])?;
        context.image(out.join("grid.png"));
        Ok(records)
    }

    /// From the least to the greatest value of all maps.
    fn common_scale(&self) -> Scale {
        let maps = || self.rows.iter().flat_map(|row| &row.words);
        let from = maps().map(|map| map.min().double_value(&[])).fold(f64::INFINITY, f64::min);
        let to = maps().map(|map| map.max().double_value(&[])).fold(f64::NEG_INFINITY, f64::max);
        // Where all values are equal, each map is even, whichever the scale.
        if from < to { Scale::Range { from, to } } else { Scale::MinMax }
    }
}

/// A word as part of a file's name.
fn plain(word: &str) -> String {
    word.chars().filter(char::is_ascii_alphanumeric).collect()
}
