//! Results as tables for people.

use comfy_table::{ContentArrangement, Table, presets};
use operations::{Agreement, ExaminedJudge, Planned, PublishedModel, TablePlanned};
use runs::{Ablation, AblationRow, Differences, Evaluation, InspectedVector, Inspection, Metrics, NearToken, Variant};
use statistics::{Bootstrap, Estimate, Share};
use std::collections::BTreeSet;

/// Columns as wide as their widest cell.
fn table(rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).add_rows(rows);
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    table.trim_fmt()
}

/// The cells of a table, and what they take.
pub(crate) fn table_plan(planned: &TablePlanned) -> String {
    let minutes = |seconds: f64| format!("{:.1} min", seconds / 60.0);
    let methods = [["method", "training", "generating"].map(str::to_owned).to_vec()].into_iter();
    let methods = methods
        .chain(planned.seconds.iter().map(|(name, train, draw)| vec![name.clone(), minutes(*train), minutes(*draw)]));
    let cells = planned.cells.iter().enumerate().map(|(number, (name, done))| {
        vec![number.to_string(), name.clone(), if *done { "done" } else { "" }.to_owned()]
    });
    let left = planned.cells.iter().filter(|(_, done)| !done).count();
    format!(
        "{}\n\n{}\n\n{left} of {} cells are left: about {:.1} h on this machine, one after the other, and up to {:.2} GB of disk for \
         the one that is computed.",
        table(cells),
        table(methods),
        planned.cells.len(),
        planned.left / 3600.0,
        planned.largest_cell as f64 / 1e9
    )
}

/// An evaluation: which CLIP, the means with their intervals, by kind and by prompt.
pub(crate) fn scores(record: &Evaluation) -> String {
    let masked = record.variants.iter().any(|variant| variant.scores.mean.clip_i_masked.is_some());
    let mut rows = vec![vec![String::new(), "CLIP-I".to_owned(), "CLIP-T".to_owned()]];
    rows[0].push(format!("CLIP-T without {:?}", record.category));
    if masked {
        rows[0].push("CLIP-I masked".to_owned());
    }
    if record.variants.iter().any(|variant| variant.scores.mean.dino_i.is_some()) {
        rows[0].push("DINO-I".to_owned());
    }
    if record.variants.iter().any(|variant| variant.scores.mean.obeyed.is_some()) {
        rows[0].push("obeyed".to_owned());
    }
    for Variant { name, scores, .. } in &record.variants {
        rows.push(row(name, &scores.mean, with_interval));
    }
    for Variant { name, scores, .. } in &record.variants {
        rows.push(vec![String::new()]);
        rows.push(vec![format!("{name}, by kind")]);
        for kind in &scores.kinds {
            rows.push(row(&format!("  {} ({})", kind.kind, kind.prompts), &kind.mean, with_interval));
        }
        rows.push(vec![format!("{name}, by prompt")]);
        for prompt in &scores.prompts {
            rows.push(row(&format!("  {}", prompt.prompt), &prompt.mean, |estimate| format!("{:.4}", estimate.mean)));
        }
    }
    format!(
        "{}: {} prompts x {} images, {} photos; scored by {} ({}); {:.0} % intervals\n\n{}\n{}",
        record.prompt_set,
        record.variants.first().map_or(0, |variant| variant.scores.prompts.len()),
        record.images_per_prompt,
        record.photos.len(),
        record.clip.name,
        record.clip.folder.display(),
        record.bootstrap.level * 100.0,
        table(rows),
        obeyed(record)
    )
}

/// How many images show what their prompts ask for, and how far that can be trusted.
fn obeyed(record: &Evaluation) -> String {
    let counted = |variant: &Variant| {
        let Share { count, of } = variant.scores.obeyed()?;
        Some(format!("{}: {count} of {of} images show all that their prompts ask for\n", variant.name))
    };
    let lines: String = record.variants.iter().filter_map(counted).collect();
    let trust = record.reader.filter(|_| !lines.is_empty()).map_or_else(String::new, |Share { count, of }| {
        format!("(read by the judge, with which a person agrees on {count} of {of} images)\n")
    });
    lines + &trust
}

/// How often a person and a judge's reader say the same.
fn read(agreement: &Agreement) -> String {
    let Agreement { obeyed, missed, imagined, background, color, style, things } = agreement;
    let share = |what: &str, share: &Share| vec![what.to_owned(), format!("{} of {}", share.count, share.of)];
    table([
        share("person and reader say the same, whether an image obeys", obeyed),
        vec!["  an image obeys and is said not to".to_owned(), missed.to_string()],
        vec!["  an image does not obey and is said to".to_owned(), imagined.to_string()],
        share("whether it has the background", background),
        share("whether it has the colour", color),
        share("whether it has the style", style),
        share("whether the other thing is there", things),
    ])
}

