//! A table of methods as a page.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use images::{Point, Scatter};
use maud::{Markup, PreEscaped, html};
use statistics::{Compared, Estimate, Verdict};
use tables::{Against, Cell, Cost, Row, System, Table, TablePlan, cells};

use crate::embedded::Image;
use crate::page::{Section, cell, figure, sections, table};
use crate::scores::text;
use crate::study::{Candidate, StudyOptions, study};
use crate::{Preference, Tally};

/// The longer side of an image in pixels, at most.
const SIDE: u32 = 256;
/// That of a figure.
const WIDE: u32 = 900;

/// The table in a folder as one page: numbers, intervals and verdicts, the methods among each other, and what they have generated.
///
/// # Errors
/// When an image cannot be read.
pub fn table_page(made: &Table, plan: &TablePlan, folder: &Path, study: Option<&Tally>) -> Result<String> {
    let all = cells(plan);
    let mut parts = vec![
        Section::new("table", "Table", numbers(made)),
        Section::new("scatter", "Identity and text", scatter(made)),
        Section::new("kinds", "By kind of prompt", by_kind(made)),
        Section::new("cost", "What it takes", costs(made)),
    ];
    let figures = Figures { made, plan, all: &all, folder };
    let more = [
        ("images", "Images", figures.images()?),
        ("attention", "Attention", figures.of_weights("attention/grid.png", "attention to the words of the prompt")?),
        (
            "embedding",
            "The learned word alone",
            figures.of_weights("embedding/grid.png", "[V] alone, before and after")?,
        ),
    ];
    parts.extend(more.into_iter().filter_map(|(id, title, body)| Some(Section::new(id, title, body?))));
    parts.push(Section::new("study", "User study", study.map_or_else(not_collected, preferences)));
    let header = html! { p class="kicker" { "AttnDreamBooth" } h1 { (made.name) } };
    Ok(sections(&made.name, &header, &parts))
}

/// The page of a blind study of a table's images: the reference against each other method, over all subjects that are done. The
/// photo of a subject is the one of its number in `photos`.
///
/// # Errors
/// When there are no two images to choose from, or one cannot be read.
pub fn table_study(
    made: &Table,
    plan: &TablePlan,
    folder: &Path,
    photos: &[PathBuf],
    options: &StudyOptions,
) -> Result<String> {
    let all = cells(plan);
    let prompts = plan.plan(0)?.prompts.prompts;
    let cell_of = |other: &Cell<'_>, name: &str| {
        all.iter().find(|cell| cell.row() == name && cell.subject == other.subject && cell.seed == other.seed)
    };
    let candidates = |name: &str| -> Vec<Candidate> {
        let mut found = Vec::new();
        for other in
            all.iter().filter(|cell| cell.row() == name && made.subjects.iter().any(|done| done == cell.subject()))
        {
            let Some(first) = cell_of(other, &plan.reference) else { continue };
            let category = &plan.subjects[other.subject].category;
            for (number, prompt) in prompts.iter().enumerate() {
                let [first, other_image] =
                    [first, other].map(|cell| cell.folder(folder).join("figures").join(format!("{number:03}.png")));
                if first.exists() && other_image.exists() {
                    found.push(Candidate {
                        subject: Some(other.subject().to_owned()),
                        photo: photos[other.subject].clone(),
                        category: category.clone(),
                        prompt: prompt.with(category),
                        seed: other.seed,
                        first,
                        other: other_image,
                    });
                }
            }
        }
        found
    };
    let others = plan.methods.iter().map(|method| method.name.as_str()).filter(|name| *name != plan.reference);
    let (names, shared): (Vec<String>, Vec<Vec<Candidate>>) =
        others.map(|name| (name.to_owned(), candidates(name))).filter(|(_, shared)| !shared.is_empty()).unzip();
    ensure!(
        !names.is_empty(),
        "no two methods have images of a subject that is done, so there is nothing to choose from"
    );
    study([vec![plan.reference.clone()], names].concat(), shared, options)
}

fn not_collected() -> Markup {
    html! {
        p class="note" {
            "Not collected: " code { "table study" } " makes a page to send to people, and " code { "table collect --answers" }
            " counts what they send back."
        }
    }
}

