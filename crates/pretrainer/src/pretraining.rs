//! The training of one part, in its folder.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::Device;
use weights::Source;

use crate::autoencoder::Autoencoder;
use crate::contrast::Contrast;
use crate::denoiser::Denoiser;
use crate::folder::{SCALING_FACTOR, finished_weights, holds_training, start_weights};
use crate::training::{Component, Report, Training};
use crate::{Config, Part, Sources};

/// The training of a part.
pub struct Pretraining {
    part: Part,
    training: Training,
}

impl Pretraining {
    /// Starts in `run/PART`, or resumes the training there. The number of steps may have changed; nothing else may, the
    /// world included.
    ///
    /// # Errors
    /// When the folder is in use or has another configuration, or a part that is needed is not there.
    pub fn open(part: Part, config: Config, sources: &Sources, run: &Path, device: Device) -> Result<Self> {
        config.check(part)?;
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
        let given = config.clone();
        let training = Training::open(part.name(), config, &record, &run.join(part.name()), device, |source| {
            build(part, source, &given, sources, run, device)
        })?;
        Ok(Self { part, training })
    }

    /// Steps done so far, and in all.
    pub fn progress(&self) -> (u64, u64) {
        self.training.progress()
    }

    /// What the user should know of the lock on the folder; see [`runs::Lock::note`].
    pub fn note(&self) -> Option<&str> {
        self.training.note()
    }

    /// The number of trained parameters.
    pub fn parameter_count(&self) -> usize {
        self.training.parameter_count()
    }

    /// See [`Training::run`].
    ///
    /// # Errors
    /// As there.
    pub fn run(&mut self, stop: &dyn Fn() -> bool, watch: &mut dyn FnMut(&Report)) -> Result<bool> {
        let (done, steps) = self.progress();
        if self.part == Part::Vae
            && done < steps
            && let Some(run) = self.training.path().parent()
        {
            // Of a shorter training, which is continued now.
            let _ = std::fs::remove_file(run.join(SCALING_FACTOR));
        }
        self.training.run(stop, watch)
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
