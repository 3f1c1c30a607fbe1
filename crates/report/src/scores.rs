//! Scores as `evaluate` writes them, as tables.

use maud::{Markup, html};
use serde_json::Value;

use crate::page::{cell, table};
use crate::run::{counted, list, text};

/// Scores under their keys, and what readers call them.
pub(crate) const METRICS: [(&str, &str); 4] = [
    ("clip_i", "CLIP-I"),
    ("clip_i_masked", "CLIP-I, subject only"),
    ("clip_t", "CLIP-T"),
    ("clip_t_without_category", "CLIP-T without the category"),
];

/// What evaluations call the model that the run has made.
pub(crate) const OWN: &str = "subject";

/// A mean with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) mean: f64,
    pub(crate) interval: Option<(f64, f64)>,
}

impl Estimate {
    /// `{"mean": 0.7, "low": 0.6, "high": 0.8}`.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        let number = |key: &str| value.get(key)?.as_f64();
        Some(Self { mean: number("mean")?, interval: number("low").zip(number("high")) })
    }

    /// `0.712 [0.690, 0.731]`.
    pub(crate) fn text(self) -> String {
        match self.interval {
            Some((low, high)) => format!("{:.3} [{low:.3}, {high:.3}]", self.mean),
            None => format!("{:.3}", self.mean),
        }
    }

    /// The number, its interval below it, and the interval as a bar from 0 to 1 within `range`.
    fn markup(self, (from, to): (f64, f64)) -> Markup {
        let at = |value: f64| format!("{:.1}%", 100.0 * ((value - from) / (to - from).max(1e-12)).clamp(0.0, 1.0));
        html! {
            span class="estimate" {
                b { (format!("{:.3}", self.mean)) }
                @if let Some((low, high)) = self.interval {
                    small { (format!("{low:.3} to {high:.3}")) }
                    i class="bar" style=(format!("--low:{};--high:{};--mean:{}", at(low), at(high), at(self.mean)))
                        aria-hidden="true" {}
                }
            }
        }
    }
}

/// One model's images and their scores.
pub(crate) struct Variant<'a> {
    /// `subject` is the run's own model.
    pub(crate) name: &'a str,
    /// The folder of its images, relative to that of the file.
    pub(crate) folder: &'a str,
    /// `mean`, `kinds` and `prompts`.
    pub(crate) scores: &'a Value,
}

/// The models that a scores file is about.
pub(crate) fn variants(file: &Value) -> Vec<Variant<'_>> {
    let variant = |value| {
        Some(Variant { name: text(value, "name"), folder: text(value, "folder"), scores: value.get("scores")? })
    };
    list(file, "variants").iter().filter_map(variant).collect()
}

/// The scores of the run's own model.
pub(crate) fn own(file: &Value) -> Option<&Value> {
    variants(file).into_iter().find(|variant| variant.name == OWN).map(|variant| variant.scores)
}

/// The metrics of the means, of those that are there.
pub(crate) fn estimates(of: &Value) -> Vec<(&'static str, &'static str, Estimate)> {
    let mean = of.get("mean").unwrap_or(of);
    METRICS.iter().filter_map(|(key, name)| Some((*key, *name, Estimate::read(mean.get(key)?)?))).collect()
}

/// Tables over all prompts, by kind and, folded, by prompt.
pub(crate) fn tables(file: &Value) -> Option<Markup> {
    let variants = variants(file);
    if variants.is_empty() {
        return None;
    }
    let named = |name: &str, what: &str| match name {
        OWN => what.to_owned(),
        name => format!("{what}, {name} model"),
    };
    let mut rows: Vec<_> =
        variants.iter().map(|Variant { name, scores, .. }| (named(name, "all prompts"), *scores)).collect();
    for Variant { name, scores, .. } in &variants {
        // A kind that all prompts are of has the row above.
        let kinds = Some(list(scores, "kinds")).filter(|kinds| kinds.len() > 1).unwrap_or_default();
        rows.extend(kinds.iter().map(|kind| (named(name, text(kind, "kind")), kind)));
    }
    let by_prompt = |scores| {
        let prompts = list(scores, "prompts").iter();
        by_row("prompt", prompts.map(|prompt| (text(prompt, "prompt").to_owned(), prompt)).collect())
    };
    Some(html! {
        div {
            (by_row("", rows))
            p class="note" { (summary(file)) }
            @for Variant { name, scores, .. } in &variants {
                details { summary { (named(name, "each prompt")) } (by_prompt(scores)) }
            }
        }
    })
}

