//! One phase: what it trains, its optimisers, its steps.

use anyhow::{Context, Result, bail, ensure};
use distributed::{Gradients, Group as Processes};
use libtorch::Download;
use methods::{Batch, Denoising, Learned, LossTerm, Method, Reduction, Step};
use optimizer::{AdamW, Ema, EmaConfig};
use runs::{Group, Phase, TrainConfig};
use sampling::{Pipeline, PromptEmbeds};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::batches::{BatchIndex, Batches};
use crate::checkpoint::{Checkpoint, File, PendingCheckpoint, State};
use crate::phases::{groups_until, phase};
use crate::prompts::{PromptStates, Prompts};
use crate::share::Share;

/// A loss that a working model is far from: one that knows nothing has a diffusion loss of about 1.
const DIVERGED: f64 = 1e3;

/// The pipeline, what is learned, and how.
#[derive(Debug)]
pub struct Trainer {
    /// The configuration.
    pub config: TrainConfig,
    /// The method.
    pub method: &'static dyn Method,
    /// The model; its U-Net is what most methods change.
    pub pipeline: Pipeline,
    /// What the method has added to it.
    pub learned: Learned,
    /// The processes that share its batches; one alone, unless that is set before a phase starts. Batches must be those of
    /// [`PhotoBatches::shared`](crate::PhotoBatches::shared).
    pub processes: Processes,
    denoising: Denoising,
}

/// A step that the device has been told to do, and may not have done yet.
#[derive(Debug)]
#[must_use = "wait for it: only then is it known whether the loss was a number"]
pub struct LaunchedStep {
    report: StepReport,
    /// The losses, and the 2-norms of the gradients before they are clipped.
    shown: Download,
}

/// What one step has shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The number of the phase, from 0.
    pub number: usize,
    /// Its name.
    pub phase: String,
    /// Steps done in the phase, counted from 1.
    pub step: usize,
    /// Steps of the phase in all.
    pub steps: usize,
    /// The terms of the loss by name, averaged over the step's batches or summed.
    pub losses: Vec<(String, f64)>,
    /// The 2-norm of all gradients that `max_grad_norm` limits, before it does; of all gradients, where it limits none.
    pub gradient_norm: f64,
}

/// A phase on its way.
#[derive(Debug)]
pub struct PhaseRun {
    number: usize,
    done: usize,
    groups: Vec<(Group, AdamW)>,
    ema: Option<Ema>,
    states: PromptStates,
    gradients: Gradients,
}

impl Trainer {
    /// Adds what is to be learned to the pipeline and freezes everything; f32 parameters only.
    ///
    /// # Errors
    /// When the configuration does not fit the model.
    pub fn new(config: TrainConfig, mut pipeline: Pipeline) -> Result<Self> {
        config.validate()?;
        ensure!(
            pipeline.placement().0 == Kind::Float,
            "the model must be loaded in fp32 to be trained; dtype decides what is computed in"
        );
        pipeline.unet.set_gradient_checkpointing(config.gradient_checkpointing);
        let method = methods::named(&config.method)?;
        if pipeline.second.is_some() {
            method.check_sdxl(&config)?;
        }
        let denoising = Denoising::new(&pipeline, &config)?;
        let learned = method.install(&mut pipeline, &config)?;
        ensure!(
            config.reference.is_none() || pipeline.looks_at_a_reference(),
            "reference is set, but the method {} looks at no reference photo: leave it out, or give --method vico",
            config.method
        );
        if config.captions.is_none() {
            Prompts::new(&config)?.check(&pipeline, &config, method)?;
        }
        let processes = Processes::alone();
        let trainer = Self { config, method, pipeline, learned, processes, denoising };
        for (name, phase) in &trainer.config.phases {
            for group in phase.trains.keys() {
                ensure!(
                    !trainer.parameters(*group).is_empty(),
                    "phase {name} trains {group}, but the method {} has nothing of that kind",
                    trainer.config.method
                );
            }
        }
        Ok(trainer)
    }

