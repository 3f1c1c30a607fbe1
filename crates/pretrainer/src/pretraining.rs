//! One component's training in its folder.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use optimizer::{AdamW, Ema};
use runs::{Entry, Log, RunFolder, Scalars};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tch::Device;
use weights::{Archive, Random, Source};

use crate::assemble::{SCALING_FACTOR, SCALING_FACTOR_FILE};
use crate::autoencoder::Autoencoder;
use crate::contrast::Contrast;
use crate::denoiser::Denoiser;
use crate::part::Component;
use crate::start::{START, holds_training, start_weights};
use crate::{Part, Recipe, Sources, checkpoint};

/// Steps between lines of the log, of which each is the mean.
const LOGGED: u64 = 10;

/// A component on its way.
pub struct Pretraining {
    part: Part,
    recipe: Recipe,
    folder: RunFolder,
    component: Box<dyn Component>,
    optimizer: AdamW,
    ema: Ema,
    done: u64,
}

/// What the last steps have shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Steps done.
    pub step: u64,
    /// The means of what was measured.
    pub values: Vec<(&'static str, f64)>,
}

impl Pretraining {
    /// Begins in `run/PART`, or goes on with what is there. The number of steps may have changed; nothing else may,
    /// the world included.
    ///
    /// # Errors
    /// When the folder is in use or was made by another recipe, or a component that is needed is not there.
    pub fn open(part: Part, recipe: Recipe, sources: &Sources, run: &Path, device: Device) -> Result<Self> {
        recipe.check(part)?;
        let path = run.join(part.name());
        let start = Some(start_weights(run, part)).filter(|start| start.exists());
        let hash = |path: &Path| anyhow::Ok(sha256(&std::fs::read(path)?));
        let mut config = json!({
            "part": part,
            "recipe": recipe,
            "world_sha256": sha256(&serde_json::to_vec(&*sources.world)?),
            "start_sha256": start.as_deref().map(hash).transpose()?,
        });
        if part == Part::Unet {
            // What it listens to and what its latents mean.
            for other in [Part::Vae, Part::Clip] {
                let weights = finished_weights(run, other).with_context(|| {
                    format!(
                        "the U-Net is trained last: train the parts vae and clip in {} to their end first",
                        run.display()
                    )
                })?;
                config[format!("{other}_sha256")] = json!(hash(&weights)?);
            }
        }
        let folder = if holds_training(&path) {
            let folder = RunFolder::resume(&path)?;
            let mut old = folder.saved_config()?.config;
            old["recipe"]["steps"] = json!(recipe.steps);
            let differences = runs::differences(&old, &config);
            ensure!(
                differences.is_empty(),
                "the training in {} cannot go on with something else than it began with: {}",
                path.display(),
                differences.join("; ")
            );
            folder
        } else {
            RunFolder::create_beside(&path, &[START, SCALING_FACTOR_FILE])?
        };
        let latest = checkpoint::latest(&checkpoints(&path));
        let begun = latest.as_ref().map(|(_, checkpoint)| checkpoint.join(checkpoint::WEIGHTS));
        let source: Box<dyn Source> = match begun.or(start) {
            Some(weights) => Box::new(Archive::open(&weights)?),
            None => Box::new(Random { seed: recipe.seed }),
        };
        let component = build(part, &*source, &recipe, sources, run, device)?;
        let trained = component.parameters().train(|_| true);
        let (optimizer, ema) = match &latest {
            Some((_, checkpoint)) => (
                AdamW::load(trained.clone(), &recipe.optimizer, &checkpoint.join(checkpoint::OPTIMIZER))?,
                Ema::load(trained, &recipe.ema, &checkpoint.join(checkpoint::EMA))?,
            ),
            None => (AdamW::new(trained.clone(), &recipe.optimizer)?, Ema::new(trained, &recipe.ema)?),
        };
        let done = latest.map_or(0, |(done, _)| done);
        ensure!(
            done <= recipe.steps,
            "the training in {} has done {done} steps already, which {} steps would not hold",
            path.display(),
            recipe.steps
        );
        let versions = [("libtorch", libtorch::LIBTORCH_VERSION), ("device", &format!("{device:?}"))];
        folder.write_config(&config, versions)?;
        Ok(Self { part, recipe, folder, component, optimizer, ema, done })
    }

