//! A blind study as in the paper (section 5.2, appendix H): a photo, a prompt, and two pictures to choose from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::comparison::Comparison;
use crate::drawn::Drawn;
use crate::element::Element;
use crate::page::document;
use crate::picture::Picture;
use crate::run::Run;

const SCRIPT: &str = include_str!("../assets/study.js");
/// All pictures have this as their longer side, in pixels.
const SIDE: u32 = 512;

/// How a study is made.
#[derive(Debug, Clone)]
pub struct StudyOptions {
    /// Questions at most; in the paper, each participant answered 20.
    pub questions: usize,
    /// Decides which pictures are asked about, in which order, and which is on the left.
    pub seed: u64,
    /// The photo to show; the first of the run's own if none is given.
    pub reference: Option<PathBuf>,
}

/// What a study's page does not show: it is in the page and its answers, encoded, so that nobody reads it by accident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    /// The names of the runs.
    pub(crate) runs: Vec<String>,
    pub(crate) questions: Vec<Question>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) prompt: String,
    pub(crate) seed: u64,
    /// The index of the run whose picture is on the left.
    pub(crate) left: usize,
    pub(crate) right: usize,
}

impl Key {
    pub(crate) fn seal(&self) -> Result<String> {
        Ok(BASE64_STANDARD.encode(serde_json::to_vec(self)?))
    }

    pub(crate) fn unseal(sealed: &str) -> Result<Self> {
        Ok(serde_json::from_slice(&BASE64_STANDARD.decode(sealed)?)?)
    }

    /// Compares the first run with each of the others, as often with one as with another: first one picture of each prompt,
    /// then a second. The first run is on the left in half of the questions.
    fn choose(comparison: &Comparison, options: &StudyOptions) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(options.seed);
        let Some((first, others)) = comparison.pictures.split_first() else {
            unreachable!("there are two runs or more")
        };
        let mut questions = Vec::new();
        for (i, other) in others.iter().enumerate() {
            let mut shared: Vec<&Drawn> =
                first.iter().filter(|one| other.iter().any(|other| other.matches(one))).collect();
            shuffle(&mut shared, &mut random);
            let mut shared: Vec<(usize, &Drawn)> = shared
                .iter()
                .enumerate()
                .map(|(at, one)| (shared[..at].iter().filter(|before| before.prompt == one.prompt).count(), *one))
                .collect();
            shared.sort_by_key(|(before, _)| *before);
            // What does not divide evenly goes to the first ones.
            let count = (options.questions + others.len() - 1 - i) / others.len();
            shared.truncate(count);
            let mut sides: Vec<bool> = (0..shared.len()).map(|at| at % 2 == 0).collect();
            shuffle(&mut sides, &mut random);
            for ((_, one), is_left) in shared.into_iter().zip(sides) {
                let (left, right) = if is_left { (0, i + 1) } else { (i + 1, 0) };
                questions.push(Question { prompt: one.prompt.clone(), seed: one.seed, left, right });
            }
        }
        shuffle(&mut questions, &mut random);
        Self { runs: comparison.names.clone(), questions }
    }
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T], random: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        // The bias of the remainder, 2^-50 at most, is nothing here.
        items.swap(last, (random.next_u64() % (last as u64 + 1)) as usize);
    }
}

impl Comparison {
    /// The page of a blind study: which run a picture is of is not to be seen, neither in it nor in its file's size, name
    /// or parameters. Answers are kept in the browser and saved as a file for [`tally`](crate::tally).
    ///
    /// # Errors
    /// When the runs are of different subjects or have no pictures of equal prompts and seeds, there is no photo to show,
    /// or a picture cannot be read.
    pub fn study(&self, options: &StudyOptions) -> Result<String> {
        ensure!(options.questions > 0, "a study needs at least one question");
        let first = &self.runs[0];
        for (run, name) in self.runs.iter().zip(&self.names) {
            ensure!(
                run.photos == first.photos && run.text("category") == first.text("category"),
                "{name} and {} have learned from different photos; a study asks about runs of one subject",
                self.names[0]
            );
        }
        let key = Key::choose(self, options);
        ensure!(
            !key.questions.is_empty(),
            "the runs have no pictures of the same prompt and seed; have them drawn by `evaluate` with equal options, or by \
             `generate --run RUN --out RUN/pictures`"
        );
        let photo = Picture::anonymous(&reference(first, options.reference.as_deref())?, SIDE)?;
        let sealed = key.seal()?;
        let id: String = Sha256::digest(&sealed).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let mut questions = Vec::new();
        for (i, question) in key.questions.iter().enumerate() {
            questions.push(self.question(i, question)?);
        }
        let category = first.text("category");
        let head = Element::new("div")
            .class("ask")
            .child(photo.img(&format!("Photo of the {category}")).attr("id", "photo"))
            .child(Element::new("div").child(Element::new("p").attr("id", "prompt")).child(Element::of("p", QUESTION)));
        let back = Element::of("button", "Back").attr("type", "button").attr("id", "back");
        let progress =
            Element::new("progress").attr("max", key.questions.len()).attr("aria-label", "Questions answered");
        let bar = Element::new("div")
            .class("bar-row")
            .child(back)
            .child(progress)
            .child(Element::new("span").attr("id", "count"));
        let asking =
            Element::new("div").attr("id", "asking").flag("hidden", true).child(bar).child(head).children(questions);
        let main = Element::new("main")
            .attr("id", "study")
            .attr("data-study", id)
            .attr("data-sealed", sealed)
            .child(intro(category, key.questions.len()))
            .child(asking)
            .child(end());
        Ok(document("Which picture is better?", SCRIPT, [main]))
    }

