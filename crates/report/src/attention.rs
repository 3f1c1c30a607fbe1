//! Attention maps over the stages of a run, as `attend` writes them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use crate::element::Element;
use crate::picture::Picture;
use crate::run::{Run, entries, json, list, text};
use crate::run_page::figure;
use crate::slider::slider;

/// The longer side of a map in pixels, at most.
const SIDE: u32 = 384;

/// A slider over the stages for each prompt.
pub(crate) fn element(run: &Run) -> Result<Option<Element>> {
    let mut body = Element::new("div");
    let mut count = 0;
    for path in files(&run.folder.join("attend"))? {
        let Some(file) = json(&path)? else { continue };
        let folder = path.parent().unwrap_or(&path);
        let views = list(&file, "rows").iter().map(|row| view(run, row, folder)).collect::<Result<Vec<_>>>()?;
        if !views.is_empty() {
            count += 1;
            let prompt = file.get("arguments").map_or("", |arguments| text(arguments, "prompt"));
            body = body.child(Element::of("h3", prompt)).child(slider(&format!("attention-{count}"), "Model", views));
        }
    }
    let note = "Where in the picture each word acts, from blue (little) to red (much), and its share of the attention.";
    Ok((count > 0).then(|| body.child(Element::of("p", note).class("note"))))
}

/// `attend.json` in the folder itself and in the folders within.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let within = entries(folder)?.into_iter().filter(|path| path.is_dir());
    let folders = std::iter::once(folder.to_owned()).chain(within);
    Ok(folders.map(|folder| folder.join("attend.json")).filter(|path| path.is_file()).collect())
}

/// One stage: the picture and a map for each word, with how much of the attention it has.
fn view(run: &Run, row: &Value, folder: &Path) -> Result<(String, Element)> {
    let title = text(row, "title").to_owned();
    let picture = Picture::open(&run.inside(folder.join(text(row, "picture")))?, SIDE)?;
    let mut tiles =
        Element::new("div").class("tiles").child(figure(&picture, &format!("The picture, {title}"), "picture"));
    for overlay in list(row, "overlays") {
        let picture = Picture::open(&run.inside(folder.join(text(overlay, "file")))?, SIDE)?;
        let word = text(overlay, "word");
        let share = overlay.get("mean").and_then(Value::as_f64);
        let share = share.map_or(String::new(), |mean| format!(" {:.1} %", 100.0 * mean));
        tiles = tiles.child(figure(&picture, &format!("Attention of “{word}”, {title}"), &format!("{word}{share}")));
    }
    Ok((title, tiles))
}
