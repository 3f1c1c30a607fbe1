//! The page of one run.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::drawn::{Drawn, compared, drawn};
use crate::element::{Element, cell, table};
use crate::page::{Section, document, sections};
use crate::picture::Picture;
use crate::run::{Run, counted, entries, list, shown, text};
use crate::slider::slider;
use crate::{attention, embedding, scores, settings};

pub(crate) const SCRIPT: &str = include_str!("../assets/report.js");
/// The longer side of a grid in pixels, at most.
const GRID: u32 = 1800;
/// The same of a single picture.
const SINGLE: u32 = 512;
/// The same of one among many.
const TILE: u32 = 320;
/// Pictures of a prompt that are shown, at most.
const OF_PROMPT: usize = 4;

/// A run as a page: one HTML file that needs no other and no network. Whatever is not in the folder is left out.
///
/// # Errors
/// When `folder` holds no run, or a file in it is damaged.
pub fn run_page(folder: &Path) -> Result<String> {
    let run = Run::open(folder)?;
    let log = run.log()?;
    let all = [
        Some(Section::new("configuration", "Configuration", settings::element(&run))),
        contact_sheet(&run)?,
        curves(&log),
        samples(&run)?,
        comparison(&run)?,
        pictures(&run)?,
        evaluation(&run)?,
        attention::element(&run)?.map(|body| Section::new("attention", "Attention", body)),
        embedding::element(&run)?.map(|body| Section::new("embedding", "Embedding", body)),
    ];
    let [contents, main] = sections(all.into_iter().flatten().collect());
    let title = format!("{} – {}", subject(&run), run.name());
    Ok(document(&title, SCRIPT, [header(&run, &log), contents, main, lightbox()]))
}

fn subject(run: &Run) -> String {
    let subject = run.subject().replace(['_', '-'], " ");
    if subject.is_empty() { run.text("category").to_owned() } else { subject }
}

fn header(run: &Run, log: &[runs::Entry]) -> Element {
    let configured: u64 = settings::stages(run).iter().filter_map(|(_, stage)| stage.get("steps")?.as_u64()).sum();
    let done = log.last().map_or(0, |entry| entry.step);
    let steps =
        if done < configured { format!("{done} of {configured} steps so far") } else { format!("{done} steps") };
    let seconds: f64 = log.iter().filter_map(|entry| entry.values.get("seconds")).filter(|value| !value.is_nan()).sum();
    let model = Path::new(run.text("model")).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let facts = [
        ("category", run.text("category").to_owned()),
        ("learned from", counted(run.photos.len(), "photo")),
        ("training", steps),
        ("time in steps", if seconds > 0.0 { duration(seconds) } else { String::new() }),
        ("base model", model),
        ("seed", run.config.get("seed").map(shown).unwrap_or_default()),
    ];
    let facts = facts
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| Element::new("div").child(Element::of("dt", name)).child(Element::of("dd", value)));
    Element::new("header")
        .child(Element::of("p", format!("AttnDreamBooth run {}", run.name())).class("kicker"))
        .child(Element::of("h1", subject(run)))
        .child(Element::new("dl").class("facts").children(facts))
}

fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

/// A dialog in which a picture is shown large; the script fills it.
pub(crate) fn lightbox() -> Element {
    Element::new("dialog").attr("id", "large").attr("aria-label", "Picture, large")
}

/// A picture with a caption, which the script shows large when asked.
pub(crate) fn figure(picture: &Picture, alt: &str, caption: &str) -> Element {
    let caption = (!caption.is_empty()).then(|| Element::of("figcaption", caption));
    let button = Element::new("button").class("zoom").attr("type", "button").child(picture.img(alt));
    Element::new("figure").child(button).child(caption)
}

fn contact_sheet(run: &Run) -> Result<Option<Section>> {
    let Some(path) = run.image("contact_sheet.png")? else { return Ok(None) };
    let alt = format!("The training views of {}", subject(run));
    let body = figure(&Picture::open(&path, GRID)?, &alt, "What the model sees: the first training views.");
    Ok(Some(Section::new("photos", "Contact sheet", body)))
}

fn curves(log: &[runs::Entry]) -> Option<Section> {
    let plots = runs::curves(log);
    let figures = plots.iter().map(|plot| {
        // Each screen gets texts of readable size.
        let wide = Element::new("div").class("wide").raw(&plot.svg(1000, 320));
        let narrow = Element::new("div").class("narrow").raw(&plot.svg(380, 290));
        let reading = Element::new("p").class("reading").attr("aria-live", "polite");
        Element::new("figure").class("plot").child(wide).child(narrow).child(reading)
    });
    let note =
        Element::of("p", "Thin: each step; thick: smoothed. Point at a curve, or move along it with the arrow keys.");
    let body = Element::new("div").children(figures).child(note.class("note"));
    (!plots.is_empty()).then(|| Section::new("curves", "Losses", body))
}

