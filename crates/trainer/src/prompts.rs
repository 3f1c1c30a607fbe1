//! The prompts of training and what the text encoder makes of them.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use libtorch::random;
use methods::{Batch, Method};
use photos::{ApparentSize, Photo};
use prompts::{SizePhrases, TemplateSet, with_phrase};
use runs::{Captions, Concept, Group, Phase, TrainConfig};
use sampling::{Pipeline, PromptEmbeds};

/// The prompts that samples may have, with the class noun filled in.
#[derive(Debug, Clone)]
pub(crate) struct Prompts {
    /// Of each subject; with captions, of each photo.
    all: Vec<Vec<String>>,
    /// Photo by photo, the file of its caption and the class noun of its subject.
    captions: Vec<(String, String)>,
    /// Of each subject's class images.
    class: Vec<String>,
    /// What prompts say of the size at which the subject is shown.
    phrases: Option<SizePhrases>,
}

impl Prompts {
    /// The configuration's one prompt, or its templates; captions are the photos' ([`Prompts::of_photos`]).
    ///
    /// # Errors
    /// When the templates are not known or cannot be read.
    pub(crate) fn new(config: &TrainConfig) -> Result<Self> {
        let all = match &config.templates {
            None => vec![config.prompt.clone()],
            Some(name) => TemplateSet::load(name)?.prompts,
        };
        let phrases = config.sizes.as_ref().map(|sizes| SizePhrases::load(&sizes.phrases)).transpose()?;
        let concepts = config.concepts();
        let class = config.prior.iter().flat_map(|prior| concepts.iter().map(|concept| concept.fill(&prior.prompt)));
        let class = class.collect();
        let all = concepts.iter().map(|concept| all.iter().map(|prompt| concept.fill(prompt)).collect()).collect();
        Ok(Self { all, captions: Vec::new(), class, phrases })
    }

    /// Those of the photos of each subject: the captions, if the configuration has them.
    ///
    /// # Errors
    /// When a caption does not call the subject, or as [`Prompts::new`].
    pub(crate) fn of_photos(config: &TrainConfig, photos: &[Vec<Photo>]) -> Result<Self> {
        let prompts = Self::new(config)?;
        let Some(captions) = &config.captions else { return Ok(prompts) };
        let (mut all, mut of_photos) = (Vec::new(), Vec::new());
        for (concept, photos) in config.concepts().iter().zip(photos) {
            for photo in photos {
                let (file, prompt) = captioned(captions, concept, photo)?;
                of_photos.push((file, concept.category.to_owned()));
                all.push(vec![prompt]);
            }
        }
        Ok(Self { all, captions: of_photos, ..prompts })
    }

    /// The prompt of the first photo.
    pub(crate) fn first(&self) -> &str {
        self.all.first().and_then(|prompts| prompts.first()).map_or("", String::as_str)
    }

    /// Which prompts are those of a photo of a subject, both by their numbers: see [`Prompts::choose`].
    pub(crate) fn source(&self, photo: usize, subject: usize) -> usize {
        if self.captions.is_empty() { subject } else { photo }
    }

    /// The prompts of samples of these sources with these seeds, which are shown at these sizes if sizes matter: a single one
    /// where all have the same.
    pub(crate) fn choose(&self, samples: &[(usize, u64)], sizes: &[ApparentSize]) -> Vec<String> {
        let Some(phrases) = &self.phrases else {
            return match self.all.as_slice() {
                [all] if all.len() == 1 => all.clone(),
                all => samples.iter().map(|&(source, seed)| one_of(&all[source], seed, "prompt").clone()).collect(),
            };
        };
        let with_size = |(&(source, seed), size): (&(usize, u64), &ApparentSize)| {
            let prompt = one_of(&self.all[source], seed, "prompt");
            let phrases = match size {
                ApparentSize::Far => &phrases.far,
                ApparentSize::Near => &phrases.near,
                ApparentSize::Usual => return prompt.clone(),
            };
            if phrases.is_empty() { prompt.clone() } else { with_phrase(one_of(phrases, seed, "phrase"), prompt) }
        };
        samples.iter().zip(sizes).map(with_size).collect()
    }

