//! The training of one model in its folder: steps, log, checkpoints, averages.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use optimizer::{AdamW, Ema};
use runs::{Entry, Log, RunFolder, Scalars};
use serde_json::Value;
use tch::{Device, Tensor};
use weights::{Archive, Parameters, Random, Source};

use crate::Config;
use crate::folder::{
    EMA, OPTIMIZER, SCALING_FACTOR_FILE, START, WEIGHTS, checkpoints, final_weights, holds_training, write_checkpoint,
};

/// Steps between lines of the log, of which each is the mean.
const LOGGED: u64 = 10;

/// A model that can be trained.
pub trait Component {
    /// All of its parameters, by name.
    fn parameters(&self) -> &Parameters;

    /// The losses of step `step` (from 0) as scalars; the first is the one to minimise. All randomness derives from the step.
    ///
    /// # Errors
    /// What the model refuses.
    fn losses(&mut self, step: u64) -> Result<Vec<(&'static str, Tensor)>>;

    /// After how many steps something is prepared for the next ones; `None` where all steps are alike.
    fn period(&self) -> Option<u64> {
        None
    }
}

/// Where a record has the steps.
const STEPS: &str = "/recipe/steps";

/// The training of a model.
pub struct Training {
    name: &'static str,
    config: Config,
    folder: RunFolder,
    component: Box<dyn Component>,
    optimizer: AdamW,
    ema: Ema,
    done: u64,
}

/// Progress: the means over the last steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Steps done.
    pub step: u64,
    /// Losses and other values by name.
    pub values: Vec<(&'static str, f64)>,
}

impl Training {
    /// Starts in the folder `path`, or resumes the training there. `record` is all that decides what it does; `record.recipe` is the
    /// configuration, of which the steps may change before it resumes, and nothing else may. `build` makes the model from
    /// parameters by name; where it starts from none, they are random.
    ///
    /// # Errors
    /// When the folder is in use, or has another record, or the model cannot be built.
    pub fn open(
        name: &'static str,
        config: Config,
        record: &Value,
        path: &Path,
        device: Device,
        build: impl FnOnce(&dyn Source) -> Result<Box<dyn Component>>,
    ) -> Result<Self> {
        let folder = if holds_training(path) {
            let folder = RunFolder::resume(path)?;
            let mut old = folder.saved_config()?.config;
            if let (Some(old), Some(steps)) = (old.pointer_mut(STEPS), record.pointer(STEPS)) {
                *old = steps.clone();
            }
            let differences = runs::differences(&old, record);
            ensure!(
                differences.is_empty(),
                "the training in {} cannot be resumed with another configuration: {}",
                path.display(),
                differences.join("; ")
            );
            folder
        } else {
            RunFolder::create_beside(path, &[START, SCALING_FACTOR_FILE])?
        };
        let latest = checkpoints(path).latest()?;
        let trained = latest.as_ref().map(|(_, checkpoint)| checkpoint.join(WEIGHTS));
        let start = Some(path.join(START)).filter(|start| start.exists());
        let source: Box<dyn Source> = match trained.or(start) {
            Some(weights) => Box::new(Archive::open(&weights)?),
            None => Box::new(Random { seed: config.seed }),
        };
        let component = build(&*source)?;
        let trained = component.parameters().train(|_| true);
        let (optimizer, ema) = match &latest {
            Some((_, checkpoint)) => (
                AdamW::load(trained.clone(), &config.optimizer, &checkpoint.join(OPTIMIZER))?,
                Ema::load(trained, &config.ema, &checkpoint.join(EMA))?,
            ),
            None => (AdamW::new(trained.clone(), &config.optimizer)?, Ema::new(trained, &config.ema)?),
        };
        let done = latest.map_or(0, |(done, _)| done);
        ensure!(
            done <= config.steps,
            "the training in {} has done {done} steps already, more than the {} that are configured",
            path.display(),
            config.steps
        );
        let versions = [("libtorch", libtorch::LIBTORCH_VERSION), ("device", &format!("{device:?}"))];
        folder.write_config(record, versions)?;
        Ok(Self { name, config, folder, component, optimizer, ema, done })
    }

