//! Attention maps over the phases of a run, as `attend` writes them.

use std::path::Path;

use anyhow::Result;
use maud::{Markup, html};
use runs::AttentionRow;

use crate::embedded::Image;
use crate::page::{figure, slider};
use crate::run::Run;

/// The longer side of a map in pixels, at most.
const SIDE: u32 = 384;

/// A slider over the phases for each prompt.
pub(crate) fn body(run: &Run) -> Result<Option<Markup>> {
    let mut prompts = Vec::new();
    for (folder, attention) in runs::attention_maps(run.folder())? {
        let frames = attention.rows.iter().map(|row| frame(run, row, &folder)).collect::<Result<Vec<_>>>()?;
        if !frames.is_empty() {
            prompts.push((attention.arguments.prompt, frames));
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

/// One phase: the image and a map for each word, with its share of the attention.
fn frame(run: &Run, row: &AttentionRow, folder: &Path) -> Result<(String, Markup)> {
    let title = &row.title;
    let open = |file: &Path| Image::open(&run.inside(folder.join(file))?, SIDE);
    let mut tiles = vec![figure(&open(&row.image)?, &format!("The image, {title}"), "image")];
    for overlay in &row.overlays {
        let (word, share) = (&overlay.word, 100.0 * overlay.mean);
        let alt = format!("Attention of “{word}”, {title}");
        tiles.push(figure(&open(&overlay.file)?, &alt, &format!("{word} {share:.1} %")));
    }
    Ok((title.clone(), html! { div class="tiles" { @for tile in &tiles { (tile) } } }))
}
