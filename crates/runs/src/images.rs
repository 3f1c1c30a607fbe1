//! The folder that images go into: each has a number of its own and a line in the log, whatever was there before and whoever
//! else writes there.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use images::RgbImage;
use serde::{Deserialize, Serialize};

use crate::Versions;
use crate::layout::IMAGE_LOG;

/// A generated image and its parameters: a line of `generate.jsonl`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageEntry {
    /// The file's name; [`ImageFolder::add`] gives it.
    pub file: String,
    /// The prompt.
    pub prompt: String,
    /// The negative prompt.
    pub negative_prompt: String,
    /// The seed of the initial noise.
    pub seed: u64,
    /// Denoising steps.
    pub steps: usize,
    /// Guidance scale.
    pub guidance_scale: f64,
    /// Width in pixels.
    pub width: i64,
    /// Height in pixels.
    pub height: i64,
    /// The scheduler's class name.
    pub scheduler: String,
    /// DDIM's η, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<f64>,
    /// The folder of the run whose subject it may show.
    pub run: Option<PathBuf>,
    /// The model, where it was named.
    pub model: Option<PathBuf>,
    /// LoRA files with their scales, as `FILE:SCALE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<String>,
    /// The scale of the run's own LoRA, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_scale: Option<f64>,
    /// The file of the initial noise, where it was named.
    pub latents: Option<PathBuf>,
    /// The files of embeddings that were named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub embeddings: Vec<PathBuf>,
    /// The reference photo that was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<PathBuf>,
    /// The device that computed, in LibTorch's words.
    pub device: String,
    /// The dtype of the computation, likewise.
    pub dtype: String,
    /// When, in seconds since 1970.
    pub time: f64,
    /// Versions of what the numbers depend on, by name.
    pub versions: Versions,
}

/// The images in a folder by its log, in the order of their making; none where there is no log. A line that was cut off, as
/// the process was killed, is left out.
///
/// # Errors
/// When the log cannot be read.
pub fn read_images(folder: &Path) -> Result<Vec<ImageEntry>> {
    let path = folder.join(IMAGE_LOG);
    let bytes = match limits::read_at_most(&path, MAX_BYTES) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        bytes => bytes.with_context(|| format!("cannot read {}", path.display()))?,
    };
    Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// A million images, more than anybody generates into one folder.
const MAX_BYTES: u64 = 1 << 30;

/// A folder with numbered images, which several processes may add to at once.
#[derive(Debug)]
pub struct ImageFolder {
    path: PathBuf,
    log: File,
    /// The next number and the log's length in bytes, as this process has left them.
    left: Option<(u64, u64)>,
}

impl ImageFolder {
    /// Opens the folder, which is created if missing.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot create the folder {}", path.display()))?;
        Ok(Self { path: path.to_owned(), log: atomic::append(&path.join(IMAGE_LOG))?, left: None })
    }

    /// Writes an image, then its line: `entry` with the file's name. An image whose line is missing, since the process was
    /// killed in between, has its `parameters` inside all the same. Returns its number.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn add(&mut self, image: &RgbImage, parameters: &str, entry: ImageEntry) -> Result<u64> {
        // Where there are no locks, two processes may choose the same name; then one of them fails, and nothing is lost.
        let _ = self.log.lock();
        let added = self.add_locked(image, parameters, entry);
        let _ = self.log.unlock();
        added
    }

    /// The name of an image's file.
    pub fn file_name(number: u64, seed: u64) -> String {
        format!("{number:04}-seed{seed}.png")
    }

    fn add_locked(&mut self, image: &RgbImage, parameters: &str, entry: ImageEntry) -> Result<u64> {
        let number = self.next()?;
        let file = Self::file_name(number, entry.seed);
        images::save_new_generated(&self.path.join(&file), image, &[("parameters", parameters)])?;
        let mut line = serde_json::to_string(&ImageEntry { file, ..entry })?;
        line.push('\n');
        let write = |mut log: &File| {
            log.write_all(line.as_bytes())?;
            log.sync_data()?;
            log.metadata()
        };
        let length =
            write(&self.log).with_context(|| format!("cannot write {}", self.path.join(IMAGE_LOG).display()))?.len();
        self.left = Some((number + 1, length));
        Ok(number)
    }

    /// Writes a grid of images, of which `first` is the number of the first one. Returns its name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_grid(&self, grid: &RgbImage, first: u64) -> Result<String> {
        let file = format!("grid-{first:04}.png");
        images::save_new_generated(&self.path.join(&file), grid, &[])?;
        Ok(file)
    }

    /// One more than the greatest number in the folder and in the log, which may tell of files that have been removed.
    fn next(&mut self) -> Result<u64> {
        let failed = || format!("cannot read {}", self.path.display());
        let length = self.log.metadata().with_context(failed)?.len();
        if let Some((next, left)) = self.left
            && left == length
        {
            return Ok(next);
        }
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(&self.path).with_context(failed)? {
            names.push(entry.with_context(failed)?.file_name().to_string_lossy().into_owned());
        }
        let mut greatest = names.iter().filter_map(|name| number(name)).max();
        self.log.seek(SeekFrom::Start(0)).with_context(failed)?;
        let (mut lines, mut line) = (BufReader::new(&self.log), Vec::new());
        while lines.read_until(b'\n', &mut line).with_context(failed)? > 0 {
            if line.last() != Some(&b'\n') {
                // A process was killed, or the disk was full, in the middle of it.
                (&self.log).write_all(b"\n").with_context(failed)?;
            }
            let entry: ImageEntry = serde_json::from_slice(&line).unwrap_or_default();
            greatest = greatest.max(number(&entry.file));
            line.clear();
        }
        Ok(greatest.map_or(0, |greatest| greatest + 1))
    }
}

