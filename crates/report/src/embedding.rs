//! What `inspect` found about the learned embedding.

use anyhow::Result;
use serde_json::Value;

use crate::element::{Element, cell, table};
use crate::picture::Picture;
use crate::run::{Run, list, text};
use crate::run_page::{figure, pairs};
use crate::slider::slider;

const FOLDER: &str = "inspect";
/// The longer side of a picture in pixels, at most.
const SIDE: u32 = 384;

/// Each vector's way from its start and its neighbours, and pictures of `[V]` alone.
pub(crate) fn element(run: &Run) -> Result<Option<Element>> {
    let Some(file) = run.json(&format!("{FOLDER}/inspect.json"))? else { return Ok(None) };
    let vectors = list(&file, "vectors");
    let mut body = Element::new("div");
    for (i, vector) in vectors.iter().enumerate() {
        if vectors.len() > 1 {
            body = body.child(Element::of("h3", format!("Vector {}", i + 1)));
        }
        body = body.child(shift(vector)).child(neighbours(vector));
    }
    let views = pictures(run, &file)?;
    if !views.is_empty() {
        body = body.child(Element::of("h3", "The prompt “[V]” alone, by the base model's U-Net"));
        body = body.child(slider("embedding-at", "Embedding", views));
    }
    Ok(Some(body))
}

fn number(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_f64).map_or_else(|| "–".to_owned(), |number| format!("{number:.4}"))
}

fn shift(vector: &Value) -> Element {
    let norms = format!("{} at the start, {} now", number(vector, "start_norm"), number(vector, "norm"));
    let rows = [
        ("cosine to its start", number(vector, "cosine")),
        ("distance from its start", number(vector, "distance")),
        ("length", norms),
    ];
    pairs(rows.map(|(name, value)| (name.to_owned(), value)))
}

/// The nearest tokens, then those of the category.
fn neighbours(vector: &Value) -> Element {
    let rows = |key: &'static str, note: &'static str| {
        list(vector, key).iter().map(move |token| {
            let rank = token.get("rank").map(Value::to_string).unwrap_or_default();
            let name = format!("{}{note}", text(token, "token").trim_end_matches("</w>"));
            (name, vec![cell(number(token, "cosine")), cell(rank)])
        })
    };
    let rows = rows("nearest", "").chain(rows("category", " (the category)"));
    table(["nearest words of the vocabulary", "cosine", "rank"], rows)
}

/// Pictures before and after learning.
fn pictures(run: &Run, file: &Value) -> Result<Vec<(String, Element)>> {
    let mut views: Vec<(String, Element)> = Vec::new();
    for record in list(file, "pictures") {
        let (moment, seed) = (text(record, "moment"), record.get("seed").map(Value::to_string).unwrap_or_default());
        let picture = Picture::open(&run.inside(run.folder.join(FOLDER).join(text(record, "file")))?, SIDE)?;
        let tile = figure(&picture, &format!("“[V]” {moment} stage 1, seed {seed}"), &format!("seed {seed}"));
        let name = format!("{moment} stage 1");
        match views.last_mut() {
            Some((last, tiles)) if *last == name => *tiles = tiles.clone().child(tile),
            _ => views.push((name, Element::new("div").class("tiles").child(tile))),
        }
    }
    Ok(views)
}
