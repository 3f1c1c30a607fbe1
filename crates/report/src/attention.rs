//! Attention maps over the stages of a run, as `attend` writes them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use maud::{Markup, html};
use serde_json::Value;

use crate::embedded::Image;
use crate::page::{figure, slider};
use crate::run::{Run, entries, json, list, text};

/// The longer side of a map in pixels, at most.
const SIDE: u32 = 384;

/// A slider over the stages for each prompt.
pub(crate) fn body(run: &Run) -> Result<Option<Markup>> {
    let mut prompts = Vec::new();
    for path in files(&run.folder.join("attend"))? {
        let Some(file) = json(&path)? else { continue };
        let folder = path.parent().unwrap_or(&path);
        let frames = list(&file, "rows").iter().map(|row| frame(run, row, folder)).collect::<Result<Vec<_>>>()?;
        if !frames.is_empty() {
            let prompt = file.get("arguments").map_or("", |arguments| text(arguments, "prompt")).to_owned();
            prompts.push((prompt, frames));
        }
    }
    Ok((!prompts.is_empty()).then(|| {
        html! {
            div {
                @for (number, (prompt, frames)) in (1..).zip(&prompts) {
                    h3 { (prompt) }
                    (slider(&format!("attention-{number}"), "Model", frames))
                }
                p class="note" {
                    "Where in the image each word acts, from blue (little) to red (much), and its share of the attention."
                }
            }
        }
    }))
}

/// `attend.json` in the folder itself and in the folders within.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let within = entries(folder)?.into_iter().filter(|path| path.is_dir());
    let folders = std::iter::once(folder.to_owned()).chain(within);
    Ok(folders.map(|folder| folder.join("attend.json")).filter(|path| path.is_file()).collect())
}

/// One stage: the image and a map for each word, with its share of the attention.
fn frame(run: &Run, row: &Value, folder: &Path) -> Result<(String, Markup)> {
    let title = text(row, "title").to_owned();
    let open = |value, key| Image::open(&run.inside(folder.join(text(value, key)))?, SIDE);
    let mut tiles = vec![figure(&open(row, "picture")?, &format!("The image, {title}"), "image")];
    for overlay in list(row, "overlays") {
        let word = text(overlay, "word");
        let share = overlay.get("mean").and_then(Value::as_f64);
        let share = share.map_or(String::new(), |mean| format!(" {:.1} %", 100.0 * mean));
        let alt = format!("Attention of “{word}”, {title}");
        tiles.push(figure(&open(overlay, "file")?, &alt, &format!("{word}{share}")));
    }
    Ok((title, html! { div class="tiles" { @for tile in &tiles { (tile) } } }))
}