/// How often the reference was preferred (the paper's table 2).
fn preferences(tally: &Tally) -> Markup {
    let row = |preference: &Preference| {
        let Estimate { mean, low, high } = preference.share();
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        let share = format!("{} ({} to {})", percent(mean), percent(low), percent(high));
        let answers = format!("{} of {}", preference.wins, preference.answers);
        (format!("{} to {}", preference.run, preference.other), vec![cell(share), cell(answers)])
    };
    html! {
        (table(["preferred", "share", "answers"], tally.preferences.iter().map(row)))
        p class="note" { (tally.participants) " participant(s); " (tally.interval()) "." }
    }
}

fn numbers(made: &Table) -> Markup {
    let dino = made.rows.iter().any(|row| row.dino.is_some()).then_some("DINO-I");
    let obeyed = made.rows.iter().any(|row| row.obeyed.is_some()).then_some("obeyed");
    let head = ["", "identity (CLIP-I)"].into_iter().chain(dino);
    let head = head.chain(["text (CLIP-T)"]).chain(obeyed).chain(["identity: difference", "text: difference"]);
    let against = |against: &Against| {
        [(against.identity, against.identity_verdict), (against.text, against.text_verdict)].map(
            |(compared, verdict)| {
                let Compared { difference: Estimate { mean, low, high }, adjusted_p_value, .. } = compared;
                html! {
                    span class="estimate" {
                        b { (format!("{mean:+.3}")) }
                        small { (format!("{low:+.3} to {high:+.3}, p = {adjusted_p_value:.3}")) }
                        small { (said(verdict)) }
                    }
                }
            },
        )
    };
    let row = |row: &Row| {
        let differences = row.against.as_ref().map_or([cell(""), cell("")], against);
        let of_some = |score: &Option<Estimate>| cell(score.as_ref().map_or_else(|| "–".to_owned(), text));
        let (of_dino, obeyed) = (dino.map(|_| of_some(&row.dino)), obeyed.map(|_| of_some(&row.obeyed)));
        let scores = std::iter::once(cell(text(&row.identity))).chain(of_dino).chain([cell(text(&row.text))]);
        (row.name.clone(), scores.chain(obeyed).chain(differences).collect())
    };
    html! {
        (table(head, made.rows.iter().map(row)))
        @for note in made.notes() { p class="note" { (note) } }
    }
}

fn said(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "better: holds",
        Verdict::DoesNotHold => "better: does not hold",
        Verdict::CannotBeTold => "cannot be told",
    }
}

fn scatter(made: &Table) -> Markup {
    let three = |Estimate { mean, low, high }: Estimate| [low, mean, high];
    let point = |plot: Scatter, row: &Row| {
        plot.point(Point { name: row.name.clone(), x: three(row.identity), y: three(row.text) })
    };
    let plot = Scatter::new("further right and further up is better", "identity (CLIP-I)", "text (CLIP-T)");
    let plot = made.rows.iter().fold(plot, point);
    html! { div class="plot" { (PreEscaped(plot.svg(900, 560))) } }
}

fn by_kind(made: &Table) -> Markup {
    let kinds: Vec<&str> = made.rows.iter().flat_map(|row| &row.kinds).map(|kind| kind.kind.as_str()).collect();
    let mut unique: Vec<&str> = Vec::new();
    kinds.into_iter().for_each(|kind| {
        if !unique.contains(&kind) {
            unique.push(kind);
        }
    });
    type Pick = fn(&tables::KindRow) -> Option<&Estimate>;
    let of = |row: &Row, kind: &str, pick: Pick| {
        let found = row.kinds.iter().find(|found| found.kind == kind).and_then(pick);
        cell(found.map_or_else(|| "–".to_owned(), text))
    };
    let read = made.rows.iter().flat_map(|row| &row.kinds).any(|kind| kind.obeyed.is_some());
    let one = |title: &str, pick: Pick| {
        let head = std::iter::once("").chain(unique.iter().copied());
        let rows = made.rows.iter().filter(|row| !row.kinds.is_empty());
        let rows = rows.map(|row| (row.name.clone(), unique.iter().map(|kind| of(row, kind, pick)).collect()));
        html! { h3 { (title) } (table(head, rows)) }
    };
    html! {
        (one("Identity", |kind| Some(&kind.identity)))
        (one("Text", |kind| Some(&kind.text)))
        @if read { (one("Obeyed", |kind| kind.obeyed.as_ref())) }
    }
}

