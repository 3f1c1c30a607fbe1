//! The sizes of the mapper.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// What the mapper is made of; the default is the official code's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Frequencies of the Fourier features, of which each gives a sine and a cosine.
    pub frequencies: i64,
    /// Their standard deviation over timesteps, which are taken as they are, from 0 to 999.
    pub time_scale: f64,
    /// The same over layers.
    pub layer_scale: f64,
    /// Timesteps, evenly spaced, at which the first layer's weight begins as the features themselves.
    pub anchors: i64,
    /// Width of the hidden layers.
    pub hidden: i64,
    /// How much of the bypass is added, relative to the norm of the text encoder's output.
    pub bypass: f64,
    /// Probability that a call is under nested dropout.
    pub dropout: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            frequencies: 1024,
            time_scale: 0.03,
            layer_scale: 2.0,
            anchors: 10,
            hidden: 128,
            bypass: 0.2,
            dropout: 0.5,
        }
    }
}

impl Config {
    /// Checks what a caller may have set.
    ///
    /// # Errors
    /// Names the value and its bounds.
    pub fn validate(&self) -> Result<()> {
        const MOST: i64 = 1 << 16;
        for (name, value, most) in
            [("frequencies", self.frequencies, MOST), ("anchors", self.anchors, 1000), ("hidden", self.hidden, MOST)]
        {
            ensure!((1..=most).contains(&value), "{name} is {value}, but must be from 1 to {most}");
        }
        for (name, value) in
            [("time_scale", self.time_scale), ("layer_scale", self.layer_scale), ("bypass", self.bypass)]
        {
            ensure!(value.is_finite(), "{name} is {value}, but must be a finite number");
        }
        ensure!((0.0..=1.0).contains(&self.dropout), "dropout is {}, but must be from 0 to 1", self.dropout);
        Ok(())
    }
}
