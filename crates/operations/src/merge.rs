//! `merge`: several runs of Custom Diffusion in one model.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use ::export::{Replaced, Unet};
use anyhow::{Context as _, Result, ensure};
use custom_diffusion::{Merger, text_features};
use model_files::BaseModel;
use prompts::CaptionSet;
use requests::Merge;
use runs::{Concept, Group};
use sampling::Pipeline;
use serde::Serialize;
use tch::{Device, Kind, Tensor};
use trainer::FinishedRun;

use crate::context::Context;
use crate::export::usage;
use crate::models;

const METHOD: &str = "custom-diffusion";
/// What the merging is computed from.
const F32: (Kind, Device) = (Kind::Float, Device::Cpu);
/// Captions that are encoded at once.
const BATCH: usize = 32;

/// What was merged.
#[derive(Debug, Clone, Serialize)]
pub struct Merged {
    /// The model.
    pub folder: PathBuf,
    /// The token of each subject.
    pub tokens: Vec<String>,
    /// How prompts name them, in a sentence without its end.
    pub usage: String,
}

/// A run's part in the merging.
struct Part {
    /// The text features of its subjects.
    targets: Tensor,
    /// The weights that it has learned, in the order of their names.
    weights: Vec<Tensor>,
}

pub(crate) fn run(request: &Merge, context: &Context<'_>) -> Result<Merged> {
    ::export::ensure_new_folder(&request.out)?;
    let captions = CaptionSet::load(&request.captions)?;
    let runs = request.runs.iter().map(|run| Ok((run.as_path(), models::finished(run, request.model.as_deref())?)));
    let runs = runs.collect::<Result<Vec<_>>>()?;
    check(&runs)?;
    let base = runs.first().context("there are no runs to merge")?.1.base_model()?;
    context.notes(base.notes());
    check_captions(&captions, &base)?;

    let steps = runs.len() as u64 + 2;
    let mut progress = context.progress("merging");
    let mut parts = Vec::new();
    // One model at a time is in memory.
    for (i, (folder, run)) in runs.iter().enumerate() {
        context.check()?;
        progress.reach(i as u64, steps, "");
        parts.push(part(run).with_context(|| format!("cannot merge the run in {}", terminal::path(folder)))?);
    }
    context.check()?;
    progress.reach(steps - 2, steps, "");
    let pipeline = Pipeline::open(&base, F32)?;
    let retention = retention(&captions, &pipeline)?;
    let targets: Vec<&Tensor> = parts.iter().map(|part| &part.targets).collect();
    let merger = Merger::new(&targets, &retention)?;
    let mut unet: weights::Tensors =
        pipeline.parameters.unet.iter().map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).collect();
    for (i, (name, tensor)) in unet.iter_mut().filter(|(name, _)| Group::KeysValues.has_unet(name)).enumerate() {
        let weights: Vec<&Tensor> = parts.iter().filter_map(|part| part.weights.get(i)).collect();
        let merged = merger.merge(tensor, &weights).with_context(|| format!("cannot merge {name}"))?;
        *tensor = libtorch::catch(|| merged.to_kind(Kind::Float))?;
    }
    context.check()?;
    progress.reach(steps - 1, steps, "");
    let embeddings = runs.iter().map(|(_, run)| run.embeddings()).collect::<Result<Vec<_>>>()?;
    let embeddings: Vec<(&str, &Tensor)> = embeddings.iter().flatten().map(|(name, rows)| (*name, rows)).collect();
    ::export::diffusers_folder(&base, &request.out, &Replaced::unet(Unet::Tensors(&unet)), &embeddings)?;
    progress.reach(steps, steps, "");
    let concepts: Vec<Concept> = runs.iter().flat_map(|(_, run)| run.config.concepts()).collect();
    Ok(Merged {
        folder: request.out.clone(),
        tokens: concepts.iter().map(|concept| concept.placeholder.to_owned()).collect(),
        usage: usage(&concepts),
    })
}

