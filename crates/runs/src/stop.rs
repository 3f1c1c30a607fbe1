//! When the last phase of a training ends before all of its steps are done.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the last phase of a training ends, whose steps are the most that it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Stop {
    /// Where what is gained over the base model levels out, and with the snapshot of where that was.
    Auto(AutoStop),
    /// DVAR (arXiv 2302.04841), for methods that train nothing but an embedding: where the loss of a fixed batch varies little.
    Dvar(Dvar),
}

/// Gains are measured on a fixed batch; the run takes the first snapshot whose gain is close to the largest, and ends when that
/// snapshot stays the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AutoStop {
    /// Measure every N steps, and before the first.
    pub every: usize,
    /// Bins that the timesteps are divided into, all equally wide.
    pub bins: usize,
    /// Samples of the fixed batch in each bin.
    pub samples: usize,
    /// Take the first snapshot whose gain falls short of the largest by no more than this part of it.
    pub tolerance: f64,
    /// End when the snapshot that would be taken stays the same for so many measurements.
    pub patience: usize,
    /// A CLIP that sees how well images follow their prompts; never the one that scores them later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<StopClip>,
}

impl Default for AutoStop {
    fn default() -> Self {
        Self { every: 10, bins: 4, samples: 4, tolerance: 0.05, patience: 5, clip: None }
    }
}

/// Text alignment that a run does not fall below.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StopClip {
    /// Folder of the CLIP.
    pub model: PathBuf,
    /// The least text alignment, as a part of the base model's with the class noun.
    pub floor: f64,
    /// Generate images at every N-th measurement, and at the last.
    pub every: usize,
    /// Their prompts, in which `[V]` stands for the placeholder token and `[category]` for the class noun.
    pub prompts: Vec<String>,
    /// Denoising steps of an image.
    pub steps: usize,
}

impl Default for StopClip {
    fn default() -> Self {
        let places = ["on the beach", "in the snow", "in a forest"];
        let prompts = places.map(|place| format!("a photo of a [V] [category] {place}"));
        let prompts = prompts.into_iter().chain(["a photo of a red [V] [category]".to_owned()]).collect();
        Self { model: PathBuf::new(), floor: 0.8, every: 5, prompts, steps: 10 }
    }
}

/// Ends when var(last `window` losses) / var(all losses) < `epsilon`, of the loss of a fixed batch after each step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dvar {
    /// The last losses that are looked at; the run has at least as many steps.
    pub window: usize,
    /// What the variance of these may be of that of all.
    pub epsilon: f64,
    /// Samples of the fixed batch.
    pub samples: usize,
}

impl Default for Dvar {
    /// The authors' values for Textual Inversion.
    fn default() -> Self {
        Self { window: 310, epsilon: 0.15, samples: 8 }
    }
}

/// Measurements, snapshots, samples: of each far more than anybody needs.
const MOST: usize = 1000;

impl Stop {
    /// Steps from one measurement to the next.
    pub fn every(&self) -> usize {
        match self {
            Self::Auto(auto) => auto.every,
            Self::Dvar(_) => 1,
        }
    }

    /// Bins of timesteps, and samples in each.
    pub fn batch(&self) -> [usize; 2] {
        match self {
            Self::Auto(auto) => [auto.bins, auto.samples],
            Self::Dvar(dvar) => [1, dvar.samples],
        }
    }

    /// The CLIP that measures text alignment, if one is given.
    pub fn clip(&self) -> Option<&StopClip> {
        match self {
            Self::Auto(auto) => auto.clip.as_ref(),
            Self::Dvar(_) => None,
        }
    }

    pub(crate) fn clip_mut(&mut self) -> Option<&mut StopClip> {
        match self {
            Self::Auto(auto) => auto.clip.as_mut(),
            Self::Dvar(_) => None,
        }
    }

    /// The most snapshots that there are at any time.
    pub fn most_snapshots(&self) -> usize {
        match self {
            // One more while another is written.
            Self::Auto(auto) => 2 + auto.patience + auto.clip.as_ref().map_or(0, |clip| clip.every),
            Self::Dvar(_) => 0,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let [bins, samples] = self.batch();
        limits::within("every", self.every(), 1..=1_000_000, "measurements are so many steps apart")?;
        limits::within("bins", bins, 1..=100, "a batch is measured in each")?;
        limits::within("samples", samples, 1..=1024, "a batch is held in memory")?;
        match self {
            Self::Auto(AutoStop { tolerance, patience, clip, .. }) => {
                limits::within("tolerance", *tolerance, 0.0..=1.0, "it is a part of what is gained")?;
                limits::within("patience", *patience, 1..=MOST, "as many snapshots may be on the disk")?;
                clip.as_ref().map_or(Ok(()), StopClip::validate).context("clip")
            }
            Self::Dvar(Dvar { window, epsilon, .. }) => {
                limits::within("window", *window, 2..=1_000_000, "it is a number of steps")?;
                Ok(limits::within("epsilon", *epsilon, 0.0..=1.0, "it is a quotient of variances")?)
            }
        }
    }
}

impl StopClip {
    fn validate(&self) -> Result<()> {
        ensure!(!self.model.as_os_str().is_empty(), "model is empty: name the folder of a CLIP (--stop-clip)");
        limits::within("floor", self.floor, 0.0..=2.0, "it is a part of the base model's text alignment")?;
        limits::within("every", self.every, 1..=MOST, "as many snapshots more may be on the disk")?;
        limits::within("steps", self.steps, 1..=1_000_000, "they are done one by one")?;
        limits::within("the number of prompts", self.prompts.len(), 1..=MOST, "an image of each is generated")?;
        let without = self.prompts.iter().find(|prompt| !prompt.contains("[V]"));
        ensure!(
            without.is_none(),
            "prompt {:?} does not have [V], which stands for the subject",
            terminal::shortened(without.map_or("", String::as_str))
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_is_what_is_read() {
        let read = |text: &str| toml::from_str::<Stop>(text).map_err(|error| error.to_string());
        assert_eq!(read("type = \"auto\"").unwrap(), Stop::Auto(AutoStop::default()));
        let dvar = Dvar { window: 7, ..Dvar::default() };
        assert_eq!(read("type = \"dvar\"\nwindow = 7").unwrap(), Stop::Dvar(dvar));
        assert!(read("type = \"dvar\"\nevery = 7").unwrap_err().contains("unknown field `every`"));
        assert!(read("every = 7").unwrap_err().contains("missing field `type`"));
        for stop in [Stop::Auto(AutoStop::default()), Stop::Dvar(Dvar::default())] {
            stop.validate().unwrap();
            assert_eq!(serde_json::from_value::<Stop>(serde_json::to_value(&stop).unwrap()).unwrap(), stop);
        }
        let clip = StopClip { model: "clip".into(), prompts: vec!["a [category]".to_owned()], ..StopClip::default() };
        let error = Stop::Auto(AutoStop { clip: Some(clip), ..AutoStop::default() }).validate().unwrap_err();
        assert!(format!("{error:#}").starts_with("clip: prompt \"a [category]\" does not have [V]"), "{error:#}");
    }
}