/// What a judge can see.
pub(crate) fn judge(examined: &ExaminedJudge) -> String {
    let ExaminedJudge { judge, check, failures, agreement } = examined;
    let head = ["", "as drawn", "through the VAE", "target"].map(str::to_owned).to_vec();
    let both = check.pristine.bounds().into_iter().zip(check.rebuilt.bounds());
    let rows = both.map(|(drawn, rebuilt)| {
        vec![drawn.what, format!("{:.3}", drawn.value), format!("{:.3}", rebuilt.value), drawn.least.to_string()]
    });
    let rows = std::iter::once(head).chain(rows);
    let read = agreement
        .as_ref()
        .map_or_else(String::new, |agreement| format!("\nof generated images:\n{}\n", read(agreement)));
    let failures: String = failures.iter().map(|failure| format!("\nfalls short: {failure}")).collect();
    format!("{}\n\n{}\n{read}{failures}", judge.display(), table(rows))
}

fn row(name: &str, scores: &Metrics<Estimate>, show: fn(&Estimate) -> String) -> Vec<String> {
    let all = [Some(scores.clip_i), Some(scores.clip_t), Some(scores.clip_t_without_category)];
    let numbers = all.into_iter().chain([scores.clip_i_masked, scores.dino_i, scores.obeyed]).collect::<Vec<_>>();
    std::iter::once(name.to_owned()).chain(numbers.iter().flatten().map(show)).collect()
}

fn with_interval(Estimate { mean, low, high }: &Estimate) -> String {
    format!("{mean:.4} [{low:.4}, {high:.4}]")
}

/// An ablation: each variant's scores, and how they differ from the whole method's.
pub(crate) fn ablation(ablation: &Ablation) -> String {
    let difference = |Estimate { mean, low, high }: &Estimate| format!("{mean:+.4} [{low:+.4}, {high:+.4}]");
    let mut rows = vec![["", "CLIP-I", "CLIP-T", "against full", "against full"].map(str::to_owned).to_vec()];
    for AblationRow { variant, scores, against_full } in &ablation.variants {
        let differences = against_full.as_ref().map(|Differences { clip_i, clip_t }| [clip_i, clip_t].map(difference));
        let differences = differences.into_iter().flatten();
        let scores = [&scores.clip_i, &scores.clip_t].map(with_interval);
        rows.push(std::iter::once(variant.clone()).chain(scores).chain(differences).collect());
    }
    format!(
        "{} runs each, of {} subject(s); {:.0} % intervals\n{}",
        ablation.runs.len(),
        ablation.runs.iter().map(|(subject, _)| subject).collect::<BTreeSet<_>>().len(),
        100.0 * Bootstrap::default().level,
        table(rows)
    )
}

/// What is known of each vector of a learned embedding.
pub(crate) fn embedding(Inspection { placeholder, vectors, .. }: &Inspection) -> String {
    let mut lines = Vec::new();
    for (i, vector) in vectors.iter().enumerate() {
        let InspectedVector { cosine, start_norm, norm, distance, nearest, category } = vector;
        lines.push(format!("{placeholder}, vector {} of {}", i + 1, vectors.len()));
        lines.push(format!(
            "to its initial value: cosine {cosine:.4}, distance {distance:.4}, norm {start_norm:.4} -> {norm:.4}"
        ));
        let mut rows = vec![["  rank", "cosine", "nearest tokens"].map(str::to_owned).to_vec()];
        let row = |NearToken { token, cosine, rank, .. }: &NearToken, note: &str| {
            vec![format!("{rank:>6}"), format!("{cosine:.4}"), format!("{}{note}", token.trim_end_matches("</w>"))]
        };
        rows.extend(nearest.iter().map(|token| row(token, "")));
        rows.extend(category.iter().map(|token| row(token, " (of the class noun)")));
        lines.push(table(rows));
    }
    lines.join("\n")
}

/// What a run would take.
pub(crate) fn plan(planned: &Planned) -> String {
    let rows = planned.phases.iter().map(|phase| {
        let (steps, seconds) = (phase.steps, phase.seconds_per_step);
        vec![
            format!("phase {}, {}", phase.number, phase.phase),
            format!("{steps} steps"),
            format!("{seconds:.2} s each"),
        ]
    });
    let steps: usize = planned.phases.iter().map(|phase| phase.steps).sum();
    format!(
        "{}\n{steps} steps take about {:.0} min; {:.1} GB of memory at most; {} can be written, and nothing was written",
        table(rows),
        planned.seconds / 60.0,
        planned.peak_memory as f64 / 1e9,
        planned.run.display()
    )
}

/// Published models, their sizes, licences and whether they are here.
pub(crate) fn models(models: &[PublishedModel]) -> String {
    table(models.iter().map(|model| {
        let state = match model.present {
            0 => "not here".to_owned(),
            all if all == model.files => format!("in {}", model.folder.display()),
            some => format!("{some} of {} files in {}", model.files, model.folder.display()),
        };
        let size = format!("{:.1} GB", model.size as f64 / 1e9);
        vec![model.name.clone(), size, model.title.clone(), model.licence.clone(), state]
    }))
}