/// The number of an image, `0012-seed7.png`, or of the first in a grid, `grid-0012.png`.
fn number(name: &str) -> Option<u64> {
    let stem = name.strip_suffix(".png")?;
    let digits = match stem.strip_prefix("grid-") {
        Some(digits) => digits,
        None => stem.split_once("-seed")?.0,
    };
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(folder: &mut ImageFolder, seed: u64) -> u64 {
        folder.add(&RgbImage::new(2, 2), "a cat", ImageEntry { seed, ..ImageEntry::default() }).unwrap()
    }

    fn logged(folder: &Path) -> Vec<String> {
        read_images(folder).unwrap().into_iter().map(|entry| entry.file).collect()
    }

    #[test]
    fn numbers_go_on_whatever_was_there() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("new/images");
        let mut folder = ImageFolder::open(&path).unwrap();
        assert_eq!([add(&mut folder, 7), add(&mut folder, 7)], [0, 1]);
        assert_eq!(folder.add_grid(&RgbImage::new(2, 2), 0).unwrap(), "grid-0000.png");
        assert_eq!(add(&mut ImageFolder::open(&path).unwrap(), 0), 2);
        // An image without a line, and a line without an image: neither's number is given again.
        fs::write(path.join("0011-seed3.png"), "").unwrap();
        fs::write(path.join("holiday-seed99.png"), "").unwrap();
        assert_eq!(add(&mut ImageFolder::open(&path).unwrap(), 0), 12);
        fs::remove_file(path.join("0012-seed0.png")).unwrap();
        assert_eq!(add(&mut ImageFolder::open(&path).unwrap(), 0), 13);
        // This one has seen none of that.
        assert_eq!(add(&mut folder, 1), 14);
        let files = [
            "0000-seed7.png",
            "0001-seed7.png",
            "0002-seed0.png",
            "0012-seed0.png",
            "0013-seed0.png",
            "0014-seed1.png",
        ];
        assert_eq!(logged(&path), files);
    }

    #[test]
    fn a_line_that_was_cut_off_takes_no_other_with_it() {
        let temporary = tempfile::tempdir().unwrap();
        add(&mut ImageFolder::open(temporary.path()).unwrap(), 0);
        let log = temporary.path().join(IMAGE_LOG);
        let whole = fs::read(&log).unwrap();
        fs::write(&log, [&whole[..], &whole[..whole.len() / 2]].concat()).unwrap();
        add(&mut ImageFolder::open(temporary.path()).unwrap(), 5);
        assert_eq!(logged(temporary.path()), ["0000-seed0.png", "0001-seed5.png"]);
    }

    #[test]
    fn several_write_at_once_and_nothing_is_lost() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path();
        std::thread::scope(|scope| {
            for seed in 0..4 {
                scope.spawn(move || {
                    let mut folder = ImageFolder::open(path).unwrap();
                    (0..10).for_each(|_| assert!(add(&mut folder, seed) < 40));
                });
            }
        });
        let logged = logged(path);
        let numbers: Vec<u64> = logged.iter().map(|name| number(name).unwrap()).collect();
        assert_eq!(numbers, (0..40).collect::<Vec<_>>());
        assert!(logged.iter().all(|name| path.join(name).exists()));
    }
}
