//! One stage: what it trains, its optimiser, its steps.

use anyhow::{Context, Result, bail, ensure};
use libtorch::Download;
use optimizer::{AdamW, Ema};
use runs::{Stage, StageConfig, TrainConfig};
use sampling::Pipeline;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::batches::{BatchIndex, Batches};
use crate::checkpoint::{Checkpoint, File, Snapshot, State};
use crate::{Batch, Losses, Objective, Subject};

/// A loss that a working model is far from: one that knows nothing has a diffusion loss of about 1.
const DIVERGED: f64 = 1e3;

/// Whether a stage trains the U-Net's parameter `name`. Stage 2 trains what the authors' code does: every parameter of a
/// module called `attn2`, and neither its norm nor anything around it.
pub fn trains(stage: Stage, name: &str) -> bool {
    match stage {
        Stage::Embedding => false,
        Stage::CrossAttention => name.split('.').any(|part| part == "attn2"),
        Stage::Unet => true,
    }
}

/// The pipeline, the subject and how they are trained.
#[derive(Debug)]
pub struct Trainer {
    /// The configuration.
    pub config: TrainConfig,
    /// The model; its U-Net is what stages 2 and 3 change.
    pub pipeline: Pipeline,
    /// The new word.
    pub subject: Subject,
    objective: Objective,
}

/// A step that the device has been told to do, and may not have done yet.
#[derive(Debug)]
#[must_use = "wait for it: only then is it known whether the loss was a number"]
pub struct LaunchedStep {
    stage: Stage,
    step: usize,
    steps: usize,
    /// The two losses, and the 2-norm of the gradients before they are clipped.
    shown: Download,
}

/// What one step has shown.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The stage.
    pub stage: Stage,
    /// Steps done in the stage, counted from 1.
    pub step: usize,
    /// Steps of the stage in all.
    pub steps: usize,
    /// The diffusion loss, averaged over the step's batches.
    pub diffusion_loss: f64,
    /// The regulariser, likewise.
    pub attention_loss: f64,
}

/// A stage on its way.
#[derive(Debug)]
pub struct StageRun {
    stage: Stage,
    done: usize,
    optimizer: AdamW,
    ema: Option<Ema>,
    /// The hidden states of the prompts that do not change, once they are known.
    constant: Option<Vec<Tensor>>,
}

impl Trainer {
    /// Adds the subject to the pipeline and freezes everything; f32 parameters only.
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
        let objective = Objective::new(&pipeline, &config)?;
        let subject = Subject::add(&mut pipeline, &config)?;
        Ok(Self { config, pipeline, subject, objective })
    }

    /// The parameters that a stage trains, by name.
    pub fn trained(&self, stage: Stage) -> Vec<(&str, &Tensor)> {
        match stage {
            Stage::Embedding => vec![(self.config.placeholder.as_str(), &self.subject.embedding)],
            _ => self.pipeline.parameters.unet.iter().filter(|(name, _)| trains(stage, name)).collect(),
        }
    }

    /// Starts a stage with nothing remembered, as every stage does.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn start(&self, stage: Stage) -> Result<StageRun> {
        self.freeze_all_but(stage);
        let optimizer = AdamW::new(self.trained(stage), &self.config.optimizer)?;
        let ema = self.ema_config(stage).map(|ema| Ema::new(self.trained(stage), ema)).transpose()?;
        Ok(StageRun { stage, done: 0, optimizer, ema, constant: None })
    }

    /// Resumes from a checkpoint.
    ///
    /// # Errors
    /// When the checkpoint is damaged or of another model.
    pub fn resume(&self, checkpoint: &Checkpoint) -> Result<StageRun> {
        checkpoint.check(&self.config)?;
        let stage = checkpoint.state.stage;
        self.freeze_all_but(stage);
        checkpoint.restore(&[(self.config.placeholder.as_str(), &self.subject.embedding)], Checkpoint::EMBEDDING)?;
        if stage != Stage::Embedding {
            checkpoint.restore(&self.trained(stage), Checkpoint::UNET)?;
        }
        let path = checkpoint.file(Checkpoint::OPTIMIZER);
        let optimizer = AdamW::load(self.trained(stage), &self.config.optimizer, &path)?;
        let load = |ema| Ema::load(self.trained(stage), ema, &checkpoint.file(Checkpoint::EMA));
        let ema = self.ema_config(stage).map(load).transpose()?;
        Ok(StageRun { stage, done: checkpoint.state.step, optimizer, ema, constant: None })
    }

    fn ema_config(&self, stage: Stage) -> Option<&optimizer::EmaConfig> {
        self.config.ema.as_ref().filter(|_| stage == Stage::Unet)
    }

    fn freeze_all_but(&self, stage: Stage) {
        let parameters = &self.pipeline.parameters;
        for frozen in [&parameters.text_encoder, &parameters.vae] {
            frozen.train(|_| false);
        }
        parameters.unet.train(|name| trains(stage, name));
        let _ = self.subject.embedding.set_requires_grad(stage == Stage::Embedding);
    }

    /// The losses of a batch, given the hidden states of the prompt and, with prior preservation, of the category's.
    ///
    /// # Errors
    /// What the models refuse.
    pub fn losses(&self, stage: &StageConfig, batch: &Batch, encoder_hidden_states: &Tensor) -> Result<Losses> {
        self.objective.losses(&self.pipeline, &self.subject, stage, batch, encoder_hidden_states)
    }
}

