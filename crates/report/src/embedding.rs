//! What `inspect` found about the learned embedding.

use anyhow::Result;
use maud::{Markup, html};
use serde_json::Value;

use crate::embedded::Image;
use crate::page::{cell, figure, pairs, slider, table};
use crate::run::{Run, list, text};

const FOLDER: &str = "inspect";
/// The longer side of an image in pixels, at most.
const SIDE: u32 = 384;

/// Each vector's distance from its start and its neighbours, and images of `[V]` alone.
pub(crate) fn body(run: &Run) -> Result<Option<Markup>> {
    let Some(file) = run.json(&format!("{FOLDER}/inspect.json"))? else { return Ok(None) };
    let vectors = list(&file, "vectors");
    let frames = frames(run, &file)?;
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

fn number(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_f64).map_or_else(|| "–".to_owned(), |number| format!("{number:.4}"))
}

fn shift(vector: &Value) -> Markup {
    let norms = format!("{} at the start, {} now", number(vector, "start_norm"), number(vector, "norm"));
    let rows = [
        ("cosine to its start", number(vector, "cosine")),
        ("distance from its start", number(vector, "distance")),
        ("length", norms),
    ];
    pairs(rows.map(|(name, value)| (name.to_owned(), value)))
}

/// The nearest tokens, then those of the class noun.
fn neighbours(vector: &Value) -> Markup {
    let rows = |key: &'static str, note: &'static str| {
        list(vector, key).iter().map(move |token| {
            let rank = token.get("rank").map(Value::to_string).unwrap_or_default();
            let name = format!("{}{note}", text(token, "token").trim_end_matches("</w>"));
            (name, vec![cell(number(token, "cosine")), cell(rank)])
        })
    };
    let rows = rows("nearest", "").chain(rows("category", " (the class noun)"));
    table(["nearest words of the vocabulary", "cosine", "rank"], rows)
}

/// Images before and after learning.
fn frames(run: &Run, file: &Value) -> Result<Vec<(String, Markup)>> {
    let mut tiles = Vec::new();
    for record in list(file, "pictures") {
        let (moment, seed) = (text(record, "moment"), record.get("seed").map(Value::to_string).unwrap_or_default());
        let image = Image::open(&run.inside(run.folder.join(FOLDER).join(text(record, "file")))?, SIDE)?;
        let tile = figure(&image, &format!("“[V]” {moment} stage 1, seed {seed}"), &format!("seed {seed}"));
        tiles.push((format!("{moment} stage 1"), tile));
    }
    let frames = tiles.chunk_by(|(name, _), (other, _)| name == other).map(|of_moment| {
        let body = html! { div class="tiles" { @for (_, tile) in of_moment { (tile) } } };
        (of_moment[0].0.clone(), body)
    });
    Ok(frames.collect())
}