    /// A phase by its number, from 0.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn phase(&self, number: usize) -> Result<(&str, &Phase)> {
        phase(&self.config, number)
    }

    /// The parameters of a group, by name.
    pub fn parameters(&self, group: Group) -> Vec<(&str, &Tensor)> {
        self.learned.parameters(&self.pipeline, group)
    }

    /// The parameters that a phase trains, by name.
    ///
    /// # Errors
    /// When there is no such phase.
    pub fn trained(&self, number: usize) -> Result<Vec<(&str, &Tensor)>> {
        let (_, phase) = self.phase(number)?;
        Ok(phase.trains.keys().flat_map(|group| self.parameters(*group)).collect())
    }

    /// Starts a phase with nothing remembered, as every phase does.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn start(&self, number: usize) -> Result<PhaseRun> {
        self.start_at(number, 0)
    }

    /// The same with some steps done, of which the optimiser remembers nothing.
    pub(crate) fn start_at(&self, number: usize, done: usize) -> Result<PhaseRun> {
        let (_, phase) = self.phase(number)?;
        self.freeze_all_but(phase);
        let optimizer = |group: &Group| Ok((*group, AdamW::new(self.parameters(*group), &self.config.optimizer)?));
        let groups = phase.trains.keys().map(optimizer).collect::<Result<_>>()?;
        let ema = self.averaged(phase).map(|ema| Ema::new(self.parameters(Group::Unet), ema)).transpose()?;
        self.phase_run((number, done), groups, ema)
    }

    /// Resumes from a checkpoint.
    ///
    /// # Errors
    /// When the checkpoint is damaged or of another model.
    pub fn resume(&self, checkpoint: &Checkpoint) -> Result<PhaseRun> {
        checkpoint.check(&self.config)?;
        let number = checkpoint.state.number;
        let (_, phase) = self.phase(number)?;
        self.freeze_all_but(phase);
        for group in groups_until(&self.config, number) {
            checkpoint.restore(&self.parameters(group), &Checkpoint::weights(group))?;
        }
        let optimizer = |group: &Group| {
            let path = checkpoint.file(&Checkpoint::optimizer(*group));
            Ok((*group, AdamW::load(self.parameters(*group), &self.config.optimizer, &path)?))
        };
        let groups = phase.trains.keys().map(optimizer).collect::<Result<_>>()?;
        let load = |ema| Ema::load(self.parameters(Group::Unet), ema, &checkpoint.file(Checkpoint::EMA));
        let ema = self.averaged(phase).map(load).transpose()?;
        self.phase_run((number, checkpoint.state.step), groups, ema)
    }

    fn phase_run(
        &self,
        (number, done): (usize, usize),
        groups: Vec<(Group, AdamW)>,
        ema: Option<Ema>,
    ) -> Result<PhaseRun> {
        let states = PromptStates::new(&self.config, self.phase(number)?.1);
        let parameters: Vec<&Tensor> = self.trained(number)?.into_iter().map(|(_, parameter)| parameter).collect();
        let gradients = Gradients::new(&self.processes, &parameters)?;
        Ok(PhaseRun { number, done, groups, ema, states, gradients })
    }

    /// What is averaged: the whole U-Net, where a phase trains it.
    fn averaged(&self, phase: &Phase) -> Option<&EmaConfig> {
        self.config.ema.as_ref().filter(|_| phase.trains.contains_key(&Group::Unet))
    }

    fn freeze_all_but(&self, phase: &Phase) {
        let parameters = &self.pipeline.parameters;
        parameters.vae.train(|_| false);
        parameters.text_encoder.train(|_| phase.trains.contains_key(&Group::TextEncoder));
        if let Some(second) = &parameters.text_encoder_2 {
            second.train(|_| false);
        }
        parameters.unet.train(|name| phase.trains.keys().any(|group| group.has_unet(name)));
        for group in [Group::Embedding, Group::Adapter] {
            for (_, tensor) in self.parameters(group) {
                let _ = tensor.set_requires_grad(phase.trains.contains_key(&group));
            }
        }
    }

    /// The losses of a batch of a phase, given the hidden states [prompts, positions, width] of its prompts and, with prior
    /// preservation, of the class noun's.
    ///
    /// # Errors
    /// What the models refuse.
    pub fn losses(&self, phase: &Phase, batch: &Batch, prompt_embeds: &PromptEmbeds) -> Result<Vec<LossTerm>> {
        self.method.losses(&Step {
            method: self.method,
            pipeline: &self.pipeline,
            config: &self.config,
            phase,
            learned: &self.learned,
            denoising: &self.denoising,
            batch,
            prompt_embeds,
        })
    }
}