/// Whether the runs can be one model, as far as their records say.
fn check(runs: &[(&Path, FinishedRun)]) -> Result<()> {
    let mut tokens: Vec<(&str, &Path)> = Vec::new();
    for (folder, run) in runs {
        let shown = terminal::path(folder);
        let method = &run.config.method;
        ensure!(
            method == METHOD,
            "the run in {shown} is of the method {method}, but only runs of {METHOD} can be merged"
        );
        let groups = run.groups();
        let learned = groups.iter().all(|group| matches!(group, Group::Embedding | Group::KeysValues));
        ensure!(
            learned && groups.contains(&Group::KeysValues) && run.embedding.is_some(),
            "the run in {shown} has not learned new tokens with keys and values alone, as the recipe of {METHOD} does, and \
             cannot be merged; train it by the recipe"
        );
        let (first, (other, of)) = (&runs[0].1, (run.base_fingerprint(), terminal::path(runs[0].0)));
        let base = first.base_fingerprint();
        ensure!(
            base.sha256 == other.sha256,
            "the run in {shown} has another base model ({}) than the run in {of} ({}): merge runs of one base model",
            terminal::shortened(&other.name),
            terminal::shortened(&base.name)
        );
        for concept in run.config.concepts() {
            let name = concept.placeholder;
            if let Some((_, before)) = tokens.iter().find(|(token, _)| *token == name) {
                anyhow::bail!(
                    "the placeholder {name} is that of the runs in {} and {shown}: train one of them with another, as by \
                     --set 'placeholder=<new{}>'",
                    terminal::path(before),
                    tokens.len() + 1
                );
            }
            tokens.push((name, folder));
        }
    }
    Ok(())
}

/// Whether there are captions enough: text features are of beginnings, and different ones are at least as many as the width.
fn check_captions(captions: &CaptionSet, base: &BaseModel) -> Result<()> {
    let (tokenizer, width) = (base.tokenizer()?, base.token_widths()?.iter().sum::<i64>());
    let mut beginnings: HashSet<Vec<i64>> = HashSet::new();
    for caption in &captions.captions {
        let encoding = tokenizer.encode(caption)?;
        beginnings.extend((2..=encoding.len).map(|n| encoding.ids[..n].to_vec()));
    }
    ensure!(
        beginnings.len() as i64 >= width,
        "the {} captions of {} have {} text features, but at least {} are needed to span the text encoder's width; \
         give more captions with --captions",
        captions.captions.len(),
        captions.name,
        beginnings.len(),
        width
    );
    Ok(())
}

fn part(run: &FinishedRun) -> Result<Part> {
    let pipeline = run.pipeline(F32)?;
    let mut targets = Vec::new();
    for concept in run.config.concepts() {
        let (token, noun) = (concept.placeholder, concept.category);
        for prompt in [format!("{token} {noun}"), format!("photo of a {token} {noun}")] {
            let ids = pipeline.prompt_ids(&[&prompt])?.remove(0);
            let own = pipeline.tokenizer.vectors(token);
            let skip = ids.iter().position(|id| own.contains(id));
            let skip = skip.with_context(|| format!("the prompt {prompt:?} does not reach its subject"))?;
            let states = pipeline.encode_prompts(&[&prompt])?.hidden_states.get(0);
            targets.push(text_features(&states, &ids, pipeline.tokenizer.eos_id(), skip)?);
        }
    }
    let learned = pipeline.parameters.unet.iter().filter(|(name, _)| Group::KeysValues.has_unet(name));
    // In the order of the names, whatever that of the model is.
    let learned: weights::Tensors = learned.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).collect();
    Ok(Part { targets: libtorch::catch(|| Tensor::cat(&targets, 0))?, weights: learned.into_values().collect() })
}

/// The text features [features, width] of the captions, each once.
fn retention(captions: &CaptionSet, pipeline: &Pipeline) -> Result<Tensor> {
    let captions: Vec<&str> = captions.captions.iter().map(String::as_str).collect();
    let mut features = Vec::new();
    for batch in captions.chunks(BATCH) {
        let states = pipeline.encode_prompts(batch)?.hidden_states;
        for (i, ids) in pipeline.prompt_ids(batch)?.iter().enumerate() {
            features.push(text_features(&states.get(i as i64), ids, pipeline.tokenizer.eos_id(), 1)?);
        }
    }
    libtorch::catch(|| Tensor::cat(&features, 0)).map_err(Into::into)
}
