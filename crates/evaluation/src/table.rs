//! An evaluation as a table.

use std::fmt::Write;

use runs::{Estimate, Evaluation, Metrics, Variant};

/// The table of an evaluation: which CLIP, the means with their intervals, by kind and by prompt.
pub fn table(evaluation: &Evaluation) -> String {
    let masked = evaluation.variants.iter().any(|variant| variant.scores.mean.clip_i_masked.is_some());
    let mut rows = vec![vec![String::new(), "CLIP-I".to_owned(), "CLIP-T".to_owned()]];
    rows[0].push(format!("CLIP-T without {:?}", evaluation.category));
    if masked {
        rows[0].push("CLIP-I masked".to_owned());
    }
    for Variant { name, scores, .. } in &evaluation.variants {
        rows.push(row(name, &scores.mean, &with_interval));
    }
    for Variant { name, scores, .. } in &evaluation.variants {
        rows.push(Vec::new());
        rows.push(vec![format!("{name}, by kind")]);
        for kind in &scores.kinds {
            rows.push(row(&format!("  {} ({})", kind.kind, kind.prompts), &kind.mean, &with_interval));
        }
        rows.push(vec![format!("{name}, by prompt")]);
        for prompt in &scores.prompts {
            rows.push(row(&format!("  {}", prompt.prompt), &prompt.mean, &|estimate| format!("{:.4}", estimate.mean)));
        }
    }
    let prompts = evaluation.variants.first().map_or(0, |variant| variant.scores.prompts.len());
    format!(
        "{}: {prompts} prompts x {} images, {} photos; scored by {} ({}); {:.0} % intervals\n\n{}",
        evaluation.prompt_set,
        evaluation.images_per_prompt,
        evaluation.photos.len(),
        evaluation.clip.name,
        evaluation.clip.folder.display(),
        evaluation.bootstrap.level * 100.0,
        align(&rows)
    )
}

fn row(name: &str, scores: &Metrics<Estimate>, show: &dyn Fn(&Estimate) -> String) -> Vec<String> {
    let numbers =
        [Some(scores.clip_i), Some(scores.clip_t), Some(scores.clip_t_without_category), scores.clip_i_masked];
    std::iter::once(name.to_owned()).chain(numbers.iter().flatten().map(show)).collect()
}

fn with_interval(estimate: &Estimate) -> String {
    format!("{:.4} [{:.4}, {:.4}]", estimate.mean, estimate.low, estimate.high)
}

/// Columns as wide as their widest cell.
fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
