//! The configuration of a run as tables.

use anyhow::Result;
use maud::{Markup, html};

use crate::page::{cell, pairs, table};
use crate::run::{Run, side_by_side, values};

/// Stages side by side, everything else below, photos, versions.
pub(crate) fn body(run: &Run) -> Result<Markup> {
    let config = run.config();
    let stages = [("embedding", config.embedding), ("cross_attention", config.cross_attention), ("unet", config.unet)];
    let rows = side_by_side(&stages.map(|(_, stage)| stage))?;
    let rows = rows.into_iter().map(|(key, values)| (key.replace('_', " "), values.iter().map(cell).collect()));
    let names = stages.map(|(name, _)| name.replace('_', " "));
    let head = std::iter::once("").chain(names.iter().map(String::as_str));
    let mut rest = values(config)?;
    rest.retain(|(path, _)| stages.iter().all(|(name, _)| path.split('.').next() != Some(name)));
    let photos = &run.saved().record.photos;
    let hashes = photos
        .iter()
        .map(|photo| (photo.file.clone(), format!("SHA-256 {}…", photo.sha256.chars().take(16).collect::<String>())));
    let versions = run.saved().versions.clone();
    let fold = |title: &str, body: Markup| html! { details { summary { (title) } (body) } };
    Ok(html! {
        div {
            (table(head, rows))
            (fold("everything else", pairs(rest)))
            @if !photos.is_empty() { (fold("photos", pairs(hashes))) }
            @if !versions.is_empty() { (fold("versions", pairs(versions))) }
        }
    })
}