impl PhaseRun {
    /// The number of the phase, from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Steps done so far.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Does something with the model as it would be if the phase ended now: where a running average is kept, the model is that
    /// meanwhile.
    ///
    /// # Errors
    /// What LibTorch refuses, or what `work` returns.
    pub(crate) fn with_average<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.ema.as_mut().map_or(Ok(()), Ema::swap)?;
        let done = work();
        self.ema.as_mut().map_or(Ok(()), Ema::swap)?;
        done
    }

    /// One step of the optimiser; a GPU is not waited for. Where the loss is not a number or has diverged, or the gradients
    /// are not finite, the parameters and the optimiser's state are left as they were, and [`LaunchedStep::wait`] says so:
    /// the next step may be launched before.
    ///
    /// # Errors
    /// What LibTorch refuses.
    pub fn step(&mut self, trainer: &Trainer, batches: &mut dyn Batches) -> Result<LaunchedStep> {
        let _span = tracing::trace_span!("train/step").entered();
        let (name, phase) = trainer.phase(self.number)?;
        let parts = phase.gradient_accumulation;
        let (mut sums, mut names): (Option<Tensor>, Vec<&'static str>) = (None, Vec::new());
        self.groups.iter_mut().try_for_each(|(_, optimizer)| optimizer.zero_grad())?;
        trainer.method.constrain(&trainer.learned)?;
        for part in 0..parts {
            if part + 1 == parts {
                self.gradients.last_pass()?;
            }
            let index = BatchIndex { phase: self.number, step: self.done, part };
            let batch = tracing::trace_span!("train/batch").in_scope(|| batches.batch(index))?;
            let losses = self.backward(trainer, phase, &batch, &mut names)?;
            sums = Some(libtorch::catch(|| sums.map_or_else(|| losses.shallow_clone(), |sums| sums + &losses))?);
        }
        let losses = self.add_up(sums.context("gradient_accumulation is 0")?)?;
        let norms = self.clip(trainer.config.max_grad_norm, phase)?;
        let (diverged, shown) = libtorch::catch(|| {
            // Comparing NaN gives false.
            let sound = losses.sum(Kind::Float).abs().le(DIVERGED).logical_and(&norms.isfinite().all());
            (sound.logical_not().to_kind(Kind::Float), Tensor::cat(&[losses, norms], 0))
        })?;
        tracing::trace_span!("train/optimizer").in_scope(|| {
            self.groups.iter_mut().try_for_each(|(group, optimizer)| {
                optimizer.step_unless(phase.learning_rate_at(self.done, *group), Some(&diverged))
            })
        })?;
        if let Some(ema) = &mut self.ema {
            tracing::trace_span!("train/running_average").in_scope(|| ema.update())?;
        }
        self.done += 1;
        let report = StepReport {
            number: self.number,
            phase: name.to_owned(),
            step: self.done,
            steps: phase.steps,
            losses: names.into_iter().map(|name| (name.to_owned(), f64::NAN)).collect(),
            gradient_norm: f64::NAN,
        };
        Ok(LaunchedStep { report, shown: Download::new(&shown)? })
    }

    /// The losses [terms] and the gradients of all processes, where several share the batches.
    fn add_up(&mut self, losses: Tensor) -> Result<Tensor> {
        if self.gradients.are_local() {
            return Ok(losses);
        }
        let _span = tracing::trace_span!("train/add_up_gradients").entered();
        // A handful of numbers go by way of the CPU, as what else processes tell each other.
        let device = losses.device();
        let sums = libtorch::catch(|| losses.to_device(Device::Cpu))?;
        self.gradients.finish(&sums)?;
        Ok(libtorch::upload(&sums, device))
    }

    /// The norms of the gradients: of those that are limited, all together, and of those that are not.
    fn clip(&self, max_norm: Option<f64>, phase: &Phase) -> Result<Tensor> {
        let clips = |group: &Group| phase.trains.get(group).is_none_or(|config| config.clip);
        let of = |clipped: bool| -> Vec<&AdamW> {
            let chosen = self.groups.iter().filter(|(group, _)| (max_norm.is_some() && clips(group)) == clipped);
            chosen.map(|(_, optimizer)| optimizer).collect()
        };
        let (limited, free) = (of(true), of(false));
        let mut norms = Vec::new();
        if let Some(max_norm) = max_norm.filter(|_| !limited.is_empty()) {
            let clip = || optimizer::clip_grad_norm(&limited, max_norm);
            norms.push(tracing::trace_span!("train/clip_gradients").in_scope(clip)?);
        }
        if !free.is_empty() {
            norms.push(tracing::trace_span!("train/gradient_norm").in_scope(|| optimizer::grad_norm(&free))?);
        }
        Ok(libtorch::catch(|| Tensor::stack(&norms, 0))?)
    }

    /// Adds the gradients of one batch; returns the terms of its loss, `[terms]`, as parts of the step's, and their names.
    fn backward(
        &mut self,
        trainer: &Trainer,
        phase: &Phase,
        batch: &Batch,
        names: &mut Vec<&'static str>,
    ) -> Result<Tensor> {
        libtorch::catch(|| {
            let states = self.states.of(&trainer.pipeline, batch)?;
            let losses = trainer.losses(phase, batch, &states)?;
            let parts = phase.gradient_accumulation as f64;
            let share = Share::of(&trainer.processes);
            let part = |term: &LossTerm| {
                let part = match term.of_batches {
                    Reduction::Mean => &term.value / parts,
                    Reduction::Sum => term.value.shallow_clone(),
                };
                if share.is_whole() { part } else { part * share.weight(phase.batch_size, term.of_samples) }
            };
            *names = losses.iter().map(|term| term.name).collect();
            let terms: Vec<Tensor> = losses.iter().map(part).collect();
            let total = terms
                .iter()
                .skip(1)
                .fold(terms.first().context("a method has no losses")?.shallow_clone(), |sum, term| sum + term);
            tracing::trace_span!("train/backward").in_scope(|| total.backward());
            Ok(Tensor::stack(&terms, 0).detach())
        })?
    }

    /// All that [`Trainer::resume`] needs, to be written before the next step or after [`PendingCheckpoint::copied`].
    ///
    /// # Errors
    /// When what was learned has values that are not numbers.
    pub fn pending_checkpoint(&self, trainer: &Trainer) -> Result<PendingCheckpoint> {
        self.check_finite(trainer)?;
        let weights = |group| File::new(Checkpoint::weights(group), trainer.parameters(group));
        let mut files: Vec<File> = groups_until(&trainer.config, self.number).into_iter().map(weights).collect();
        if let Some(ema) = &self.ema {
            files.push(File { metadata: ema.metadata().into(), ..File::new(Checkpoint::EMA, ema.averages()) });
        }
        let state = |(group, optimizer): &(Group, AdamW)| File::new(Checkpoint::optimizer(*group), optimizer.tensors());
        files.extend(self.groups.iter().map(state));
        let phase = trainer.phase(self.number)?.0.to_owned();
        Ok(PendingCheckpoint::new(State { number: self.number, step: self.done, phase }, files))
    }

    /// Writes all that [`Trainer::resume`] needs into the folder `path`, whole or not at all.
    ///
    /// # Errors
    /// When the folder cannot be written, or as [`PhaseRun::pending_checkpoint`]; earlier checkpoints are as they were.
    pub fn save(&self, trainer: &Trainer, path: &std::path::Path) -> Result<()> {
        self.pending_checkpoint(trainer)?.write(path)
    }

    /// A loss may still be a number when its gradients no longer were.
    fn check_finite(&self, trainer: &Trainer) -> Result<()> {
        let trained = trainer.trained(self.number)?;
        // All at once, so that a GPU is waited for once.
        let sums = libtorch::catch(|| {
            let sums: Vec<Tensor> = trained.iter().map(|(_, tensor)| tensor.detach().sum(Kind::Double)).collect();
            Tensor::stack(&sums, 0)
        })?;
        for ((name, _), sum) in trained.iter().zip(Download::new(&sums)?.wait()?) {
            ensure!(
                sum.is_finite(),
                "{name} has values that are not numbers after step {} of phase {}; the checkpoint before is good, but \
                 will come here again: start a new run with a lower learning_rate, or with dtype fp32",
                self.done,
                trainer.phase(self.number)?.0
            );
        }
        Ok(())
    }

    /// Ends the phase: where a running average was kept, the model becomes it.
    ///
    /// # Errors
    /// When what was learned has values that are not numbers, or what LibTorch refuses.
    pub fn finish(mut self, trainer: &Trainer) -> Result<()> {
        self.check_finite(trainer)?;
        trainer.method.constrain(&trainer.learned)?;
        self.ema.as_mut().map_or(Ok(()), Ema::swap)
    }
}