    /// The prompts of class images of these subjects, beside `prompts` of the subjects: as many.
    pub(crate) fn of_class(&self, subjects: &[usize], prompts: usize) -> Vec<String> {
        match self.class.as_slice() {
            [] => Vec::new(),
            [only] => vec![only.clone(); prompts],
            class => subjects.iter().map(|subject| class[*subject].clone()).collect(),
        }
    }

    /// Checks every prompt of a subject that there may be. Of captions that are too long, the beginning is what is learned; the note
    /// says so.
    ///
    /// # Errors
    /// When one is too long, or one of a photo lacks the class noun, or the method cannot learn from it.
    pub(crate) fn check(
        &self,
        pipeline: &Pipeline,
        config: &TrainConfig,
        method: &dyn Method,
    ) -> Result<Option<String>> {
        if !self.captions.is_empty() {
            return self.check_captions(pipeline, config, method);
        }
        for prompt in self.each() {
            let resolved = pipeline.resolve(&prompt)?;
            ensure!(
                pipeline.tokenizer.encode(&resolved)?.truncation.is_none(),
                "the training prompt {:?} is longer than the text encoder's {} positions; shorten it",
                terminal::shortened(&resolved),
                pipeline.tokenizer.max_length()
            );
        }
        Ok(None)
    }

    fn check_captions(&self, pipeline: &Pipeline, config: &TrainConfig, method: &dyn Method) -> Result<Option<String>> {
        // Where the configured prompt has the class noun, the method needs it.
        let needed = config.prompt.contains("[category]");
        let mut cut = Vec::new();
        for ((file, noun), prompt) in self.captions.iter().zip(self.all.iter().flatten()) {
            let encoding = pipeline.tokenizer.encode(&pipeline.resolve(prompt)?)?;
            ensure!(
                !needed || !pipeline.tokenizer.spans(&encoding, noun)?.is_empty(),
                "the caption {file} lacks the class noun {:?}: {:?}; write it after [V], or leave both to --caption-template \
                 {EXAMPLE:?}",
                terminal::shortened(noun),
                terminal::shortened(prompt)
            );
            method.check_prompt(pipeline, config, prompt).with_context(|| format!("the caption {file}"))?;
            cut.extend(encoding.truncation.map(|truncation| (file, truncation.text)));
        }
        let positions = pipeline.tokenizer.max_length();
        Ok(cut.first().map(|(file, end)| {
            format!(
                "{} of {} captions are longer than the text encoder's {positions} positions, and their ends are not learned: {:?} \
                 in {file}",
                cut.len(),
                self.captions.len(),
                terminal::shortened(end)
            )
        }))
    }

    fn each(&self) -> Vec<String> {
        let phrases = self.phrases.iter().flat_map(|phrases| phrases.far.iter().chain(&phrases.near));
        let all: Vec<&String> = self.all.iter().flatten().collect();
        let with: Vec<String> =
            phrases.flat_map(|phrase| all.iter().map(move |prompt| with_phrase(phrase, prompt))).collect();
        all.into_iter().cloned().chain(with).collect()
    }
}

/// A template for captions that are about all but the subject.
const EXAMPLE: &str = "a photo of a [V] [category], [caption]";

/// The name of a caption's file, and the prompt that is made of it.
fn captioned(captions: &Captions, concept: &Concept<'_>, photo: &Photo) -> Result<(String, String)> {
    let caption = photo.caption.as_ref().with_context(|| format!("{} has no caption", photo.name()))?;
    let file = caption.path.file_name().unwrap_or_default().display().to_string();
    let text = with_word(&caption.text, concept.placeholder, "[V]");
    let prompt = captions.template.replace(Captions::CAPTION, &text);
    let (count, shown) = (prompt.matches("[V]").count(), terminal::shortened(&caption.text));
    ensure!(
        count > 0,
        "the caption {file} has no [V]: {shown:?}; write [V] where it names the subject, or say where it goes with --caption-template \
         {EXAMPLE:?}"
    );
    ensure!(
        count == 1,
        "the caption {file} has [V] {count} times, counting the template's: {shown:?}; leave one of them"
    );
    Ok((file, concept.fill(&prompt)))
}

