//! A blind study as in the paper (section 5.2, appendix H): a photo, a prompt, and two images to choose from.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{Markup, html};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::comparison::Comparison;
use crate::embedded::Image;
use crate::generated::Generated;
use crate::page::document;
use crate::run::Run;

const SCRIPT: &str = include_str!("../assets/study.js");
/// The longer side of all images in pixels.
const SIDE: u32 = 512;

/// How a study is made.
#[derive(Debug, Clone)]
pub struct StudyOptions {
    /// Questions at most; in the paper, each participant answered 20.
    pub questions: usize,
    /// Decides which images are asked about, in which order, and which is on the left.
    pub seed: u64,
    /// The photo to show; the first of the run's own if none is given.
    pub reference: Option<PathBuf>,
}

/// What a study's page does not show: it is in the page and its answers, encoded, so that nobody reads it by accident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    /// The names of what is compared: the first with each of the others.
    pub(crate) runs: Vec<String>,
    pub(crate) questions: Vec<Question>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    /// Whom the images show, where a study asks about several subjects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<String>,
    pub(crate) prompt: String,
    pub(crate) seed: u64,
    /// The index of the run whose image is on the left.
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
}

/// Two images of one prompt and seed that may be asked about.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) subject: Option<String>,
    /// A photo of the subject.
    pub(crate) photo: PathBuf,
    pub(crate) category: String,
    pub(crate) prompt: String,
    pub(crate) seed: u64,
    /// The image of what is compared with the others.
    pub(crate) first: PathBuf,
    /// The image of the other.
    pub(crate) other: PathBuf,
}

/// A question with what it shows.
struct Asked {
    question: Question,
    candidate: Candidate,
}

/// Of each other one, as many questions as of the next: first one image of each prompt, then a second. The first is on the left in
/// half of them.
fn choose(candidates: Vec<Vec<Candidate>>, options: &StudyOptions) -> Vec<Asked> {
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let others = candidates.len();
    let mut asked = Vec::new();
    for (i, mut shared) in candidates.into_iter().enumerate() {
        shuffle(&mut shared, &mut random);
        let earlier =
            |at: usize, one: &Candidate| shared[..at].iter().filter(|before| before.prompt == one.prompt).count();
        let turns: Vec<usize> = shared.iter().enumerate().map(|(at, one)| earlier(at, one)).collect();
        let mut shared: Vec<(usize, Candidate)> = turns.into_iter().zip(shared).collect();
        shared.sort_by_key(|(turn, _)| *turn);
        // What does not divide evenly goes to the first ones.
        shared.truncate((options.questions + others - 1 - i) / others);
        let mut sides: Vec<bool> = (0..shared.len()).map(|at| at % 2 == 0).collect();
        shuffle(&mut sides, &mut random);
        for ((_, candidate), is_left) in shared.into_iter().zip(sides) {
            let (left, right) = if is_left { (0, i + 1) } else { (i + 1, 0) };
            let Candidate { subject, prompt, seed, .. } = candidate.clone();
            asked.push(Asked { question: Question { subject, prompt, seed, left, right }, candidate });
        }
    }
    shuffle(&mut asked, &mut random);
    asked
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T], random: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        // The bias of the remainder, 2^-50 at most, is nothing here.
        items.swap(last, (random.next_u64() % (last as u64 + 1)) as usize);
    }
}

/// The page of a blind study of `names`, the first against each of the others, of which `candidates` has the images. Neither it nor
/// an image's size, name or parameters tell whose the image is. Answers are kept in the browser and saved as a file for
/// [`tally`](crate::tally).
///
/// # Errors
/// When there are no candidates, or an image cannot be read.
pub(crate) fn study(names: Vec<String>, candidates: Vec<Vec<Candidate>>, options: &StudyOptions) -> Result<String> {
    ensure!(options.questions > 0, "a study needs at least one question");
    let asked = choose(candidates, options);
    let key = Key { runs: names, questions: asked.iter().map(|asked| asked.question.clone()).collect() };
    let sealed = key.seal()?;
    let id = hex::encode(&Sha256::digest(&sealed)[..6]);
    let mut photos: Vec<(&Path, &str)> = Vec::new();
    for Asked { candidate, .. } in &asked {
        if !photos.iter().any(|(photo, _)| *photo == candidate.photo) {
            photos.push((&candidate.photo, &candidate.category));
        }
    }
    let questions = (1..).zip(&asked).map(|(n, asked)| question(n, asked, &photos)).collect::<Result<Vec<_>>>()?;
    let category = photos.first().map_or("", |(_, category)| category);
    let several = photos.iter().any(|(_, other)| *other != category);
    let shown = photos
        .iter()
        .map(|(photo, category)| Ok(Image::anonymous(photo, SIDE)?.img(&format!("Photo of the {category}"))));
    let shown = shown.collect::<Result<Vec<_>>>()?;
    let body = html! {
        main id="study" data-study=(id) data-sealed=(sealed) {
            (intro(if several { None } else { Some(category) }, questions.len()))
            div id="asking" hidden {
                div class="bar-row" {
                    button type="button" id="back" { "Back" }
                    progress max=(questions.len()) aria-label="Questions answered" {}
                    span id="count" {}
                }
                div class="ask" {
                    @for photo in &shown { span class="photo" { (photo) } }
                    div { p id="prompt" {} p { (QUESTION) } }
                }
                @for question in &questions { (question) }
            }
            (end())
        }
    };
    Ok(document("Which image is better?", SCRIPT, &body))
}