    /// Steps done so far, and in all.
    pub fn progress(&self) -> (u64, u64) {
        (self.done, self.recipe.steps)
    }

    /// What the user should know of the lock on the folder; see [`runs::Lock::note`].
    pub fn note(&self) -> Option<&str> {
        self.folder.note()
    }

    /// How many numbers are trained.
    pub fn parameter_count(&self) -> usize {
        self.component.parameters().count()
    }

    /// Trains to the end, or until `stop` says so. At the end the averages are written as the component's weights, and
    /// the losses as a picture. Returns whether it got there.
    ///
    /// # Errors
    /// A loss that is not a number, want of memory or disk; the last checkpoint stays good.
    pub fn run(&mut self, stop: &dyn Fn() -> bool, watch: &mut dyn FnMut(&Report)) -> Result<bool> {
        if self.done < self.recipe.steps {
            // Of a shorter training, which goes on now.
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
        while self.done < self.recipe.steps {
            let learning_rate = self.recipe.learning_rate_at(self.done);
            let values = self.step(learning_rate)?;
            sums.resize(values.len(), ("", 0.0));
            for (sum, (name, value)) in sums.iter_mut().zip(values) {
                *sum = (name, sum.1 + value);
            }
            count += 1.0;
            let stopping = stop();
            let saving =
                stopping || self.done.is_multiple_of(self.recipe.checkpoint_every) || self.done == self.recipe.steps;
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
            if stopping && self.done < self.recipe.steps {
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
        let norm = self.optimizer.clip_grad_norm(self.recipe.max_grad_norm)?;
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
        checkpoint::write(&checkpoints(self.folder.path()), self.done, |folder| {
            self.component.parameters().save(&folder.join(checkpoint::WEIGHTS))?;
            self.optimizer.save(&folder.join(checkpoint::OPTIMIZER))?;
            self.ema.save(&folder.join(checkpoint::EMA))
        })
    }
}

fn checkpoints(folder: &Path) -> PathBuf {
    folder.join("checkpoints")
}

/// The averages at the end; before that, those of the last checkpoint serve.
pub(crate) fn final_weights(folder: &Path) -> PathBuf {
    folder.join("model.safetensors")
}

/// The weights of a component that is not trained any more: those at the end of its training, or those to begin from where
/// it has none.
pub(crate) fn finished_weights(run: &Path, part: Part) -> Result<PathBuf> {
    let folder = run.join(part.name());
    let (last, start) = (final_weights(&folder), start_weights(run, part));
    if last.exists() {
        return Ok(last);
    }
    ensure!(start.exists() && !holds_training(&folder), "{} has no finished part {part}", run.display());
    Ok(start)
}

/// The best weights that a component has so far.
pub(crate) fn best_weights(run: &Path, part: Part) -> Result<PathBuf> {
    if let Ok(finished) = finished_weights(run, part) {
        return Ok(finished);
    }
    if let Some((_, checkpoint)) = checkpoint::latest(&checkpoints(&run.join(part.name()))) {
        return Ok(checkpoint.join(checkpoint::EMA));
    }
    // It has begun, but has no checkpoint yet.
    let start = start_weights(run, part);
    ensure!(start.exists(), "{} has no weights of the part {part} yet", run.display());
    Ok(start)
}

/// The steps that a part's training in `run` was begun with, if it was.
///
/// # Errors
/// When its configuration is damaged.
pub fn recorded_steps(part: Part, run: &Path) -> Result<Option<u64>> {
    #[derive(Deserialize)]
    struct Record {
        recipe: Recipe,
    }
    let folder = run.join(part.name());
    let read = || json::read::<Record>(&folder.join("config.json"), "the configuration of a pretraining run");
    Ok(holds_training(&folder).then(read).transpose()?.map(|record| record.recipe.steps))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn build(
    part: Part,
    source: &dyn Source,
    recipe: &Recipe,
    sources: &Sources,
    run: &Path,
    device: Device,
) -> Result<Box<dyn Component>> {
    Ok(match part {
        Part::Vae => Box::new(Autoencoder::new(source, recipe, sources, device)?),
        Part::Clip => Box::new(Contrast::new(source, recipe, sources, device)?),
        Part::Unet => Box::new(Denoiser::new(source, recipe, sources, run, device)?),
    })
}
