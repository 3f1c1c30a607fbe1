//! The optimiser's values.

use serde::{Deserialize, Serialize};

/// A value that is out of range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{key} is {value}, but must be {allowed}")]
pub struct OutOfRange {
    pub(crate) key: &'static str,
    pub(crate) value: f64,
    pub(crate) allowed: &'static str,
}

fn fraction(key: &'static str, value: f64) -> Result<(), OutOfRange> {
    if (0.0..1.0).contains(&value) { Ok(()) } else { Err(OutOfRange { key, value, allowed: "in 0..1" }) }
}

/// AdamW's values that are the same for all parameters and steps; `torch.optim.AdamW`'s defaults for absent keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schemars", schemars(rename = "AdamW"))]
pub struct Config {
    /// Decay of the mean of the gradients, in [0, 1).
    pub beta1: f64,
    /// Decay of the mean of their squares, in [0, 1).
    pub beta2: f64,
    /// Added to the root of the mean of squares.
    pub eps: f64,
    /// A step multiplies the parameters by 1 - learning rate · weight decay.
    pub weight_decay: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2 }
    }
}

impl Config {
    /// Checks the ranges of the values.
    ///
    /// # Errors
    /// Names the key and its value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        fraction("AdamW's beta1", self.beta1)?;
        fraction("AdamW's beta2", self.beta2)?;
        for (key, value) in [("AdamW's eps", self.eps), ("AdamW's weight_decay", self.weight_decay)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(OutOfRange { key, value, allowed: "zero or more" });
            }
        }
        Ok(())
    }
}

/// The decay of an exponential moving average of parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schemars", schemars(rename = "Ema"))]
pub struct EmaConfig {
    /// The part of the average that is kept at each update, in [0, 1).
    pub decay: f64,
    /// Whether the n-th update keeps at most n / (n + 9) of it, and the first nothing, so that a short run does not
    /// remember where it started; as diffusers' `EMAModel`.
    pub warm_up: bool,
}

impl Default for EmaConfig {
    fn default() -> Self {
        Self { decay: 0.9999, warm_up: true }
    }
}

impl EmaConfig {
    /// Checks the range of the decay.
    ///
    /// # Errors
    /// Names its value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        fraction("the averages' decay", self.decay)
    }
}