/// How much was judged, and by whom.
fn summary(file: &Value) -> String {
    let prompts = counted(own(file).map_or(0, |scores| list(scores, "prompts").len()), "prompt");
    let images = counted(file.get("images_per_prompt").and_then(Value::as_u64).unwrap_or(0) as usize, "image");
    let clip = file.get("clip").map_or("", |clip| text(clip, "name"));
    format!("{prompts} with {images} each, judged by {clip}.")
}

/// A table with a row for each named part of a scores file, and a column for each score that any of them has.
pub(crate) fn by_row(what: &str, rows: Vec<(String, &Value)>) -> Markup {
    let rows: Vec<(String, Vec<_>)> = rows.into_iter().map(|(name, of)| (name, estimates(of))).collect();
    let has = |column: &&(&str, &str)| rows.iter().flat_map(|(_, all)| all).any(|(key, ..)| *key == column.0);
    let columns: Vec<(&str, &str)> = METRICS.into_iter().filter(|column| has(&column)).collect();
    // Each column has its own range, so that differences show.
    let range = |column: &str| {
        let of_column = rows.iter().flat_map(|(_, all)| all).filter(|(key, ..)| *key == column);
        let ends = of_column.map(|(.., estimate)| estimate.interval.unwrap_or((estimate.mean, estimate.mean)));
        ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), (low, high)| (a.min(low), b.max(high)))
    };
    let ranges: Vec<_> = columns.iter().map(|(key, _)| range(key)).collect();
    let cells = rows.iter().map(|(name, all)| {
        let of = |((column, _), range): (&(&str, &str), &(f64, f64))| {
            let found = all.iter().find(|(key, ..)| key == column);
            found.map_or_else(|| cell("–"), |(.., estimate)| estimate.markup(*range))
        };
        (name.clone(), columns.iter().zip(&ranges).map(of).collect())
    });
    table(std::iter::once(what).chain(columns.iter().map(|(_, name)| *name)), cells)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scores_are_told_with_their_intervals() {
        let scores = json!({
            "mean": {"clip_i": {"mean": 0.71234, "low": 0.69, "high": 0.7312}, "clip_t": {"mean": 0.25}},
            "kinds": [
                {"kind": "style", "mean": {"clip_i": {"mean": 0.5, "low": 0.5, "high": 0.5}}},
                {"kind": "place", "mean": {"clip_i": {"mean": 0.5}}},
            ],
            "prompts": [{"prompt": "a {} <b>", "mean": {"clip_i": {"mean": 0.5}}, "images": [{}, {}]}],
        });
        let file = json!({
            "clip": {"name": "ViT-B/32"},
            "images_per_prompt": 2,
            "variants": [{"name": "subject", "scores": scores}, {"name": "base", "scores": scores}],
        });
        let texts: Vec<_> = estimates(own(&file).unwrap()).iter().map(|(key, _, e)| (*key, e.text())).collect();
        assert_eq!(texts, [("clip_i", "0.712 [0.690, 0.731]".to_owned()), ("clip_t", "0.250".to_owned())]);
        let page = tables(&file).unwrap().into_string();
        for part in ["a {} &lt;b&gt;", "1 prompt with 2 images each, judged by ViT-B/32.", "style, base model"] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("NaN"), "{page}");
        let mut one_kind = file.clone();
        one_kind["variants"][0]["scores"]["kinds"].as_array_mut().unwrap().pop();
        one_kind["variants"].as_array_mut().unwrap().pop();
        assert!(!tables(&one_kind).unwrap().into_string().contains(">style<"), "it is the row of all prompts");
        assert!(tables(&json!({"version": 7})).is_none() && tables(&json!([1])).is_none());
    }
}
