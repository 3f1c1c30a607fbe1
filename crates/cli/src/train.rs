//! `train`: learn a subject from photos.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use evaluation::PromptSet;
use serde_json::{Map, Value};
use tch::Device;
use trainer::{ConfigLayers, Event, FinishedRun, Outcome, Session, TrainConfig};

use crate::interrupt::Interrupt;
use crate::profile::ProfileArgs;
use crate::progress::Progress;
use crate::results;

/// Learn a subject from a few photos, in three stages.
///
/// What is not given stands in the preset. Every value of the configuration, as config.json of a run shows it, can be
/// set in a JSON file (--config) and with --set PATH=VALUE; flags win over the file.
#[derive(Args, Debug)]
#[command(args_override_self = true)]
pub(crate) struct Train {
    /// The base model: a folder in the diffusers layout
    #[arg(long)]
    model: Option<PathBuf>,
    /// The folder with photos of the subject, or a single photo
    #[arg(long)]
    concept: Option<PathBuf>,
    /// The word for what the subject is, such as dog
    #[arg(long)]
    category: Option<String>,
    /// The run's folder; it is made if need be
    #[arg(long)]
    out: PathBuf,
    /// Go on with the run in --out from its last checkpoint
    #[arg(long)]
    resume: bool,
    /// The recipe to start from; if not given, the model's own (attndreambooth.json in its folder), else the paper's
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// A JSON file with values of the configuration
    #[arg(long)]
    config: Option<PathBuf>,
    /// A single value of the configuration, such as unet.steps=200; may be given several times
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value_t)]
    device: libtorch::DeviceChoice,
    /// The seed of everything random; 0 if not given
    #[arg(long)]
    seed: Option<u64>,
    /// Side of the training views in pixels; what the model was trained for if not given
    #[arg(long)]
    resolution: Option<u32>,
    /// fp32; tf32, which is faster on a GPU; or bf16 with f32 parameters. fp32 if not given
    #[arg(long)]
    dtype: Option<String>,
    /// Photos seen at once, in all stages; 8 in the paper
    #[arg(long)]
    batch_size: Option<usize>,
    /// Batches whose gradients make one step, in all stages; 1 if not given
    #[arg(long)]
    gradient_accumulation: Option<usize>,
    /// On a GPU: the same bits each time, at some cost in speed
    #[arg(long)]
    deterministic: bool,
    /// Compute activations again in the backward pass: less memory, slower
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Prior preservation (DreamBooth): learn pictures of the category beside the photos, lest the model forget it
    #[arg(long)]
    prior_preservation: bool,
    /// Pictures of the category that there must be, 100 if not given; the base model draws those that the folder lacks
    #[arg(long, value_name = "N")]
    prior_images: Option<usize>,
    /// The folder of the category's pictures; prior/ in the run's folder if not given
    #[arg(long, value_name = "FOLDER")]
    prior_folder: Option<PathBuf>,
    /// When done, draw the prompts of this set or file with the base model and with what was learned, score them, and
    /// write a page; none for nothing. If not given, what the model's attndreambooth.json says, or ours24
    #[arg(long, value_name = "PROMPTS")]
    results: Option<String>,
    /// Steps between checkpoints, which end stages 1 and 2 too; 100 if not given
    #[arg(long)]
    checkpoint_every: Option<usize>,
    /// Steps between validation pictures; 0, for none, if not given
    #[arg(long)]
    validate_every: Option<usize>,
    #[command(flatten)]
    profile: ProfileArgs,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Preset {
    /// 60 + 100 + 500 steps of batch 8
    Paper,
    /// The authors' fast version: stage 3 in 200 steps of batch 4
    Fast,
}

/// In place of a set of prompts.
pub(crate) const NO_RESULTS: &str = "none";

impl Train {
    pub(crate) fn run(self) -> Result<()> {
        let interrupt = Interrupt::watch()?;
        let device = self.device.resolve()?;
        let profiler = self.profile.start(device);
        let config = self.config()?;
        if config.validation.results != NO_RESULTS {
            PromptSet::load(&config.validation.results)
                .context("what the finished run is to be shown with (--results)")?;
        }
        let open = || Session::open(self.layers()?, &self.out, device, self.resume);
        let session = profile::timed("train/load", open)?;
        match (device, self.device) {
            (Device::Cpu, libtorch::DeviceChoice::Auto) => {
                terminal::say!("computing on the CPU: {}", libtorch::cuda_unavailable().unwrap_or("there is no GPU"));
            }
            (Device::Cpu, _) => terminal::say!("computing on the CPU, as asked"),
            (device, _) => {
                terminal::say!("computing on {device:?} in {}", format!("{:?}", config.dtype).to_lowercase());
            }
        }
        for note in session.notes() {
            terminal::note!("{note}");
        }
        let mut progress: Option<Progress> = None;
        let outcome = session.run(&|| interrupt.asked(), &mut |event| match event {
            Event::Prior { done, pictures } => match &mut progress {
                None => progress = Some(Progress::from("pictures of the category", done, pictures)),
                Some(progress) => progress.step(""),
            },
            Event::Stage { stage, done, steps } => {
                // The old bar goes before the new one comes.
                progress = None;
                progress = Some(Progress::from(&format!("stage {} of 3, {stage}", stage.number()), done, steps));
            }
            Event::Step { report, peak_memory } => {
                let memory = peak_memory.map_or(String::new(), |bytes| format!(" {:.1} GB", bytes as f64 / 1e9));
                let note = format!("loss {:.4} attention {:.5}{memory}", report.diffusion_loss, report.attention_loss);
                if let Some(progress) = &mut progress {
                    progress.step(&note);
                }
            }
        });
        drop(progress);
        interrupt.stop_at_once();
        // Where the time went is of interest however it ends.
        let ended = outcome.and_then(|outcome| self.conclude(outcome));
        let profiled = profiler.finish(&self.out);
        ended.and(profiled)
    }

