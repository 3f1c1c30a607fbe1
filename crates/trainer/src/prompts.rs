//! The prompts of training and what the text encoder makes of them.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use libtorch::random;
use methods::Batch;
use photos::ApparentSize;
use prompts::{SizePhrases, TemplateSet, with_phrase};
use runs::{Group, Phase, TrainConfig};
use sampling::Pipeline;
use tch::Tensor;

/// The prompts that samples may have, with the class noun filled in.
#[derive(Debug, Clone)]
pub(crate) struct Prompts {
    /// Of each subject.
    all: Vec<Vec<String>>,
    /// Of each subject's class images.
    class: Vec<String>,
    /// What prompts say of the size at which the subject is shown.
    phrases: Option<SizePhrases>,
}

impl Prompts {
    /// The configuration's one prompt, or its templates.
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
        Ok(Self { all, class, phrases })
    }

    /// The prompts of samples of these subjects with these seeds, which are shown at these sizes if sizes matter: a single one
    /// where all have the same.
    pub(crate) fn choose(&self, samples: &[(usize, u64)], sizes: &[ApparentSize]) -> Vec<String> {
        let Some(phrases) = &self.phrases else {
            return match self.all.as_slice() {
                [all] if all.len() == 1 => all.clone(),
                all => samples.iter().map(|&(subject, seed)| one_of(&all[subject], seed, "prompt").clone()).collect(),
            };
        };
        let with_size = |(&(subject, seed), size): (&(usize, u64), &ApparentSize)| {
            let prompt = one_of(&self.all[subject], seed, "prompt");
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

    /// Checks every prompt of a subject that there may be.
    ///
    /// # Errors
    /// When one is too long, or does not name the subject.
    pub(crate) fn check(&self, pipeline: &Pipeline) -> Result<()> {
        for prompt in self.each() {
            let resolved = pipeline.resolve(&prompt)?;
            ensure!(
                pipeline.tokenizer.encode(&resolved)?.truncation.is_none(),
                "the training prompt {:?} is longer than the text encoder's {} positions; shorten it",
                terminal::shortened(&resolved),
                pipeline.tokenizer.max_length()
            );
        }
        Ok(())
    }

    fn each(&self) -> Vec<String> {
        let phrases = self.phrases.iter().flat_map(|phrases| phrases.far.iter().chain(&phrases.near));
        let all: Vec<&String> = self.all.iter().flatten().collect();
        let with: Vec<String> =
            phrases.flat_map(|phrase| all.iter().map(move |prompt| with_phrase(phrase, prompt))).collect();
        all.into_iter().cloned().chain(with).collect()
    }
}

/// One of several, each as likely as the others.
fn one_of<'a>(all: &'a [String], seed: u64, purpose: &str) -> &'a String {
    &all[(random::derive(seed, purpose, 0) % all.len() as u64) as usize]
}

/// The hidden states of prompts in a phase: of those that do not change computed once, of the others each time, on the autograd
/// graph.
#[derive(Debug)]
pub(crate) struct PromptStates {
    /// Whether the text encoder, and so the states of all prompts, are trained.
    text_encoder: bool,
    /// How prompts call what is trained of the embeddings: their states change too.
    trained: Vec<String>,
    constant: HashMap<String, Tensor>,
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

    /// The hidden states [prompts, positions, width] of the prompts of a batch, those of class images last.
    ///
    /// # Errors
    /// What the text encoder refuses.
    pub(crate) fn of(&mut self, pipeline: &Pipeline, batch: &Batch) -> Result<Tensor> {
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
                (Some(fresh), Ok(i)) => fresh.narrow(0, i as i64, 1),
                // One by one, so that none depends on what else was there.
                _ => match self.constant.get(prompt) {
                    Some(known) => known.shallow_clone(),
                    None => {
                        let known = tch::no_grad(|| encode(pipeline, &[prompt]))?;
                        self.constant.insert(prompt.to_owned(), known.shallow_clone());
                        known
                    }
                },
            });
        }
        Ok(Tensor::cat(&states, 0))
    }
}

/// [prompts, positions, width], in the parameters' dtype.
fn encode(pipeline: &Pipeline, prompts: &[&str]) -> Result<Tensor> {
    let ids = pipeline.prompt_ids(prompts).context("the training prompts")?;
    pipeline.text_encoder.forward(&Tensor::from_slice2(&ids))
}
