//! The page of one run.

use std::fs;
use std::path::Path;

use anyhow::Result;
use maud::{Markup, PreEscaped, html};
use serde_json::Value;

use crate::embedded::Image;
use crate::generated::{Generated, compared, generated};
use crate::page::{Section, figure, sections, slider, table};
use crate::run::{Run, counted, entries, list, shown, text};
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
/// When `folder` holds no run, or a file in it is damaged.
pub fn run_page(folder: &Path) -> Result<String> {
    let run = Run::open(folder)?;
    let log = run.log()?;
    let all = [
        ("configuration", "Configuration", Some(configuration::body(&run))),
        ("photos", "Contact sheet", contact_sheet(&run)?),
        ("curves", "Losses", curves(&log)),
        ("samples", "Samples", samples(&run)?),
        ("comparison", "Before and after", comparison(&run)?),
        ("images", "Images", images(&run)?),
        ("scores", "Scores", evaluation(&run)?),
        ("attention", "Attention", attention::body(&run)?),
        ("embedding", "Embedding", embedding::body(&run)?),
    ];
    let all: Vec<_> = all.into_iter().filter_map(|(id, title, body)| Some(Section::new(id, title, body?))).collect();
    Ok(sections(&format!("{} – {}", subject(&run), run.name()), &header(&run, &log), &all))
}

fn subject(run: &Run) -> String {
    let subject = run.subject().replace(['_', '-'], " ");
    if subject.is_empty() { run.text("category").to_owned() } else { subject }
}

fn header(run: &Run, log: &[runs::Entry]) -> Markup {
    let stages = configuration::stages(run);
    let configured: u64 = stages.iter().filter_map(|(_, stage)| stage.get("steps")?.as_u64()).sum();
    let done = log.last().map_or(0, |entry| entry.step);
    let steps =
        if done < configured { format!("{done} of {configured} steps so far") } else { format!("{done} steps") };
    let seconds: f64 = log.iter().filter_map(|entry| entry.values.get("seconds")).filter(|value| !value.is_nan()).sum();
    let model = Path::new(run.text("model")).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let facts = [
        ("class noun", run.text("category").to_owned()),
        ("learned from", counted(run.photos.len(), "photo")),
        ("training", steps),
        ("time in steps", if seconds > 0.0 { duration(seconds) } else { String::new() }),
        ("base model", model),
        ("seed", run.config.get("seed").map(shown).unwrap_or_default()),
    ];
    html! {
        p class="kicker" { "AttnDreamBooth run " (run.name()) }
        h1 { (subject(run)) }
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
    let Some(path) = run.image("contact_sheet.png")? else { return Ok(None) };
    let alt = format!("The first augmented crops of {}", subject(run));
    Ok(Some(figure(&Image::open(&path, GRID)?, &alt, "What the model sees: the first augmented crops of the photos.")))
}

fn curves(log: &[runs::Entry]) -> Option<Markup> {
    let plots = runs::curves(log);
    (!plots.is_empty()).then(|| {
        html! {
            div {
                @for plot in &plots {
                    figure class="plot" {
                        // Each screen gets texts of readable size.
                        div class="wide" { (PreEscaped(plot.svg(1000, 320))) }
                        div class="narrow" { (PreEscaped(plot.svg(380, 290))) }
                        p class="reading" aria-live="polite" {}
                    }
                }
                p class="note" {
                    "Thin: each step; thick: smoothed. Point at a curve, or move along it with the arrow keys."
                }
            }
        }
    })
}

/// The prompts at the end, and on the way there.
fn samples(run: &Run) -> Result<Option<Markup>> {
    let mut frames = Vec::new();
    for path in entries(&run.folder.join("validation"))? {
        if path.extension().is_some_and(|extension| extension == "png") {
            let name = when(&path.file_stem().unwrap_or_default().to_string_lossy());
            let figure = figure(&Image::open(&run.inside(path)?, GRID)?, &format!("Samples, {name}"), "");
            frames.push((name, figure));
        }
    }
    if let Some(path) = run.image("samples.png")? {
        let figure = figure(&Image::open(&path, GRID)?, "Samples at the end of the run", "");
        frames.push(("at the end".to_owned(), figure));
    }
    Ok((!frames.is_empty()).then(|| slider("samples-at", "Samples", &frames)))
}

/// `2-cross_attention-00040` in words.
fn when(stem: &str) -> String {
    match stem.splitn(3, '-').collect::<Vec<_>>()[..] {
        [number, stage, step] => {
            format!("stage {number}, {}, step {}", stage.replace('_', " "), step.trim_start_matches('0'))
        }
        _ => stem.to_owned(),
    }
}

/// `comparison/comparison.json`: `{"columns": [..], "rows": [{"prompt": .., "images": [..]}]}`.
fn comparison(run: &Run) -> Result<Option<Markup>> {
    let Some(file) = run.json("comparison/comparison.json")? else { return Ok(None) };
    let columns: Vec<String> = list(&file, "columns").iter().map(shown).collect();
    let mut rows = Vec::new();
    for row in list(&file, "rows") {
        let prompt = text(row, "prompt");
        let mut cells = Vec::new();
        for (image, column) in list(row, "images").iter().filter_map(Value::as_str).zip(&columns) {
            let path = run.inside(run.folder.join("comparison").join(image))?;
            if path.is_file() {
                cells.push(figure(&Image::open(&path, SINGLE)?, &format!("{prompt}, {column}"), column));
            }
        }
        if !cells.is_empty() {
            rows.push((prompt.to_owned(), cells));
        }
    }
    let head = std::iter::once("prompt").chain(columns.iter().map(String::as_str));
    Ok((!rows.is_empty()).then(|| html! { div class="image-table" { (table(head, rows)) } }))
}

/// The other generated images, prompt by prompt, the first of each; none of the comparison comes again.
fn images(run: &Run) -> Result<Option<Markup>> {
    let above = compared(run)?;
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

fn evaluation(run: &Run) -> Result<Option<Markup>> {
    let sets = run.evaluations()?;
    let sets: Vec<_> = sets.iter().filter_map(|(set, file)| Some((set, scores::tables(file)?))).collect();
    Ok((!sets.is_empty()).then(|| {
        html! {
            div {
                @for (set, tables) in &sets { h3 { "Prompts: " (set) } (tables) }
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
    fn stages_and_durations_in_words() {
        assert_eq!(when("2-cross_attention-00040"), "stage 2, cross attention, step 40");
        assert_eq!(when("something"), "something");
        assert_eq!([5.4, 65.0, 7320.0].map(duration), ["5 s", "1 min 5 s", "2 h 2 min"]);
    }
}