impl StageRun {
    /// The stage.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Steps done so far.
    pub fn done(&self) -> usize {
        self.done
    }

    /// One step of the optimiser; a GPU is not waited for. Where the loss is not a number or has diverged, or the gradients
    /// are not finite, the parameters and the optimiser's state are left as they were, and [`LaunchedStep::wait`] says so:
    /// the next step may be launched before.
    ///
    /// # Errors
    /// What LibTorch refuses.
    pub fn step(&mut self, trainer: &Trainer, batches: &mut dyn Batches) -> Result<LaunchedStep> {
        let _span = tracing::trace_span!("train/step").entered();
        let config = *trainer.config.stage(self.stage);
        let parts = config.gradient_accumulation;
        let mut sums: Option<Tensor> = None;
        self.optimizer.zero_grad()?;
        for part in 0..parts {
            let place = BatchIndex { stage: self.stage, step: self.done, part };
            let batch = tracing::trace_span!("train/batch").in_scope(|| batches.batch(place))?;
            let losses = self.backward(trainer, &config, &batch)?;
            sums = Some(libtorch::catch(|| sums.map_or_else(|| losses.shallow_clone(), |sums| sums + &losses))?);
        }
        let losses = sums.context("gradient_accumulation is 0")?;
        let norm = match trainer.config.max_grad_norm {
            Some(max_norm) => {
                tracing::trace_span!("train/clip_gradients").in_scope(|| self.optimizer.clip_grad_norm(max_norm))
            }
            None => tracing::trace_span!("train/gradient_norm").in_scope(|| self.optimizer.grad_norm()),
        }?;
        let (diverged, shown) = libtorch::catch(|| {
            // Comparing NaN gives false.
            let sound = losses.sum(Kind::Float).abs().le(DIVERGED).logical_and(&norm.isfinite());
            (sound.logical_not().to_kind(Kind::Float), Tensor::cat(&[losses, norm.reshape([1])], 0))
        })?;
        tracing::trace_span!("train/optimizer")
            .in_scope(|| self.optimizer.step_unless(config.learning_rate_at(self.done), Some(&diverged)))?;
        if let Some(ema) = &mut self.ema {
            tracing::trace_span!("train/running_average").in_scope(|| ema.update())?;
        }
        self.done += 1;
        Ok(LaunchedStep { stage: self.stage, step: self.done, steps: config.steps, shown: Download::new(&shown)? })
    }

    /// Adds the gradients of one batch; returns its two losses, \[2\], as parts of the step's.
    fn backward(&mut self, trainer: &Trainer, config: &StageConfig, batch: &Batch) -> Result<Tensor> {
        libtorch::catch(|| {
            let prompt = self.prompt(trainer)?;
            let losses = trainer.losses(config, batch, &prompt)?;
            let (diffusion, attention) = trainer.objective.divisors(config.gradient_accumulation);
            let [diffusion, attention] = [losses.diffusion / diffusion, losses.attention / attention];
            tracing::trace_span!("train/backward").in_scope(|| (&diffusion + &attention).backward());
            Ok(Tensor::stack(&[diffusion.detach(), attention.detach()], 0))
        })?
    }