    /// What comes after the last step.
    fn conclude(&self, outcome: Outcome) -> Result<()> {
        match outcome {
            Outcome::Finished => {
                terminal::say!("done; everything is in {}", self.out.display());
                let run = FinishedRun::open(&self.out)?;
                if run.config.validation.results != NO_RESULTS {
                    let _span = profile::span("train/results");
                    results::show(&self.out, &run.config.validation, &self.device.to_string())?;
                }
            }
            Outcome::Stopped => {
                bail!(
                    "stopped as asked, with what was done kept; `train --out {} --resume` goes on",
                    self.out.display()
                )
            }
        }
        Ok(())
    }

    /// The configuration of the run, but for what depends on the loaded model.
    pub(crate) fn config(&self) -> Result<TrainConfig> {
        self.layers()?.finish()
    }

    /// The preset, the file, the flags.
    fn layers(&self) -> Result<ConfigLayers> {
        ensure!(
            self.preset.is_none() || !self.resume,
            "a run that goes on keeps its own configuration: leave out --preset, or --resume"
        );
        let paper = ConfigLayers::new(&TrainConfig::paper())?;
        match self.preset {
            Some(Preset::Paper) => self.over(paper),
            Some(Preset::Fast) => self.over(ConfigLayers::new(&TrainConfig::fast())?),
            // Wherever the model is named.
            None => {
                let model = self.over(paper)?.finish()?.model;
                self.over(ConfigLayers::of_model(&model)?)
            }
        }
    }

    /// Lays the file and the flags over `layers`; each `--set` wins over all else.
    fn over(&self, mut layers: ConfigLayers) -> Result<ConfigLayers> {
        // A run that goes on has its own configuration, which need not be given again.
        let own = self.out.join("config.json");
        match &self.config {
            Some(path) => layers.file(path)?,
            None if self.resume && own.exists() => layers.file(&own)?,
            None => {}
        }
        // What a run says of itself is true wherever it is read.
        let path = |path: &Option<PathBuf>| {
            let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
            path.as_ref().map(|path| Value::from(absolute(path).display().to_string()))
        };
        let number = |number: Option<usize>| number.map(Value::from);
        let mut flags = vec![
            ("model", path(&self.model)),
            ("concept", path(&self.concept)),
            ("category", self.category.clone().map(Value::from)),
            ("seed", self.seed.map(Value::from)),
            ("augmentation.resolution", self.resolution.map(Value::from)),
            ("dtype", self.dtype.clone().map(Value::from)),
            ("gradient_checkpointing", self.gradient_checkpointing.then(|| Value::from(true))),
            ("deterministic", self.deterministic.then(|| Value::from(true))),
            // No value of its own: the others keep theirs.
            ("prior", self.prior_preservation.then(|| Value::Object(Map::new()))),
            ("prior.images", number(self.prior_images)),
            ("prior.folder", path(&self.prior_folder)),
            ("checkpoint_every", number(self.checkpoint_every)),
            ("validation.every", number(self.validate_every)),
            ("validation.results", self.results.clone().map(Value::from)),
        ];
        for [batch_size, accumulation] in [
            ["embedding.batch_size", "embedding.gradient_accumulation"],
            ["cross_attention.batch_size", "cross_attention.gradient_accumulation"],
            ["unet.batch_size", "unet.gradient_accumulation"],
        ] {
            flags.push((batch_size, number(self.batch_size)));
            flags.push((accumulation, number(self.gradient_accumulation)));
        }
        for (path, value) in flags {
            if let Some(value) = value {
                layers.put(path, value)?;
            }
        }
        for pair in &self.set {
            let (path, value) = split_change(pair)?;
            layers.set(path, value)?;
        }
        Ok(layers)
    }
}

/// The path and the value of a `--set PATH=VALUE`.
pub(crate) fn split_change(pair: &str) -> Result<(&str, &str)> {
    pair.split_once('=').with_context(|| format!("--set {pair:?} has no =; write it as --set unet.steps=200"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        train: Train,
    }

    fn config(more: &[&str]) -> TrainConfig {
        let arguments = [&["train", "--concept", "photos", "--category", "bird", "--out", "run"], more].concat();
        Options::try_parse_from(arguments).unwrap().train.config().unwrap()
    }

    #[test]
    fn a_models_own_recipe_is_taken_wherever_the_model_is_named() {
        let miniature = golden::fixtures().join("miniature").display().to_string();
        let steps = |more: &[&str]| config(more).unet.steps;
        assert_eq!(steps(&[]), TrainConfig::paper().unet.steps);
        let own = steps(&["--model", &miniature]);
        assert_ne!(own, TrainConfig::paper().unet.steps);
        assert_eq!(steps(&["--set", &format!("model={miniature}")]), own);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.json");
        std::fs::write(&file, serde_json::json!({ "model": miniature, "seed": 3 }).to_string()).unwrap();
        let file = file.display().to_string();
        assert_eq!(steps(&["--config", &file]), own);
        assert_eq!(steps(&["--config", &file, "--set", "unet.steps=7"]), 7);
        assert_eq!(steps(&["--config", &file, "--preset", "fast"]), TrainConfig::fast().unet.steps);
    }
}
