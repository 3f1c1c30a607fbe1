//! Scores of evaluations as tables.

use maud::{Markup, html};
use runs::{Evaluation, Metrics, Variant};
use statistics::{Estimate, Share};

use crate::page::{cell, table};
use crate::run::counted;

/// `0.712 [0.690, 0.731]`.
pub(crate) fn text(Estimate { mean, low, high }: &Estimate) -> String {
    format!("{mean:.3} [{low:.3}, {high:.3}]")
}

/// The number, its interval below it, and the interval as a bar from 0 to 1 within `range`.
fn markup(Estimate { mean, low, high }: &Estimate, (from, to): (f64, f64)) -> Markup {
    let at = |value: f64| format!("{:.1}%", 100.0 * ((value - from) / (to - from).max(1e-12)).clamp(0.0, 1.0));
    let style = format!("--low:{};--high:{};--mean:{}", at(*low), at(*high), at(*mean));
    html! {
        span class="estimate" {
            b { (format!("{mean:.3}")) }
            small { (format!("{low:.3} to {high:.3}")) }
            i class="bar" style=(style) aria-hidden="true" {}
        }
    }
}

/// Tables over all prompts, by kind and, folded, by prompt.
pub(crate) fn tables(evaluation: &Evaluation) -> Markup {
    let named = |variant: &Variant, what: &str| match &*variant.name {
        Variant::SUBJECT => what.to_owned(),
        name => format!("{what}, {name} model"),
    };
    let variants = &evaluation.variants;
    let mut rows: Vec<_> =
        variants.iter().map(|variant| (named(variant, "all prompts"), &variant.scores.mean)).collect();
    // A kind that all prompts are of has the row above.
    for variant in variants.iter().filter(|variant| variant.scores.kinds.len() > 1) {
        rows.extend(variant.scores.kinds.iter().map(|kind| (named(variant, &kind.kind), &kind.mean)));
    }
    let by_prompt = |variant: &Variant| {
        let prompts = variant.scores.prompts.iter();
        by_row("prompt", &prompts.map(|prompt| (prompt.prompt.clone(), &prompt.mean)).collect::<Vec<_>>())
    };
    html! {
        div {
            (by_row("", &rows))
            p class="note" { (summary(evaluation)) }
            @for line in obeyed(evaluation) { p class="note" { (line) } }
            @for variant in variants {
                details { summary { (named(variant, "each prompt")) } (by_prompt(variant)) }
            }
        }
    }
}

/// How much was scored, and by which CLIP.
fn summary(evaluation: &Evaluation) -> String {
    let prompts = counted(evaluation.subject().map_or(0, |subject| subject.scores.prompts.len()), "prompt");
    let images = counted(evaluation.images_per_prompt, "image");
    format!("{prompts} with {images} each, scored by {}.", evaluation.clip.name)
}

/// How many images show what their prompts ask for, and how far that can be trusted.
fn obeyed(evaluation: &Evaluation) -> Vec<String> {
    let counted = |variant: &Variant| {
        let Share { count, of } = variant.scores.obeyed()?;
        let whose = if variant.name == Variant::SUBJECT { "" } else { " of the base model" };
        Some(format!("{count} of {of} images{whose} show all that their prompts ask for."))
    };
    let mut lines: Vec<String> = evaluation.variants.iter().filter_map(counted).collect();
    if let (false, Some(Share { count, of })) = (lines.is_empty(), evaluation.reader) {
        lines.push(format!("Read by the judge, with which a person agrees on {count} of {of} images."));
    }
    lines
}

/// A table with a row for each named part of an evaluation, and a column for each score that any of them has.
pub(crate) fn by_row(what: &str, rows: &[(String, &Metrics<Estimate>)]) -> Markup {
    let rows: Vec<(&String, Vec<_>)> = rows.iter().map(|(name, metrics)| (name, metrics.named())).collect();
    // Each column has its own range, so that differences show.
    let mut columns: Vec<(&str, (f64, f64))> = Vec::new();
    // A row with all scores that there are has them in their order.
    let mut by_length: Vec<_> = rows.iter().map(|(_, scores)| scores).collect();
    by_length.sort_by_key(|scores| std::cmp::Reverse(scores.len()));
    for (name, Estimate { low, high, .. }) in by_length.into_iter().flatten() {
        match columns.iter_mut().find(|(column, _)| column == name) {
            Some((_, (from, to))) => (*from, *to) = (from.min(*low), to.max(*high)),
            None => columns.push((name, (*low, *high))),
        }
    }
    let cells = rows.iter().map(|(name, scores)| {
        let of = |(column, range): &(&str, (f64, f64))| {
            let found = scores.iter().find(|(name, _)| name == column);
            found.map_or_else(|| cell("–"), |(_, estimate)| markup(estimate, *range))
        };
        ((*name).clone(), columns.iter().map(of).collect())
    });
    table(std::iter::once(what).chain(columns.iter().map(|(name, _)| *name)), cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_that_only_some_rows_have_is_a_column_in_its_place() {
        let estimate = |mean: f64| Estimate { mean, low: mean - 0.1, high: mean + 0.1 };
        let metrics = |masked: Option<f64>| Metrics {
            clip_i: estimate(0.5),
            clip_t: estimate(0.25),
            clip_t_without_category: estimate(0.125),
            clip_i_masked: masked.map(estimate),
            dino_i: None,
            obeyed: None,
        };
        assert_eq!(text(&estimate(0.71234)), "0.712 [0.612, 0.812]");
        let (without, with) = (metrics(None), metrics(Some(0.75)));
        let page = by_row("run", &[("a <b>".to_owned(), &without), ("b".to_owned(), &with)]).into_string();
        let heads: Vec<_> = page.split("scope=\"col\">").skip(1).map(|rest| rest.split('<').next().unwrap()).collect();
        assert_eq!(heads, ["run", "CLIP-I", "CLIP-I, subject only", "CLIP-T", "CLIP-T without the class noun"]);
        assert_eq!(page.matches("–").count(), 1);
        assert!(page.contains("a &lt;b&gt;") && !page.contains("NaN"), "{page}");
    }
}
