//! The configuration of a run as tables.

use anyhow::Result;
use maud::{Markup, html};

use crate::page::{cell, pairs, table};
use crate::run::{Run, side_by_side, values};

/// Phases side by side, everything else below, photos, versions.
pub(crate) fn body(run: &Run) -> Result<Markup> {
    let config = run.config();
    let phases: Vec<_> = config.phases.values().collect();
    let rows = side_by_side(&phases)?;
    let rows = rows.into_iter().map(|(key, values)| (key.replace('_', " "), values.iter().map(cell).collect()));
    let names: Vec<String> = config.phases.keys().map(|name| name.replace('_', " ")).collect();
    let head = std::iter::once("").chain(names.iter().map(String::as_str));
    let mut rest = values(config)?;
    rest.retain(|(path, _)| path.split('.').next() != Some("phases"));
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