    /// The hidden states [1, positions, width] of the prompt, with a graph while \[V\] is learned and else computed
    /// once; with prior preservation [2, positions, width], the category's prompt second.
    fn prompt(&mut self, trainer: &Trainer) -> Result<Tensor> {
        let encode = || trainer.pipeline.text_encoder.forward(&trainer.subject.prompt_ids);
        if self.constant.is_none() {
            self.constant = Some(tch::no_grad(|| {
                let prior = trainer.config.prior.as_ref();
                let prior = prior.map(|prior| trainer.config.fill(&prior.prompt));
                let prior = prior.map(|prompt| trainer.pipeline.encode_prompts(&[&prompt])).transpose()?;
                let prompt = (self.stage != Stage::Embedding).then(encode).transpose()?;
                let known: Vec<Tensor> = prompt.into_iter().chain(prior).collect();
                anyhow::Ok(known)
            })?);
        }
        let constant = self.constant.as_deref().unwrap_or_default();
        let learned = (self.stage == Stage::Embedding).then(encode).transpose()?;
        let states: Vec<&Tensor> = learned.iter().chain(constant).collect();
        Ok(Tensor::cat(&states, 0))
    }

    /// All that [`Trainer::resume`] needs, to be written before the next step or after [`Snapshot::copied`].
    ///
    /// # Errors
    /// When what was learned has values that are not numbers.
    pub fn snapshot(&self, trainer: &Trainer) -> Result<Snapshot> {
        self.check_finite(trainer)?;
        let embedding = [(trainer.config.placeholder.as_str(), &trainer.subject.embedding)];
        let mut files = vec![File::new(Checkpoint::EMBEDDING, embedding)];
        if self.stage != Stage::Embedding {
            files.push(File::new(Checkpoint::UNET, trainer.trained(self.stage)));
        }
        if let Some(ema) = &self.ema {
            files.push(File { metadata: ema.metadata().into(), ..File::new(Checkpoint::EMA, ema.averages()) });
        }
        files.push(File::new(Checkpoint::OPTIMIZER, self.optimizer.tensors()));
        Ok(Snapshot::new(State { stage: self.stage, step: self.done }, files))
    }

    /// Writes all that [`Trainer::resume`] needs into the folder `path`, whole or not at all.
    ///
    /// # Errors
    /// When the folder cannot be written, or as [`StageRun::snapshot`]; earlier checkpoints are as they were.
    pub fn save(&self, trainer: &Trainer, path: &std::path::Path) -> Result<()> {
        self.snapshot(trainer)?.write(path)
    }

    /// A loss may still be a number when its gradients no longer were.
    fn check_finite(&self, trainer: &Trainer) -> Result<()> {
        let trained = trainer.trained(self.stage);
        // All at once, so that a GPU is waited for once.
        let sums = libtorch::catch(|| {
            let sums: Vec<Tensor> = trained.iter().map(|(_, tensor)| tensor.detach().sum(Kind::Double)).collect();
            Tensor::stack(&sums, 0)
        })?;
        for ((name, _), sum) in trained.iter().zip(Download::new(&sums)?.wait()?) {
            ensure!(
                sum.is_finite(),
                "{name} has values that are not numbers after step {} of stage {}; the checkpoint before is good, but \
                 will come here again: start a new run with a lower learning_rate, or with dtype fp32",
                self.done,
                self.stage
            );
        }
        Ok(())
    }

    /// Ends the stage: where a running average was kept, the model becomes it.
    ///
    /// # Errors
    /// When what was learned has values that are not numbers, or what LibTorch refuses.
    pub fn finish(mut self, trainer: &Trainer) -> Result<()> {
        self.check_finite(trainer)?;
        match &mut self.ema {
            Some(ema) => ema.swap(),
            None => Ok(()),
        }
    }
}

impl LaunchedStep {
    /// Waits until the step is done.
    ///
    /// # Errors
    /// When the loss is not a number or has diverged, or the gradients are not finite; then the step has changed neither
    /// a parameter nor the optimiser's state.
    pub fn wait(&self) -> Result<StepReport> {
        let shown = tracing::trace_span!("train/wait_for_losses").in_scope(|| self.shown.wait())?;
        let &Self { stage, step, steps, .. } = self;
        let report = StepReport { stage, step, steps, diffusion_loss: shown[0], attention_loss: shown[1] };
        report.check(shown[2])?;
        Ok(report)
    }
}

impl StepReport {
    fn check(&self, gradient_norm: f64) -> Result<()> {
        let Self { stage, step, diffusion_loss, attention_loss, .. } = self;
        let total = diffusion_loss + attention_loss;
        let what = if total.is_nan() {
            "the loss has become NaN"
        } else if total.abs() > DIVERGED {
            "the loss has diverged"
        } else if !gradient_norm.is_finite() {
            "the gradients are no longer finite"
        } else {
            return Ok(());
        };
        bail!(
            "{what} in step {step} of stage {stage} (diffusion {diffusion_loss:.3e}, attention {attention_loss:.3e}); the \
             last checkpoint is good, but would come here again: start a new run with a lower learning_rate, or with \
             dtype fp32"
        )
    }
}