fn question(number: usize, asked: &Asked, photos: &[(&Path, &str)]) -> Result<Markup> {
    let Asked { question: Question { prompt, left, .. }, candidate } = asked;
    let choice = |path: &Path, side: &str, key: &str| -> Result<Markup> {
        let img = Image::anonymous(path, SIDE)?.img(&format!("The {side} image"));
        Ok(html! { button type="button" data-choice=(side) { (img) kbd { (key) } } })
    };
    let (mut on_left, mut on_right) = (&candidate.first, &candidate.other);
    if *left != 0 {
        std::mem::swap(&mut on_left, &mut on_right);
    }
    let (left, right) = (choice(on_left, "left", "1")?, choice(on_right, "right", "2")?);
    let photo = photos.iter().position(|(photo, _)| *photo == candidate.photo).unwrap_or(0);
    Ok(html! {
        section class="question" aria-label={ "Question " (number) } data-photo=(photo)
            data-prompt=(without_placeholder(prompt)) hidden { (left) (right) }
    })
}

impl Comparison {
    /// The page of a blind study: the first run against each of the others, of images of the same prompt and seed. Neither it nor an
    /// image's size, name or parameters tell which run the image is of. Answers are kept in the browser and saved as a file for
    /// [`tally`](crate::tally).
    ///
    /// # Errors
    /// When the runs are of different subjects or share no prompt and seed, there is no photo to show, or an image cannot be
    /// read.
    pub fn study(&self, options: &StudyOptions) -> Result<String> {
        let first = &self.runs[0];
        for (run, name) in self.runs.iter().zip(&self.names) {
            ensure!(
                run.saved().record.photos == first.saved().record.photos
                    && run.config().category == first.config().category,
                "{name} and {} have learned from different photos; a study asks about runs of one subject",
                self.names[0]
            );
        }
        let Some((images, others)) = self.images.split_first() else { unreachable!("there are two runs or more") };
        let shares = others.iter().any(|other| images.iter().any(|one| other.iter().any(|other| other.matches(one))));
        ensure!(
            shares,
            "the runs have no images of the same prompt and seed; generate them with `evaluate` and equal options, or with \
             `generate --run RUN --out RUN/images`"
        );
        let photo = reference(first, options.reference.as_deref())?;
        let pair = |one: &Generated, other: &Generated| Candidate {
            subject: None,
            photo: photo.clone(),
            category: first.config().category.clone(),
            prompt: one.prompt.clone(),
            seed: one.seed,
            first: one.path.clone(),
            other: other.path.clone(),
        };
        let shared = |others: &Vec<Generated>| -> Vec<Candidate> {
            let found = images.iter().filter_map(|one| Some((one, others.iter().find(|other| other.matches(one))?)));
            found.map(|(one, other)| pair(one, other)).collect()
        };
        study(self.names.clone(), others.iter().map(shared).collect(), options)
    }
}

/// What the paper asked of its participants.
const QUESTION: &str = "Which image better keeps the identity of what the photo shows, and better matches the text?";

fn intro(category: Option<&str>, questions: usize) -> Markup {
    html! {
        div id="intro" {
            h1 { "Which image is better?" }
            p {
                "You will see a photo" @if let Some(category) = category { " of a " (category) } ", a text, and two images that were generated from both. Choose the one "
                "that better keeps the identity of what the photo shows and better matches the text. There are " (questions)
                " questions."
            }
            p {
                "Click or touch an image, or press 1 or the left arrow key for the left one, 2 or the right arrow key for the "
                "right one; Backspace goes back. Answers are kept in this browser if you leave and come back."
            }
            button type="button" id="start" class="main" { "Start" }
        }
    }
}

fn end() -> Markup {
    html! {
        div id="end" hidden {
            h1 { "Thank you" }
            p { "All questions are answered. Save the answers, and send the file to whoever asked you." }
            button type="button" id="save" class="main" { "Save the answers" }
            p id="saved" role="status" {}
            button type="button" id="again" { "Answer again from the start" }
        }
    }
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
            run.folder().display(),
            run.config().concept
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
        let question = Question { subject: None, prompt: "a [V] dog".into(), seed: u64::MAX, left: 1, right: 0 };
        let key = Key { runs: vec!["run-a".into(), "run-b".into()], questions: vec![question] };
        let sealed = key.seal().unwrap();
        assert!(!sealed.contains("run"));
        assert_eq!(Key::unseal(&sealed).unwrap(), key);
    }
}