impl LaunchedStep {
    /// What the step has shown, when the device has done it.
    ///
    /// # Errors
    /// When the loss is not a number or has diverged, or the gradients are not finite; then the step has changed neither
    /// a parameter nor the optimiser's state.
    pub fn wait(&self) -> Result<StepReport> {
        let shown = tracing::trace_span!("train/wait_for_losses").in_scope(|| self.shown.wait())?;
        let mut report = self.report.clone();
        let terms = report.losses.len();
        for ((_, loss), value) in report.losses.iter_mut().zip(&shown) {
            *loss = *value;
        }
        report.gradient_norm = shown.get(terms).copied().unwrap_or_default();
        report.check(&shown[terms..])?;
        Ok(report)
    }
}

impl StepReport {
    /// A term of the loss, if the step had it.
    pub fn loss(&self, name: &str) -> Option<f64> {
        self.losses.iter().find(|(term, _)| term == name).map(|(_, loss)| *loss)
    }

    fn check(&self, gradient_norms: &[f64]) -> Result<()> {
        let Self { phase, step, losses, .. } = self;
        let total: f64 = losses.iter().map(|(_, loss)| loss).sum();
        let what = if total.is_nan() {
            "the loss has become NaN"
        } else if total.abs() > DIVERGED {
            "the loss has diverged"
        } else if !gradient_norms.iter().all(|norm| norm.is_finite()) {
            "the gradients are no longer finite"
        } else {
            return Ok(());
        };
        let losses: Vec<String> = losses.iter().map(|(name, loss)| format!("{name} {loss:.3e}")).collect();
        bail!(
            "{what} in step {step} of phase {phase} ({}); the last checkpoint is good, but would come here again: start a new \
             run with a lower learning_rate, or with dtype fp32",
            losses.join(", ")
        )
    }
}
