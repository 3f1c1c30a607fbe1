//! The phases of a training, as data.

use std::collections::BTreeMap;
use std::fmt;

use indexmap::IndexMap;
use options::LearningRateSchedule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Phases by name, in their order.
pub type Phases = IndexMap<String, Phase>;

/// A phase of a training: what is trained, for how long, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// The groups of parameters that are trained.
    pub trains: BTreeMap<Group, GroupConfig>,
    /// Optimiser steps; 0 leaves the phase out.
    pub steps: usize,
    /// AdamW's learning rate.
    pub learning_rate: f64,
    /// Steps in which the learning rate rises from zero; none in the paper.
    #[serde(default)]
    pub warm_up: usize,
    /// How the learning rate changes after them; it stays in the paper.
    #[serde(default)]
    pub schedule: LearningRateSchedule,
    /// Batch size.
    pub batch_size: usize,
    /// Batches whose gradients make one step.
    #[serde(default = "one")]
    pub gradient_accumulation: usize,
    /// λ_μ: the weight of the squared difference of the attention maps' means.
    #[serde(default)]
    pub lambda_mean: f64,
    /// λ_σ: the weight of the squared difference of the attention maps' variances.
    #[serde(default)]
    pub lambda_variance: f64,
}

/// Parameters that are trained together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// The embedding of the placeholder token.
    Embedding,
    /// The text encoder.
    TextEncoder,
    /// The keys' and values' projections of the U-Net's cross-attention layers.
    KeysValues,
    /// The U-Net's cross-attention layers: every parameter of a module called `attn2`.
    CrossAttention,
    /// The U-Net.
    Unet,
    /// What the method adds to the model, such as LoRA's matrices.
    Adapter,
}

/// How a group is trained otherwise than its phase says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GroupConfig {
    /// The group's own learning rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Whether `max_grad_norm` limits this group's gradients: those of all such groups together.
    #[serde(skip_serializing_if = "is_true")]
    pub clip: bool,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self { learning_rate: None, clip: true }
    }
}

fn one() -> usize {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_true(value: &bool) -> bool {
    *value
}

impl Group {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::Embedding, Self::TextEncoder, Self::KeysValues, Self::CrossAttention, Self::Unet, Self::Adapter];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::TextEncoder => "text_encoder",
            Self::KeysValues => "keys_values",
            Self::CrossAttention => "cross_attention",
            Self::Unet => "unet",
            Self::Adapter => "adapter",
        }
    }

    /// Whether it has the U-Net's parameter `name`.
    pub fn has_unet(self, name: &str) -> bool {
        let attn2 = || name.split('.').any(|part| part == "attn2");
        match self {
            Self::Unet => true,
            Self::CrossAttention => attn2(),
            Self::KeysValues => attn2() && name.split('.').any(|part| part == "to_k" || part == "to_v"),
            Self::Embedding | Self::TextEncoder | Self::Adapter => false,
        }
    }

    /// Whether it is a part of the U-Net, or all of it.
    pub fn is_of_unet(self) -> bool {
        matches!(self, Self::KeysValues | Self::CrossAttention | Self::Unet)
    }

    /// Whether all parameters of `other` are among its own.
    pub fn covers(self, other: Self) -> bool {
        self == other || (self.is_of_unet() && other.is_of_unet() && self > other)
    }

    /// Whether the two have parameters in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Phase {
    /// Whether it trains parameters of a group.
    pub fn changes(&self, group: Group) -> bool {
        self.trains.keys().any(|trained| trained.overlaps(group))
    }

    /// A phase without a regulariser, at a constant learning rate.
    pub fn new(groups: impl IntoIterator<Item = Group>, steps: usize, learning_rate: f64, batch_size: usize) -> Self {
        Self {
            trains: groups.into_iter().map(|group| (group, GroupConfig::default())).collect(),
            steps,
            learning_rate,
            warm_up: 0,
            schedule: LearningRateSchedule::Constant,
            batch_size,
            gradient_accumulation: 1,
            lambda_mean: 0.0,
            lambda_variance: 0.0,
        }
    }

    /// What the learning rate of a step, counted from 0, is of the learning rate, as diffusers' `get_scheduler` with
    /// `num_warmup_steps` has it.
    fn factor_at(&self, step: usize) -> f64 {
        if step < self.warm_up {
            return step as f64 / self.warm_up as f64;
        }
        let rest = self.steps.saturating_sub(self.warm_up).max(1);
        let progress = ((step - self.warm_up) as f64 / rest as f64).min(1.0);
        match self.schedule {
            LearningRateSchedule::Constant => 1.0,
            LearningRateSchedule::Linear => 1.0 - progress,
            LearningRateSchedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        }
    }

    /// The learning rate of a step, counted from 0, of a group.
    pub fn learning_rate_at(&self, step: usize, group: Group) -> f64 {
        let own = self.trains.get(&group).and_then(|group| group.learning_rate);
        own.unwrap_or(self.learning_rate) * self.factor_at(step)
    }

    /// Whether attention is regularised at all.
    pub fn regularizes(&self) -> bool {
        self.lambda_mean > 0.0 || self.lambda_variance > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `get_scheduler(name, optimizer, num_warmup_steps=2, num_training_steps=6)` of diffusers with a learning rate of 1.
    #[test]
    fn learning_rates_are_diffusers() {
        let rates = |schedule| {
            let phase = Phase { warm_up: 2, schedule, ..Phase::new([Group::Unet], 6, 1.0, 1) };
            [0, 1, 2, 3, 4, 5].map(|step| (phase.learning_rate_at(step, Group::Unet) * 1e6).round() / 1e6)
        };
        assert_eq!(rates(LearningRateSchedule::Constant), [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(rates(LearningRateSchedule::Linear), [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]);
        assert_eq!(rates(LearningRateSchedule::Cosine), [0.0, 0.5, 1.0, 0.853_553, 0.5, 0.146_447]);
        let phase = Phase::new([Group::Unet], 500, 2e-6, 8);
        assert_eq!([0, 1, 499].map(|step| phase.learning_rate_at(step, Group::Unet)), [2e-6; 3]);
    }

    #[test]
    fn a_group_may_have_a_learning_rate_of_its_own() {
        let mut phase = Phase { warm_up: 2, ..Phase::new([Group::Embedding, Group::Unet], 6, 1.0, 1) };
        phase.trains.insert(Group::Embedding, GroupConfig { learning_rate: Some(4.0), ..GroupConfig::default() });
        assert_eq!([Group::Embedding, Group::Unet].map(|group| phase.learning_rate_at(1, group)), [2.0, 0.5]);
    }

    #[test]
    fn larger_groups_cover_smaller_ones() {
        let names = ["conv_in.weight", "a.attn2.to_q.weight", "a.attn2.to_k.weight", "a.attn1.to_v.weight"];
        for a in Group::ALL {
            for b in Group::ALL {
                let all = names.iter().all(|name| a.has_unet(name) || !b.has_unet(name));
                assert_eq!(a.covers(b), a == b || (all && a.is_of_unet() && b.is_of_unet()), "{a} {b}");
            }
        }
        assert!(Group::KeysValues.has_unet(names[2]) && !Group::KeysValues.has_unet(names[1]));
    }
}
