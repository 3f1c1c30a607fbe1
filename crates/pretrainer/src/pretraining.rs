//! The training of one part, in its folder.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use optimizer::{AdamW, Ema};
use runs::{Entry, Log, RunFolder, Scalars};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::Device;
use weights::{Archive, Random, Source};

use crate::autoencoder::Autoencoder;
use crate::contrast::Contrast;
use crate::denoiser::Denoiser;
use crate::folder::{
    EMA, OPTIMIZER, SCALING_FACTOR, SCALING_FACTOR_FILE, START, WEIGHTS, checkpoints, final_weights, finished_weights,
    holds_training, start_weights, write_checkpoint,
};
use crate::part::Component;
use crate::{Config, Part, Sources};

/// Steps between lines of the log, of which each is the mean.
const LOGGED: u64 = 10;

/// The training of a part.
pub struct Pretraining {
    part: Part,
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

impl Pretraining {
    /// Starts in `run/PART`, or resumes the training there. The number of steps may have changed; nothing else may, the
    /// world included.
    ///
    /// # Errors
    /// When the folder is in use or has another configuration, or a part that is needed is not there.
    pub fn open(part: Part, config: Config, sources: &Sources, run: &Path, device: Device) -> Result<Self> {
        config.check(part)?;
        let path = run.join(part.name());
        let start = Some(start_weights(run, part)).filter(|start| start.exists());
        let sha256_of = |path: &Path| anyhow::Ok(sha256(&std::fs::read(path)?));
        // The U-Net's latents and conditions come from the other two.
        let other = |other: Part| -> Result<Option<String>> {
            if part != Part::Unet {
                return Ok(None);
            }
            let weights = finished_weights(run, other).with_context(|| {
                format!(
                    "the U-Net is trained last: train the parts vae and clip in {} to their end first",
                    run.display()
                )
            })?;
            sha256_of(&weights).map(Some)
        };
        let record = Record {
            part,
            config: config.clone(),
            world_sha256: sha256(&serde_json::to_vec(&*sources.world)?),
            start_sha256: start.as_deref().map(sha256_of).transpose()?,
            vae_sha256: other(Part::Vae)?,
            clip_sha256: other(Part::Clip)?,
        };
        let record = serde_json::to_value(record)?;
        let folder = if holds_training(&path) {
            let folder = RunFolder::resume(&path)?;
            let mut old: Record = serde_json::from_value(folder.saved_config()?.config)?;
            old.config.steps = config.steps;
            let differences = runs::differences(&serde_json::to_value(old)?, &record);
            ensure!(
                differences.is_empty(),
                "the training in {} cannot be resumed with another configuration: {}",
                path.display(),
                differences.join("; ")
            );
            folder
        } else {
            RunFolder::create_beside(&path, &[START, SCALING_FACTOR_FILE])?
        };
        let latest = checkpoints(&path).latest()?;
        let trained = latest.as_ref().map(|(_, checkpoint)| checkpoint.join(WEIGHTS));
        let source: Box<dyn Source> = match trained.or(start) {
            Some(weights) => Box::new(Archive::open(&weights)?),
            None => Box::new(Random { seed: config.seed }),
        };
        let component = build(part, &*source, &config, sources, run, device)?;
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
        folder.write_config(&record, versions)?;
        Ok(Self { part, config, folder, component, optimizer, ema, done })
    }

    /// Steps done so far, and in all.
    pub fn progress(&self) -> (u64, u64) {
        (self.done, self.config.steps)
    }

    /// What the user should know of the lock on the folder; see [`runs::Lock::note`].
    pub fn note(&self) -> Option<&str> {
        self.folder.note()
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
            if self.part == Part::Vae
                && let Some(run) = self.folder.path().parent()
            {
                let _ = std::fs::remove_file(run.join(SCALING_FACTOR));
            }
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
                let entry = Entry::now(self.done, self.part.name(), values.clone());
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
        let curves = runs::draw_curves(&runs::read_log(folder)?);
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
                self.part,
                values[0].1,
                self.done + 1
            );
        }
        let norm = self.optimizer.clip_grad_norm(self.config.max_grad_norm)?;
        if !libtorch::catch(|| norm.double_value(&[]))?.is_finite() {
            bail!(
                "the gradients of {} are not finite in step {}; the last checkpoint is good",
                self.part,
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

/// What is recorded in a part's folder. A training is resumed only with the same, but for its steps.
#[derive(Serialize, Deserialize)]
struct Record {
    part: Part,
    #[serde(rename = "recipe")]
    config: Config,
    world_sha256: String,
    start_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vae_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clip_sha256: Option<String>,
}

/// The configured steps of a part's training in `run`, if there is one.
///
/// # Errors
/// When its configuration is damaged.
pub fn recorded_steps(part: Part, run: &Path) -> Result<Option<u64>> {
    let folder = run.join(part.name());
    let read = || json::read::<Record>(&folder.join("config.json"), "the configuration of a pretraining run");
    Ok(holds_training(&folder).then(read).transpose()?.map(|record| record.config.steps))
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

pub(crate) fn build(
    part: Part,
    source: &dyn Source,
    config: &Config,
    sources: &Sources,
    run: &Path,
    device: Device,
) -> Result<Box<dyn Component>> {
    Ok(match part {
        Part::Vae => Box::new(Autoencoder::new(source, config, sources, device)?),
        Part::Clip => Box::new(Contrast::new(source, config, sources, device)?),
        Part::Unet => Box::new(Denoiser::new(source, config, sources, run, device)?),
    })
}