/// The prompts at the end, and on the way there.
fn samples(run: &Run) -> Result<Option<Section>> {
    let mut views = Vec::new();
    for path in entries(&run.folder.join("validation"))? {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "png") {
            let name = moment(&stem);
            let alt = format!("Samples, {name}");
            views.push((name, figure(&Picture::open(&run.inside(path)?, GRID)?, &alt, "")));
        }
    }
    if let Some(path) = run.image("samples.png")? {
        views
            .push(("at the end".to_owned(), figure(&Picture::open(&path, GRID)?, "Samples at the end of the run", "")));
    }
    let some = !views.is_empty();
    Ok(some.then(|| Section::new("samples", "Samples", slider("samples-at", "Samples", views))))
}

/// `2-cross_attention-00040` in words.
fn moment(stem: &str) -> String {
    match stem.splitn(3, '-').collect::<Vec<_>>()[..] {
        [number, stage, step] => {
            format!("stage {number}, {}, step {}", stage.replace('_', " "), step.trim_start_matches('0'))
        }
        _ => stem.to_owned(),
    }
}

/// `comparison/comparison.json`: `{"columns": [..], "rows": [{"prompt": .., "images": [..]}]}`.
fn comparison(run: &Run) -> Result<Option<Section>> {
    let Some(file) = run.json("comparison/comparison.json")? else { return Ok(None) };
    let columns: Vec<String> = list(&file, "columns").iter().map(shown).collect();
    let mut rows = Vec::new();
    for row in list(&file, "rows") {
        let prompt = text(row, "prompt");
        let mut cells = Vec::new();
        for (image, column) in list(row, "images").iter().filter_map(Value::as_str).zip(&columns) {
            let path = run.inside(run.folder.join("comparison").join(image))?;
            if !path.is_file() {
                continue;
            }
            let picture = Picture::open(&path, SINGLE)?;
            cells.push(figure(&picture, &format!("{prompt}, {column}"), column));
        }
        if !cells.is_empty() {
            rows.push((prompt.to_owned(), cells));
        }
    }
    let head = std::iter::once("prompt").chain(columns.iter().map(String::as_str));
    let some = !rows.is_empty();
    let body = Element::new("div").class("pictures").child(table(head, rows));
    Ok(some.then(|| Section::new("comparison", "Before and after", body)))
}

/// What else the run has drawn, prompt by prompt, the first of each; no picture of the comparison comes again.
fn pictures(run: &Run) -> Result<Option<Section>> {
    let above = compared(run)?;
    let shown = |one: &Drawn| fs::canonicalize(&one.path).is_ok_and(|path| above.contains(&path));
    let drawn: Vec<Drawn> = drawn(run)?.into_iter().filter(|one| !shown(one)).collect();
    let mut body = Element::new("div");
    for of_prompt in drawn.chunk_by(|a, b| a.prompt == b.prompt) {
        let mut tiles = Element::new("div").class("tiles");
        for Drawn { prompt, seed, path } in of_prompt.iter().take(OF_PROMPT) {
            let picture = Picture::open(path, TILE)?;
            tiles = tiles.child(figure(&picture, &format!("{prompt}, seed {seed}"), &format!("seed {seed}")));
        }
        body = body.child(Element::of("h3", &of_prompt[0].prompt)).child(tiles);
    }
    Ok((!drawn.is_empty()).then(|| Section::new("pictures", "Pictures", body)))
}

fn evaluation(run: &Run) -> Result<Option<Section>> {
    let mut body = Element::new("div");
    let mut some = false;
    for (set, file) in run.evaluations()? {
        if let Some(element) = scores::element(&file) {
            body = body.child(Element::of("h3", format!("Prompts: {set}"))).child(element);
            some = true;
        }
    }
    let note = "Means with their bootstrap intervals; higher is better. CLIP-I: likeness to the photos. CLIP-T: likeness \
                to the prompt.";
    Ok(some.then(|| Section::new("scores", "Scores", body.child(Element::of("p", note).class("note")))))
}

/// Names and values.
pub(crate) fn pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Element {
    let rows = pairs.into_iter().map(|(name, value)| (name, vec![cell(value)]));
    table(["", ""], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_durations_in_words() {
        assert_eq!(moment("2-cross_attention-00040"), "stage 2, cross attention, step 40");
        assert_eq!(moment("something"), "something");
        assert_eq!([5.4, 65.0, 7320.0].map(duration), ["5 s", "1 min 5 s", "2 h 2 min"]);
    }
}
