//! What `inspect` found about the learned embedding.

use anyhow::Result;
use maud::{Markup, html};
use runs::{InspectedVector, Inspection, NearToken, layout};

use crate::embedded::Image;
use crate::page::{cell, figure, pairs, slider, table};
use crate::run::Run;

/// The longer side of an image in pixels, at most.
const SIDE: u32 = 384;

/// Each vector's distance from its start and its neighbours, and images of `[V]` alone.
pub(crate) fn body(run: &Run) -> Result<Option<Markup>> {
    let Some(inspection) = Inspection::read(&run.folder().join(layout::INSPECTION))? else { return Ok(None) };
    let vectors = &inspection.vectors;
    let frames = frames(run, &inspection)?;
    Ok(Some(html! {
        div {
            @for (number, vector) in (1..).zip(vectors) {
                @if vectors.len() > 1 { h3 { "Vector " (number) } }
                (shift(vector))
                (neighbours(vector))
            }
            @if !frames.is_empty() {
                h3 { "The prompt “[V]” alone, by the base model's U-Net" }
                (slider("embedding-at", "Embedding", &frames))
            }
        }
    }))
}

fn shift(vector: &InspectedVector) -> Markup {
    let rows = [
        ("cosine to its start", format!("{:.4}", vector.cosine)),
        ("distance from its start", format!("{:.4}", vector.distance)),
        ("length", format!("{:.4} at the start, {:.4} now", vector.start_norm, vector.norm)),
    ];
    pairs(rows.map(|(name, value)| (name.to_owned(), value)))
}

/// The nearest tokens, then those of the class noun.
fn neighbours(vector: &InspectedVector) -> Markup {
    let row = |token: &NearToken, note: &str| {
        let name = format!("{}{note}", token.token.trim_end_matches("</w>"));
        (name, vec![cell(format!("{:.4}", token.cosine)), cell(token.rank.to_string())])
    };
    let nearest = vector.nearest.iter().map(|token| row(token, ""));
    let rows = nearest.chain(vector.category.iter().map(|token| row(token, " (the class noun)")));
    table(["nearest words of the vocabulary", "cosine", "rank"], rows)
}

/// Images before and after training.
fn frames(run: &Run, inspection: &Inspection) -> Result<Vec<(String, Markup)>> {
    let mut frames = Vec::new();
    for images in inspection.images.chunk_by(|one, other| one.moment == other.moment) {
        let name = format!("{} training", images[0].moment.name());
        let tiles = images.iter().map(|record| {
            let path = run.folder().join(layout::INSPECTION).join(&record.file);
            let caption = format!("seed {}", record.seed);
            Ok(figure(&Image::open(&run.inside(path)?, SIDE)?, &format!("“[V]” {name}, {caption}"), &caption))
        });
        let tiles = tiles.collect::<Result<Vec<_>>>()?;
        frames.push((name, html! { div class="tiles" { @for tile in &tiles { (tile) } } }));
    }
    Ok(frames)
}
