//! The loss on a batch that is the same at every step, by bins of timesteps.

use anyhow::{Context, Result, ensure};
use libtorch::{Download, random};
use methods::{Batch, Denoising, DreamBooth, LossTerm, Method, Step};
use photos::Photo;
use runs::{Phase, Phases, TrainConfig};
use tch::Tensor;

use crate::batches::{BatchIndex, Batches, PhotoBatches};
use crate::phase_run::Trainer;
use crate::prompts::PromptStates;

/// Samples whose latents, noise, timesteps and prompts never change. They are the batches of another seed, one a bin, with the
/// timesteps of the bin; the run's own numbers are not touched.
#[derive(Debug)]
pub(crate) struct FixedBatch {
    /// The run's, with another seed, one phase without regulariser, and no class images.
    config: TrainConfig,
    denoising: Denoising,
    states: PromptStates,
    bins: Vec<Bin>,
}

#[derive(Debug)]
struct Bin {
    /// The first timestep, and the one after the last.
    timesteps: [i64; 2],
    batch: Batch,
}

impl FixedBatch {
    /// So many `samples` of the photos of each subject in each of so many bins, for a phase by its number.
    ///
    /// # Errors
    /// When there are more bins than timesteps, or what the VAE refuses.
    pub(crate) fn new(
        trainer: &Trainer,
        number: usize,
        photos: &[Vec<Photo>],
        [bins, samples]: [usize; 2],
    ) -> Result<Self> {
        let (name, phase) = trainer.phase(number)?;
        let phase = Phase {
            steps: bins,
            batch_size: samples,
            gradient_accumulation: 1,
            lambda_mean: 0.0,
            lambda_variance: 0.0,
            ..phase.clone()
        };
        let config = TrainConfig {
            seed: random::derive(trainer.config.seed, "fixed batch", 0),
            phases: Phases::from([(name.to_owned(), phase)]),
            prior: None,
            ..trainer.config.clone()
        };
        let Trainer { pipeline, .. } = trainer;
        let all = pipeline.scheduler.num_train_timesteps;
        ensure!(bins <= all, "stop.bins is {bins}, but the model has only {all} timesteps: give fewer");
        let bound = |bin: usize| (bin * all / bins) as i64;
        let mut batches = PhotoBatches::new(&config, pipeline, photos.to_vec(), Vec::new())?;
        let bin = |bin: usize| {
            let timesteps = [bound(bin), bound(bin + 1)];
            let batch = batches.batch(BatchIndex { phase: 0, step: bin, part: 0 })?;
            let size = batch.timesteps.size();
            let seed = random::derive(config.seed, "timesteps of a bin", bin as u64);
            let drawn = random::integers(seed, timesteps[1] - timesteps[0], &size) + timesteps[0];
            let timesteps_there = libtorch::upload(&drawn, batch.timesteps.device());
            // What is drawn for a batch, as NeTi's dropout, makes training harder, and is not what is measured.
            Ok(Bin { timesteps, batch: Batch { timesteps: timesteps_there, drawn: None, ..batch } })
        };
        let bins = (0..bins).map(bin).collect::<Result<_>>()?;
        let denoising = Denoising::new(pipeline, &config)?;
        let states = PromptStates::new(&config, &config.phases[0]);
        Ok(Self { config, denoising, states, bins })
    }

    /// The bins' timesteps: the first of each, and the one after its last.
    pub(crate) fn timesteps(&self) -> impl Iterator<Item = [i64; 2]> {
        self.bins.iter().map(|bin| bin.timesteps)
    }

    /// The diffusion loss in each bin.
    ///
    /// # Errors
    /// What the models refuse.
    pub(crate) fn losses(&mut self, trainer: &Trainer) -> Result<Vec<f64>> {
        let Self { config, denoising, states, bins } = self;
        let each = bins.iter().map(|bin| loss(trainer, trainer.method, config, denoising, states, &bin.batch));
        read(each)
    }

    /// That of the model before anything is trained, with the class noun in the place of the subject.
    ///
    /// # Errors
    /// As [`FixedBatch::losses`].
    pub(crate) fn base_losses(&self, trainer: &Trainer) -> Result<Vec<f64>> {
        let Self { config, denoising, bins, .. } = self;
        let concepts = config.concepts();
        let without =
            |prompt: &String| concepts.iter().fold(prompt.clone(), |prompt, concept| concept.without_token(&prompt));
        let mut states = PromptStates::new(config, &config.phases[0]);
        read(bins.iter().map(|Bin { batch, .. }| {
            let batch = Batch {
                latents: batch.latents.shallow_clone(),
                noise: batch.noise.shallow_clone(),
                timesteps: batch.timesteps.shallow_clone(),
                mask: batch.mask.as_ref().map(Tensor::shallow_clone),
                prompts: batch.prompts.iter().map(without).collect(),
                class_prompts: Vec::new(),
                sizes: batch.sizes.clone(),
                references: None,
                drawn: None,
            };
            // Its prompts become keys and values as those of any model, whatever the method makes of its own.
            loss(trainer, &DreamBooth, config, denoising, &mut states, &batch)
        }))
    }
}

/// The diffusion loss of a batch, on the device.
fn loss(
    trainer: &Trainer,
    method: &dyn Method,
    config: &TrainConfig,
    denoising: &Denoising,
    states: &mut PromptStates,
    batch: &Batch,
) -> Result<Tensor> {
    let Trainer { pipeline, learned, .. } = trainer;
    let phase = &config.phases[0];
    libtorch::catch(|| {
        tch::no_grad(|| {
            let prompt_embeds = &states.of(pipeline, batch)?;
            let step = Step { method, pipeline, config, phase, learned, denoising, batch, prompt_embeds };
            let terms = method.losses(&step)?;
            let diffusion = terms.into_iter().find(|term| term.name == LossTerm::DIFFUSION);
            Ok(diffusion.context("the method has no diffusion loss, which --stop measures")?.value)
        })
    })?
}

/// Waits for all of them at once.
fn read(losses: impl Iterator<Item = Result<Tensor>>) -> Result<Vec<f64>> {
    let losses = losses.collect::<Result<Vec<_>>>()?;
    Ok(Download::new(&libtorch::catch(|| Tensor::stack(&losses, 0))?)?.wait()?)
}
