//! The configuration of a run as tables.

use maud::{Markup, html};
use serde_json::Value;

use crate::page::{cell, pairs, table};
use crate::run::{Run, shown, text};

/// The parts of a configuration that have steps: the stages, in their order.
pub(crate) fn stages(run: &Run) -> Vec<(&str, &Value)> {
    let parts = run.config.as_object().into_iter().flatten();
    // Validation's steps are of another kind: a stage also has a learning rate.
    let stage = |value: &Value| ["steps", "learning_rate"].iter().all(|key| value.get(key).is_some());
    parts.filter(|(_, value)| stage(value)).map(|(name, value)| (name.as_str(), value)).collect()
}

/// All values below `value` that are no objects, under their paths with dots.
pub(crate) fn flat(path: &str, value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Object(parts) => {
            let inner = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            parts.iter().flat_map(|(key, value)| flat(&inner(key), value)).collect()
        }
        value => vec![(path.to_owned(), shown(value))],
    }
}

/// Stages side by side, everything else below, photos, versions.
pub(crate) fn body(run: &Run) -> Markup {
    let stages = stages(run);
    let keys = stages.first().and_then(|(_, stage)| stage.as_object()).into_iter().flatten().map(|(key, _)| key);
    let rows = keys.map(|key| {
        let cells = stages.iter().map(|(_, stage)| cell(stage.get(key).map(shown).unwrap_or_default()));
        (key.replace('_', " "), cells.collect())
    });
    let names: Vec<String> = stages.iter().map(|(name, _)| name.replace('_', " ")).collect();
    let of_stages = table(std::iter::once("").chain(names.iter().map(String::as_str)), rows);
    let rest = flat("", &run.config).into_iter().filter(|(path, _)| {
        let part = path.split('.').next().unwrap_or_default();
        stages.iter().all(|(name, _)| *name != part)
    });
    let photos = run.photos.iter().map(|photo| {
        let hash: String = text(photo, "sha256").chars().take(16).collect();
        (text(photo, "file").to_owned(), format!("SHA-256 {hash}…"))
    });
    let fold = |title: &str, body: Markup| html! { details { summary { (title) } (body) } };
    html! {
        div {
            @if !stages.is_empty() { (of_stages) }
            (fold("everything else", pairs(rest)))
            @if !run.photos.is_empty() { (fold("photos", pairs(photos))) }
            @if run.versions.is_object() { (fold("versions", pairs(flat("", &run.versions)))) }
        }
    }
}
