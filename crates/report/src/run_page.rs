//! The page of one run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use images::Plot;
use maud::{Markup, PreEscaped, html};
use runs::{Comparison, Ending, Entry, Sample, SampleTime, StopRecord, TrainConfig, layout};

use crate::embedded::Image;
use crate::generated::{Generated, generated};
use crate::page::{Section, figure, sections, slider, table};
use crate::run::{Run, counted, file_name};
use crate::{attention, configuration, embedding, scores};

/// The longer side of a grid in pixels, at most.
const GRID: u32 = 1800;
/// The same of a single image.
const SINGLE: u32 = 512;
/// The same of one among many.
const TILE: u32 = 320;
/// Images of a prompt that are shown, at most.
const OF_PROMPT: usize = 4;

/// A run as a page: one HTML file that needs no other and no network. Whatever is not in the folder is left out.
///
/// # Errors
/// When `folder` holds no run, or a file in it is damaged or has another form; names the file and the key.
pub fn run_page(folder: &Path) -> Result<String> {
    let run = Run::open(folder)?;
    let log = run.log()?;
    let stop = StopRecord::read(run.folder())?;
    let comparison = Comparison::read(&run.folder().join(layout::COMPARISON))?;
    let comparison = comparison.unwrap_or_else(|| Comparison { columns: Vec::new(), rows: Vec::new() });
    let all = [
        ("configuration", "Configuration", Some(configuration::body(&run)?)),
        ("photos", "Contact sheet", contact_sheet(&run)?),
        ("reference", "Reference", reference(&run)?),
        ("curves", "Losses", plots(&runs::curves(&log), CURVE_NOTE)),
        ("stop", "Adaptive length", adaptive_length(run.config(), stop.as_ref())),
        ("samples", "Samples", samples(&run)?),
        ("comparison", "Before and after", before_and_after(&run, &comparison)?),
        ("images", "Images", images(&run, &comparison)?),
        ("scores", "Scores", evaluations(&run)?),
        ("attention", "Attention", attention::body(&run)?),
        ("embedding", "Embedding", embedding::body(&run)?),
    ];
    let all: Vec<_> = all.into_iter().filter_map(|(id, title, body)| Some(Section::new(id, title, body?))).collect();
    Ok(sections(&format!("{} – {}", run.subject(), run.name()), &header(&run, &log, stop.as_ref()), &all))
}

fn header(run: &Run, log: &[Entry], stop: Option<&StopRecord>) -> Markup {
    let config = run.config();
    let configured = config.steps() as u64;
    let done = log.last().map_or(0, |entry| entry.step);
    let steps = match stop.map(|stop| stop.ending) {
        Some(Some(Ending { done: of_phase, taken, .. })) if taken < of_phase => {
            format!("{done} steps, of which the last {} are not taken", of_phase - taken)
        }
        Some(None) => format!("{done} of at most {configured} steps so far"),
        None if done < configured => format!("{done} of {configured} steps so far"),
        None | Some(Some(_)) => format!("{done} steps"),
    };
    let seconds: f64 = log.iter().filter_map(|entry| entry.values.get("seconds")).filter(|value| !value.is_nan()).sum();
    let facts = [
        ("method", config.method.clone()),
        ("class noun", config.category.clone()),
        ("learned from", counted(run.saved().record.photos.len(), "photo")),
        ("training", steps),
        ("time in steps", if seconds > 0.0 { duration(seconds) } else { String::new() }),
        ("base model", file_name(&config.model)),
        ("seed", config.seed.to_string()),
    ];
    html! {
        p class="kicker" { "Training run " (run.name()) }
        h1 { (run.subject()) }
        dl class="facts" {
            @for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
                div { dt { (name) } dd { (value) } }
            }
        }
    }
}

fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

fn contact_sheet(run: &Run) -> Result<Option<Markup>> {
    let path = run.folder().join(layout::CONTACT_SHEET);
    if !path.is_file() {
        return Ok(None);
    }
    let alt = format!("The first augmented crops of {}", run.subject());
    let caption = "What the model sees: the first augmented crops of the photos.";
    Ok(Some(figure(&Image::open(&run.inside(path)?, GRID)?, &alt, caption)))
}

/// Where the reference photo shows the subject, of a run whose model looks at one.
fn reference(run: &Run) -> Result<Option<Markup>> {
    let path = run.folder().join(layout::REFERENCE_MASK);
    if !path.is_file() {
        return Ok(None);
    }
    let alt = format!("The reference photo of {} under its masks", run.subject());
    let caption = "The photo that the model looks at, bright where it takes the subject to be: a column for each layer that looks, a row \
                   for each timestep.";
    Ok(Some(figure(&Image::open(&run.inside(path)?, GRID)?, &alt, caption)))
}

/// Below the losses.
const CURVE_NOTE: &str = "Thin: each step; thick: smoothed. Point at a curve, or move along it with the arrow keys.";

fn plots(plots: &[Plot], note: &str) -> Option<Markup> {
    (!plots.is_empty()).then(|| {
        html! {
            div {
                @for plot in plots {
                    figure class="plot" {
                        // Each screen gets texts of readable size.
                        div class="wide" { (PreEscaped(plot.svg(1000, 320))) }
                        div class="narrow" { (PreEscaped(plot.svg(380, 290))) }
                        p class="reading" aria-live="polite" {}
                    }
                }
                p class="note" { (note) }
            }
        }
    })
}