/// A text in which `new` stands for each `word` that is no part of a longer one.
fn with_word(text: &str, word: &str, new: &str) -> String {
    let is_letter = |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    let (mut rest, mut done) = (text, String::new());
    while let Some(at) = rest.find(word).filter(|_| !word.is_empty()) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        let inside = is_letter(before.chars().last().or(done.chars().last())) && is_letter(word.chars().next())
            || is_letter(word.chars().last()) && is_letter(after.chars().next());
        done += before;
        done += if inside { word } else { new };
        rest = after;
    }
    done + rest
}

/// One of several, each as likely as the others.
fn one_of<'a>(all: &'a [String], seed: u64, purpose: &str) -> &'a String {
    &all[(random::derive(seed, purpose, 0) % all.len() as u64) as usize]
}

/// What the text encoders make of prompts in a phase: of those that do not change computed once, of the others each time, on the autograd
/// graph.
#[derive(Debug)]
pub(crate) struct PromptStates {
    /// Whether the text encoder, and so the states of all prompts, are trained.
    text_encoder: bool,
    /// How prompts call what is trained of the embeddings: their states change too.
    trained: Vec<String>,
    constant: HashMap<String, PromptEmbeds>,
}

impl PromptStates {
    pub(crate) fn new(config: &TrainConfig, phase: &Phase) -> Self {
        Self {
            text_encoder: phase.trains.contains_key(&Group::TextEncoder),
            trained: match phase.trains.contains_key(&Group::Embedding) {
                true => config.concepts().iter().map(|concept| concept.fill("[V]")).collect(),
                false => Vec::new(),
            },
            constant: HashMap::new(),
        }
    }

    /// Those of the prompts of a batch, those of class images last.
    ///
    /// # Errors
    /// What the text encoder refuses.
    pub(crate) fn of(&mut self, pipeline: &Pipeline, batch: &Batch) -> Result<PromptEmbeds> {
        let all: Vec<&str> = batch.prompts.iter().chain(&batch.class_prompts).map(String::as_str).collect();
        // The changing ones in one pass, each once.
        let changes = |prompt: &str| self.text_encoder || self.trained.iter().any(|name| prompt.contains(name));
        let mut changing: Vec<&str> = all.iter().copied().filter(|prompt| changes(prompt)).collect();
        changing.sort_unstable();
        changing.dedup();
        let fresh = if changing.is_empty() { None } else { Some(encode(pipeline, &changing)?) };
        let mut states = Vec::with_capacity(all.len());
        for prompt in all {
            states.push(match (&fresh, changing.binary_search(&prompt)) {
                (Some(fresh), Ok(i)) => fresh.get(i),
                // One by one, so that none depends on what else was there.
                _ => match self.constant.get(prompt) {
                    Some(known) => known.get(0),
                    None => {
                        let known = tch::no_grad(|| encode(pipeline, &[prompt]))?;
                        let copy = known.get(0);
                        self.constant.insert(prompt.to_owned(), known);
                        copy
                    }
                },
            });
        }
        Ok(PromptEmbeds::cat(&states))
    }
}

/// In the parameters' dtype.
fn encode(pipeline: &Pipeline, prompts: &[&str]) -> Result<PromptEmbeds> {
    pipeline.prompt_embeds(prompts, pipeline.placement().0).context("the training prompts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_replaced_where_it_is_one() {
        let of = |text: &str, word: &str| with_word(text, word, "[V]");
        assert_eq!(of("sks dog, asks sks, skss sks_ sks", "sks"), "[V] dog, asks [V], skss sks_ [V]");
        assert_eq!(of("a<new>dog, <new> <new2>", "<new>"), "a[V]dog, [V] <new2>");
        assert_eq!(of("sksks sks", "sks"), "sksks [V]");
        assert_eq!(of("dog", ""), "dog");
    }
}