fn costs(made: &Table) -> Markup {
    let head = [
        "",
        "steps",
        "training",
        "generating",
        "memory",
        "trained parameters",
        "learned files",
        "cosine of the embedding to its start",
    ];
    let row = |row: &Row| {
        let cosine = row.embedding_cosine.map_or_else(|| "–".to_owned(), |cosine| format!("{cosine:.4}"));
        let seconds = format!("{:.0} s", row.generate_seconds);
        let cells = match row.cost {
            Some(Cost { train_seconds, steps, peak_memory, trained_parameters, learned_bytes }) => [
                steps.to_string(),
                format!("{train_seconds:.0} s"),
                seconds,
                format!("{:.2} GB", peak_memory as f64 / 1e9),
                format!("{:.3} M", trained_parameters as f64 / 1e6),
                format!("{:.2} MB", learned_bytes as f64 / 1e6),
                cosine,
            ],
            None => ["–".to_owned(), "–".to_owned(), seconds, "–".to_owned(), "–".to_owned(), "–".to_owned(), cosine],
        };
        (row.name.clone(), cells.iter().map(cell).collect())
    };
    html! {
        (table(head, made.rows.iter().skip(1).map(row)))
        p class="note" { "Means over runs; the memory is the most of any, of tensors on a GPU and of the process on a CPU." }
    }
}

/// What cells have drawn.
struct Figures<'a> {
    made: &'a Table,
    plan: &'a TablePlan,
    all: &'a [Cell<'a>],
    folder: &'a Path,
}

impl Figures<'_> {
    /// The cells of a subject from the first seed, the base model first.
    fn of_subject(&self, subject: usize) -> impl Iterator<Item = &Cell<'_>> {
        let first = self.plan.seeds.first().copied();
        let cells = self.all.iter().filter(move |cell| cell.subject == subject && Some(cell.seed) == first);
        cells.filter(|cell| cell.system != System::Real)
    }

    fn subjects(&self) -> impl Iterator<Item = (usize, &str)> {
        let subjects = self.plan.subjects.iter().enumerate().map(|(number, subject)| (number, subject.name.as_str()));
        subjects.filter(|(_, name)| self.made.subjects.iter().any(|done| done == name))
    }

    /// Methods as columns, prompts as rows (the paper's figures 6 and 8), for each subject.
    fn images(&self) -> Result<Option<Markup>> {
        let prompts = self.plan.plan(0)?.prompts.prompts;
        let mut parts = Vec::new();
        for (subject, name) in self.subjects() {
            let columns: Vec<&Cell<'_>> = self.of_subject(subject).collect();
            let mut rows = Vec::new();
            for (number, prompt) in prompts.iter().enumerate() {
                let path = |cell: &Cell<'_>| cell.folder(self.folder).join("figures").join(format!("{number:03}.png"));
                if !columns.iter().any(|cell| path(cell).exists()) {
                    continue;
                }
                let said = prompt.with("[V]");
                let shown = columns.iter().map(|column| match path(column) {
                    path if path.exists() => {
                        let alt = format!("{said}, {name}, {}", column.row());
                        Ok(figure(&Image::open(&path, SIDE)?, &alt, ""))
                    }
                    _ => Ok(cell("–")),
                });
                rows.push((said.clone(), shown.collect::<Result<Vec<_>>>()?));
            }
            if !rows.is_empty() {
                let head = std::iter::once("").chain(columns.iter().map(|cell| cell.row()));
                parts.push(html! { h3 { (name) } div class="image-table" { (table(head, rows)) } });
            }
        }
        Ok((!parts.is_empty()).then(|| html! { @for part in parts { (part) } }))
    }

    /// One figure of each method, of the first subject (the paper's figures 2 and 4).
    fn of_weights(&self, file: &str, what: &str) -> Result<Option<Markup>> {
        let Some((subject, name)) = self.subjects().next() else { return Ok(None) };
        let mut shown = Vec::new();
        for cell in self.of_subject(subject) {
            let path = cell.folder(self.folder).join("figures").join(file);
            if path.exists() {
                let alt = format!("{}, {name}: {what}", cell.row());
                shown.push(figure(&Image::open(&path, WIDE)?, &alt, cell.row()));
            }
        }
        Ok((!shown.is_empty()).then(|| html! { @for one in shown { (one) } p class="note" { (name) ": " (what) "." } }))
    }
}