    /// Steps done so far, and in all.
    pub fn progress(&self) -> (u64, u64) {
        (self.done, self.config.steps)
    }

    /// What the user should know of the lock on the folder; see [`runs::Lock::note`].
    pub fn note(&self) -> Option<&str> {
        self.folder.note()
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The number of trained parameters.
    pub fn parameter_count(&self) -> usize {
        self.component.parameters().count()
    }

    /// Trains to the end, or until `stop` returns true. At the end the averages are written as the component's weights, and
    /// the losses as an image. Returns whether it got there.
    ///
    /// # Errors
    /// A loss that is not finite, lack of memory or disk space; the last checkpoint stays good.
    pub fn run(&mut self, stop: &dyn Fn() -> bool, watch: &mut dyn FnMut(&Report)) -> Result<bool> {
        if self.done < self.config.steps {
            // Of a shorter training, which is continued now.
            let _ = std::fs::remove_file(final_weights(self.folder.path()));
        }
        let mut log = Log::open(self.folder.path(), self.done)?;
        let mut scalars = Scalars::open(self.folder.path(), self.done)?;
        let mut sums: Vec<(&'static str, f64)> = Vec::new();
        let (mut count, mut since) = (0.0, Instant::now());
        while self.done < self.config.steps {
            let learning_rate = self.config.learning_rate_at(self.done);
            let values = self.step(learning_rate)?;
            sums.resize(values.len(), ("", 0.0));
            for (sum, (name, value)) in sums.iter_mut().zip(values) {
                *sum = (name, sum.1 + value);
            }
            count += 1.0;
            let stopping = stop();
            let saving =
                stopping || self.done.is_multiple_of(self.config.checkpoint_every) || self.done == self.config.steps;
            if saving || self.done.is_multiple_of(LOGGED) {
                let mut values: Vec<_> = sums.drain(..).map(|(name, sum)| (name, sum / count)).collect();
                values.push(("learning_rate", learning_rate));
                values.push(("seconds", since.elapsed().as_secs_f64() / count));
                (count, since) = (0.0, Instant::now());
                let entry = Entry::now(self.done, self.name, values.clone());
                log.append(&entry)?;
                scalars.append(&entry)?;
                watch(&Report { step: self.done, values });
            }
            if saving {
                log.sync()?;
                self.save()?;
            }
            if stopping && self.done < self.config.steps {
                return Ok(false);
            }
        }
        let folder = self.folder.path();
        weights::save(&final_weights(folder), self.ema.averages())?;
        let curves = runs::draw_curves(&runs::curves(&runs::read_log(folder)?));
        images::save_png(&folder.join("curves.png"), &curves, &[])?;
        Ok(true)
    }

    fn step(&mut self, learning_rate: f64) -> Result<Vec<(&'static str, f64)>> {
        let values = libtorch::catch(|| -> Result<Vec<(&'static str, f64)>> {
            self.optimizer.zero_grad()?;
            let losses = self.component.losses(self.done)?;
            losses[0].1.backward();
            Ok(losses.iter().map(|(name, loss)| (*name, loss.double_value(&[]))).collect())
        })??;
        if !values[0].1.is_finite() {
            bail!(
                "the loss of {} is {} in step {}; the last checkpoint is good",
                self.name,
                values[0].1,
                self.done + 1
            );
        }
        let norm = self.optimizer.clip_grad_norm(self.config.max_grad_norm)?;
        if !libtorch::catch(|| norm.double_value(&[]))?.is_finite() {
            bail!(
                "the gradients of {} are not finite in step {}; the last checkpoint is good",
                self.name,
                self.done + 1
            );
        }
        self.optimizer.step(learning_rate)?;
        self.ema.update()?;
        self.done += 1;
        Ok(values)
    }

    fn save(&self) -> Result<()> {
        write_checkpoint(self.folder.path(), self.done, |folder| {
            self.component.parameters().save(&folder.join(WEIGHTS))?;
            self.optimizer.save(&folder.join(OPTIMIZER))?;
            self.ema.save(&folder.join(EMA))
        })
    }
}