/// The curve by which a run has stopped, or will.
fn adaptive_length(config: &TrainConfig, record: Option<&StopRecord>) -> Option<Markup> {
    let (stop, record) = (config.stop.as_ref()?, record?);
    let phase = config.phases.get(&record.phase)?;
    let seconds: f64 = record.measurements.iter().map(|at| at.seconds).sum();
    let ending = match record.ending {
        Some(Ending { reason, done, taken }) => {
            format!("stopped after {done} of {} steps, as {}, and took step {taken}", phase.steps, reason.text())
        }
        None => format!("is on its way, of at most {} steps", phase.steps),
    };
    let note = format!(
        "Phase {} {ending}. Gain: 1 - loss / the base model's loss with the class noun, on a fixed batch. {} took {}.",
        record.phase.replace('_', " "),
        counted(record.measurements.len(), "measurement"),
        duration(seconds)
    );
    plots(&record.curves(stop.clip().map(|clip| clip.floor)), &note)
}

/// The prompts at the end, and on the way there.
fn samples(run: &Run) -> Result<Option<Markup>> {
    let mut frames = Vec::new();
    for Sample { path, time, attention } in runs::samples(run.folder())? {
        let name = time.as_ref().map_or_else(|| "at the end".to_owned(), when);
        let shown =
            |path, what: &str| Ok(figure(&Image::open(&run.inside(path)?, GRID)?, &format!("{what}, {name}"), ""));
        let grid: Result<Markup> = shown(path, "Samples");
        let (grid, map) = (grid?, attention.map(|path| shown(path, "Where [V] acts")).transpose()?);
        frames.push((name, html! { (grid) @if let Some(map) = map { (map) } }));
    }
    Ok((!frames.is_empty()).then(|| slider("samples-at", "Samples", &frames)))
}

fn when(SampleTime { number, phase, step }: &SampleTime) -> String {
    format!("phase {number}, {}, step {step}", phase.replace('_', " "))
}

/// The paths of the comparison's images.
fn compared(run: &Run, comparison: &Comparison) -> Vec<Vec<PathBuf>> {
    let folder = run.folder().join(layout::COMPARISON);
    comparison.rows.iter().map(|row| row.images.iter().map(|image| folder.join(image)).collect()).collect()
}

fn before_and_after(run: &Run, comparison: &Comparison) -> Result<Option<Markup>> {
    let mut rows = Vec::new();
    for (row, images) in comparison.rows.iter().zip(compared(run, comparison)) {
        let mut cells = Vec::new();
        for (path, column) in images.into_iter().zip(&comparison.columns) {
            let path = run.inside(path)?;
            if path.is_file() {
                cells.push(figure(&Image::open(&path, SINGLE)?, &format!("{}, {column}", row.prompt), column));
            }
        }
        if !cells.is_empty() {
            rows.push((row.prompt.clone(), cells));
        }
    }
    let head = std::iter::once("prompt").chain(comparison.columns.iter().map(String::as_str));
    Ok((!rows.is_empty()).then(|| html! { div class="image-table" { (table(head, rows)) } }))
}

/// The other generated images, prompt by prompt, the first of each; none of the comparison comes again.
fn images(run: &Run, comparison: &Comparison) -> Result<Option<Markup>> {
    let above: BTreeSet<PathBuf> =
        compared(run, comparison).iter().flatten().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let is_above = |one: &Generated| fs::canonicalize(&one.path).is_ok_and(|path| above.contains(&path));
    let images: Vec<Generated> = generated(run)?.into_iter().filter(|one| !is_above(one)).collect();
    let mut prompts = Vec::new();
    for of_prompt in images.chunk_by(|a, b| a.prompt == b.prompt) {
        let tiles = of_prompt.iter().take(OF_PROMPT).map(|Generated { prompt, seed, path }| {
            let image = Image::open(path, TILE)?;
            Ok(figure(&image, &format!("{prompt}, seed {seed}"), &format!("seed {seed}")))
        });
        prompts.push((&of_prompt[0].prompt, tiles.collect::<Result<Vec<_>>>()?));
    }
    Ok((!prompts.is_empty()).then(|| {
        html! {
            div {
                @for (prompt, tiles) in &prompts {
                    h3 { (prompt) }
                    div class="tiles" { @for tile in tiles { (tile) } }
                }
            }
        }
    }))
}

fn evaluations(run: &Run) -> Result<Option<Markup>> {
    let mut sets = runs::evaluations(run.folder())?;
    sets.retain(|(_, evaluation)| !evaluation.variants.is_empty());
    Ok((!sets.is_empty()).then(|| {
        html! {
            div {
                @for (folder, evaluation) in &sets { h3 { "Prompts: " (file_name(folder)) } (scores::tables(evaluation)) }
                p class="note" {
                    "Means with their bootstrap intervals; higher is better. CLIP-I: likeness to the photos. CLIP-T: likeness "
                    "to the prompt."
                }
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_and_durations_in_words() {
        let time = SampleTime::parse("2-cross_attention-00040").unwrap();
        assert_eq!(when(&time), "phase 2, cross attention, step 40");
        assert_eq!([5.4, 65.0, 7320.0].map(duration), ["5 s", "1 min 5 s", "2 h 2 min"]);
    }
}
