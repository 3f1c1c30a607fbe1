//! The configuration of a part's training.

use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tch::Kind;

use crate::Part;

/// Scenes of a batch for CLIP that differ in a thing alone. Of scenes that differ in everything, colour and background find
/// the right one nearly always: after "blue", hardly 4 % of the variance of a noun's hidden state was the noun's then, and
/// the U-Net generated blots.
pub(crate) const FAMILY: usize = 8;

/// The most optimiser steps of a part; its preset has 25000 at most.
pub const MAX_STEPS: u64 = 100_000_000;
/// Scenes in a batch, or a pool.
const MAX_SCENES: usize = 65_536;
/// AdamW moves a parameter by about the learning rate in each step.
const MAX_LEARNING_RATE: f64 = 10.0;

/// The configuration of a part's training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The seed of all randomness.
    pub seed: u64,
    /// Optimiser steps.
    pub steps: u64,
    /// Scenes in a step.
    pub batch_size: usize,
    /// The learning rate between warm-up and decay.
    pub learning_rate: f64,
    /// Steps in which the learning rate rises.
    pub warm_up: u64,
    /// The last part of the steps, in which the learning rate falls to zero, in (0, 1].
    pub decay: f64,
    /// AdamW's other values.
    pub optimizer: optimizer::Config,
    /// The norm that gradients are clipped to.
    pub max_grad_norm: f64,
    /// The running average that becomes the trained weights.
    pub ema: optimizer::EmaConfig,
    /// For the U-Net: scenes that are rendered and encoded at once.
    pub pool: usize,
    /// The precision of computation; parameters and the optimiser's state are f32.
    pub dtype: Dtype,
    /// Save a checkpoint every so many steps.
    pub checkpoint_every: u64,
}

/// The precision of computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floats.
    Fp32,
    /// bfloat16: 1.6 times as fast on a processor that multiplies it (AVX-512 BF16).
    Bf16,
}

impl FromStr for Dtype {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "fp32" => Ok(Self::Fp32),
            "bf16" => Ok(Self::Bf16),
            _ => bail!("there is no dtype {:?}; the dtypes are fp32 and bf16", terminal::shortened(name)),
        }
    }
}

impl Dtype {
    /// LibTorch's.
    pub fn kind(self) -> Kind {
        match self {
            Self::Fp32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

impl Config {
    /// The preset that trains the miniature. The one in fixtures was trained in pieces, which its card tells.
    pub fn preset(part: Part) -> Self {
        let preset = |steps, batch_size, learning_rate, decay| Self {
            seed: 0,
            steps,
            batch_size,
            learning_rate,
            warm_up: 100,
            decay: 0.3,
            optimizer: optimizer::Config { beta2: 0.99, ..optimizer::Config::default() },
            max_grad_norm: 1.0,
            ema: optimizer::EmaConfig { decay, warm_up: true },
            pool: 2048,
            dtype: Dtype::Bf16,
            checkpoint_every: 100,
        };
        match part {
            Part::Vae => preset(6000, 8, 2e-3, 0.99),
            Part::Clip => preset(4000, 64, 1e-3, 0.99),
            Part::Unet => preset(25000, 32, 1.2e-3, 0.998),
        }
    }

    /// Checks that a part can be trained by it, before anything slow.
    ///
    /// # Errors
    /// When the part cannot be trained in batches of this size.
    pub fn check(&self, part: Part) -> Result<()> {
        let size = self.batch_size;
        ensure!(size > 0, "the part {part} needs at least one scene in a step");
        limits::within("steps", self.steps, 1..=MAX_STEPS, "they are done one by one")?;
        limits::within("batch_size", size, 1..=MAX_SCENES, "a batch is held in memory")?;
        limits::within("pool", self.pool, 1..=MAX_SCENES, "its scenes are held in memory")?;
        limits::within("checkpoint_every", self.checkpoint_every, 1..=u64::MAX, "checkpoints are steps apart")?;
        limits::within("decay", self.decay, 1e-6..=1.0, "it is a part of the steps")?;
        let rate = self.learning_rate;
        limits::within("learning_rate", rate, 0.0..=MAX_LEARNING_RATE, "larger steps train nothing")?;
        self.optimizer.validate()?;
        self.ema.validate()?;
        match part {
            Part::Vae => {}
            Part::Clip => ensure!(
                size.is_multiple_of(FAMILY),
                "CLIP is trained in batches of families of {FAMILY} scenes, not in batches of {size}"
            ),
            Part::Unet => ensure!(
                self.pool.is_multiple_of(size),
                "the U-Net is trained in batches that divide the pool of {} scenes, not in batches of {size}",
                self.pool
            ),
        }
        Ok(())
    }

    /// The learning rate of step `step` (from 0): up, level, and down to zero at the end, so that a run may be made
    /// longer while it is level.
    pub fn learning_rate_at(&self, step: u64) -> f64 {
        let up = (step + 1) as f64 / self.warm_up.max(1) as f64;
        let down = self.steps.saturating_sub(step) as f64 / (self.decay * self.steps.max(1) as f64);
        self.learning_rate * up.min(1.0).min(down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_stays_and_falls() {
        let config = Config { steps: 1000, warm_up: 100, learning_rate: 1.0, ..Config::preset(Part::Unet) };
        assert_eq!(config.learning_rate_at(0), 0.01);
        assert_eq!(config.learning_rate_at(99), 1.0);
        assert_eq!(config.learning_rate_at(700), 1.0);
        assert!((config.learning_rate_at(850) - 0.5).abs() < 1e-9);
        assert!(config.learning_rate_at(999) < 0.01);
        let longer = Config { steps: 2000, ..config.clone() };
        assert!((0..=700).all(|step| config.learning_rate_at(step) == longer.learning_rate_at(step)));
    }
}
