//! What was measured on a fixed batch while a run learned, and how its last phase ended (`stop.json`).

use std::path::Path;

use anyhow::Result;
use images::Plot;
use serde::{Deserialize, Serialize};

use crate::layout;
use crate::read::{read, write};

/// The curve by which a run stops.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StopRecord {
    /// The phase that it ends.
    pub phase: String,
    /// The bins of timesteps, each with the base model's loss.
    pub bins: Vec<TimestepBin>,
    /// The base model's text alignment, where one is measured: the mean cosine of images with their prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_alignment: Option<f64>,
    /// In the order of the steps.
    pub measurements: Vec<Measurement>,
    /// None as long as the phase is on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
}

/// Some of the noise schedule's timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TimestepBin {
    /// The first.
    pub from: i64,
    /// The one after the last.
    pub to: i64,
    /// The diffusion loss of the base model on the bin's part of the fixed batch, with the class noun for the subject.
    pub base_loss: f64,
}

/// What the model was at one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Steps of the phase that were done.
    pub step: usize,
    /// In each bin, 1 - loss / base loss.
    pub gains: Vec<f64>,
    /// Their mean.
    pub gain: f64,
    /// As a part of the base model's, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_alignment: Option<f64>,
    /// The time that it took, that of its snapshot included.
    pub seconds: f64,
}

/// How the phase ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Why.
    pub reason: Reason,
    /// Steps that were done.
    pub done: usize,
    /// The step whose snapshot is the result.
    pub taken: usize,
}

/// Why a phase ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// What was gained levelled out.
    Levelled,
    /// Text alignment fell below the floor.
    TextAlignment,
    /// The variance of the loss fell below its bound.
    Variance,
    /// Its steps were done.
    Steps,
}

impl Reason {
    /// As a clause.
    pub fn text(self) -> &'static str {
        match self {
            Self::Levelled => "what it gains has levelled out",
            Self::TextAlignment => "text alignment has fallen below the floor",
            Self::Variance => "the loss hardly varies any more",
            Self::Steps => "all steps are done",
        }
    }
}

impl StopRecord {
    /// Reads that of a run, if it has one.
    ///
    /// # Errors
    /// When `stop.json` cannot be read or has another form; names the key.
    pub fn read(run: &Path) -> Result<Option<Self>> {
        read(&run.join(layout::STOP), "the measurements of a run")
    }

    /// Writes it into the folder of a run.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, run: &Path) -> Result<()> {
        write(&run.join(layout::STOP), self)
    }

    /// The base model's losses, bin by bin.
    pub fn base_losses(&self) -> Vec<f64> {
        self.bins.iter().map(|bin| bin.base_loss).collect()
    }

    /// Plots over the steps of the phase, with a mark at the step that was taken: the gains, in total and by bins, and text
    /// alignment where it was measured, with the `floor`.
    pub fn curves(&self, floor: Option<f64>) -> Vec<Plot> {
        let over = |value: &dyn Fn(&Measurement) -> Option<f64>| -> Vec<(f64, f64)> {
            self.measurements.iter().filter_map(|at| Some((at.step as f64, value(at)?))).collect()
        };
        let marked = |plot: Plot| match self.ending {
            Some(Ending { taken, .. }) => plot.mark(taken as f64, format!("step {taken} is taken")),
            None => plot,
        };
        let x = format!("step of phase {}", self.phase.replace('_', " "));
        let [total, others @ ..] = Plot::COLORS;
        let mut gains = Plot::new("gain over the base model", &x).line("mean", total, over(&|at| Some(at.gain)));
        if self.bins.len() > 1 {
            for (number, (bin, color)) in self.bins.iter().zip(others.into_iter().cycle()).enumerate() {
                let name = format!("timesteps {} to {}", bin.from, bin.to - 1);
                gains = gains.line(name, color, over(&|at| at.gains.get(number).copied()));
            }
        }
        let alignment = over(&|at| at.text_alignment);
        let mut plots = vec![marked(gains)];
        if let (Some((first, _)), Some((last, _))) = (alignment.first(), alignment.last()) {
            let ends = [*first, *last];
            let mut plot = Plot::new("text alignment, 1 is the base model's", &x);
            if let Some(floor) = floor {
                plot = plot.line("floor", Plot::COLORS[1], ends.map(|x| (x, floor)));
            }
            plots.push(marked(plot.line("text alignment", total, alignment)));
        }
        plots
    }
}