    fn question(&self, number: usize, question: &Question) -> Result<Element> {
        let Question { prompt, seed, left, right } = question;
        let picture = |run: usize, place: &str, key: &str| -> Result<Element> {
            let found = self.pictures[run].iter().find(|one| one.prompt == *prompt && one.seed == *seed);
            let found = found.with_context(|| format!("{} has lost a picture of {prompt:?}", self.names[run]))?;
            let img = Picture::anonymous(&found.path, SIDE)?.img(&format!("The {place} picture"));
            let caption = Element::of("kbd", key);
            Ok(Element::new("button").attr("type", "button").attr("data-choice", place).child(img).child(caption))
        };
        Ok(Element::new("section")
            .class("question")
            .attr("aria-label", format!("Question {}", number + 1))
            .attr("data-prompt", without_placeholder(prompt))
            .flag("hidden", true)
            .child(picture(*left, "left", "1")?)
            .child(picture(*right, "right", "2")?))
    }
}

/// What the paper asked of its participants.
const QUESTION: &str = "Which picture better keeps the identity of what the photo shows, and better matches the text?";

fn intro(category: &str, questions: usize) -> Element {
    let text = format!(
        "You will see a photo of a {category}, a text, and two pictures that were generated from both. Choose the one that \
         better keeps the identity of what the photo shows and better matches the text. There are {questions} questions."
    );
    Element::new("div")
        .attr("id", "intro")
        .child(Element::of("h1", "Which picture is better?"))
        .child(Element::of("p", text))
        .child(Element::of(
            "p",
            "Click or touch a picture, or press 1 or the left arrow key for the left one, 2 or the right arrow key for the \
             right one; Backspace goes back. Answers are kept in this browser if you leave and come back.",
        ))
        .child(Element::of("button", "Start").attr("type", "button").attr("id", "start").class("main"))
}

fn end() -> Element {
    Element::new("div")
        .attr("id", "end")
        .flag("hidden", true)
        .child(Element::of("h1", "Thank you"))
        .child(Element::of(
            "p",
            "All questions are answered. Save the answers, and send the file to whoever asked you.",
        ))
        .child(Element::of("button", "Save the answers").attr("type", "button").attr("id", "save").class("main"))
        .child(Element::of("p", "").attr("id", "saved").attr("role", "status"))
        .child(Element::of("button", "Answer again from the start").attr("type", "button").attr("id", "again"))
}

/// A prompt as participants read it: they know nothing of placeholders.
fn without_placeholder(prompt: &str) -> String {
    prompt.replace("[V] ", "").replace("[V]", "").trim().to_owned()
}

fn reference(run: &Run, given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    match run.photo() {
        Some(photo) => Ok(photo),
        None => bail!(
            "the photos that {} learned from are no longer in {:?}, or have changed; name one to show with --reference",
            run.folder.display(),
            run.text("concept")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_keeps_everything_and_every_order_is_as_likely() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..6000 {
            let mut items = [1, 2, 3];
            shuffle(&mut items, &mut random);
            *counts.entry(items).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        // Five standard deviations of a binomial of 6000 draws with p = 1/6.
        assert!(counts.values().all(|count| (*count - 1000_i32).abs() < 145), "{counts:?}");
    }

    #[test]
    fn participants_see_no_placeholder() {
        assert_eq!(without_placeholder("a [V] dog on the beach"), "a dog on the beach");
        assert_eq!(without_placeholder("[V]"), "");
    }

    #[test]
    fn a_key_reads_back_and_cannot_be_read_by_accident() {
        let question = Question { prompt: "a [V] dog".into(), seed: u64::MAX, left: 1, right: 0 };
        let key = Key { runs: vec!["run-a".into(), "run-b".into()], questions: vec![question] };
        let sealed = key.seal().unwrap();
        assert!(!sealed.contains("run"));
        assert_eq!(Key::unseal(&sealed).unwrap(), key);
    }
}
