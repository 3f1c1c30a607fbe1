//! `train`: learn a subject from photos.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use prompts::PromptSet;
use runs::{ConfigLayers, TrainConfig};
use serde_json::{Map, Value};
use tch::Device;
use trainer::{Event, FinishedRun, Outcome, Session};

use crate::interrupt::{self, Interrupted};
use crate::model::ModelArgs;
use crate::profile::ProfileArgs;
use crate::progress::Progress;
use crate::results;
use crate::seed::Seed;

/// Learn a subject from a few photos, in three stages.
///
/// What is not given stands in the preset. Every value of the configuration, as config.json of a run shows it, can be
/// set in a JSON file (--config) and with --set PATH=VALUE; flags win over the file.
#[derive(Args, Debug)]
#[command(args_override_self = true)]
pub(crate) struct Train {
    /// The base model: a folder in the diffusers layout, or a .safetensors checkpoint of Stable Diffusion 1.x or 2.x; with
    /// --resume, its present place
    #[arg(long)]
    model: Option<PathBuf>,
    #[command(flatten)]
    model_args: ModelArgs,
    /// The folder with photos of the subject, or a single photo; with --resume, their present place
    #[arg(long)]
    pub(crate) concept: Option<PathBuf>,
    /// The word for what the subject is, such as dog
    #[arg(long)]
    pub(crate) category: Option<String>,
    /// The run's folder: a new or empty one, or with --resume the run's own
    #[arg(long)]
    out: PathBuf,
    /// Go on with the run in --out from its last checkpoint
    #[arg(long)]
    pub(crate) resume: bool,
    /// The recipe to start from; if not given, the model's own (attndreambooth.json in its folder), else the paper's
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// A JSON file with values of the configuration
    #[arg(long)]
    config: Option<PathBuf>,
    /// A single value of the configuration, such as unet.steps=200; may be given several times
    #[arg(long, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value_t)]
    pub(crate) device: libtorch::DeviceChoice,
    /// The seed of everything random; 0 if not given, -1 for a random one, which is shown
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) seed: Option<Seed>,
    /// Side of the training views in pixels; what the model was trained for if not given
    #[arg(long)]
    resolution: Option<u32>,
    /// fp32; tf32, which is faster on a GPU; or bf16 with f32 parameters. fp32 if not given
    #[arg(long)]
    dtype: Option<String>,
    /// Batch size of all stages; 8 in the paper
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
    pub(crate) results: Option<String>,
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

impl Preset {
    fn config(self) -> TrainConfig {
        match self {
            Self::Paper => TrainConfig::paper(),
            Self::Fast => TrainConfig::fast(),
        }
    }
}

/// In place of a set of prompts.
pub(crate) const NO_RESULTS: &str = "none";

impl Train {
    pub(crate) fn run(self) -> Result<()> {
        self.learn()?;
        let run = FinishedRun::open(&self.out)?;
        if run.config.validation.results != NO_RESULTS {
            results::show(&self.out, &run.config.validation, self.device)?;
        }
        Ok(())
    }

    /// Everything but the results of the finished run.
    ///
    /// # Errors
    /// [`interrupt::Interrupted`] where a signal has ended it early.
    pub(crate) fn learn(&self) -> Result<()> {
        let device = libtorch::resolve(self.device)?;
        self.seed.map(Seed::announce);
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
        let mut deferral = Some(interrupt::defer());
        let mut progress: Option<Progress> = None;
        let outcome = session.run(&interrupt::asked, &mut |event| match event {
            Event::Prior { done, pictures } => match &mut progress {
                None => progress = Some(Progress::from("pictures of the category", done, pictures)),
                Some(progress) => progress.step(""),
            },
            Event::Stage { stage, done, steps } => {
                // The old bar goes before the new one comes.
                progress = None;
                progress = Some(Progress::from(&format!("stage {} of 3, {stage}", stage.number()), done, steps));
            }
            Event::Note { text } => terminal::note!("{text}"),
            Event::Step { report, peak_memory } => {
                let memory = peak_memory.map_or(String::new(), |bytes| format!(" {:.1} GB", bytes as f64 / 1e9));
                let note = format!("loss {:.4} attention {:.5}{memory}", report.diffusion_loss, report.attention_loss);
                if let Some(progress) = &mut progress {
                    progress.step(&note);
                }
            }
            // All that is left to do can be done again at any time.
            Event::Learned => deferral = None,
        });
        drop((progress, deferral));
        let run = terminal::path(&self.out);
        let ended = outcome.and_then(|outcome| match outcome {
            Outcome::Finished => {
                terminal::say!("done; everything is in {run}");
                Ok(())
            }
            Outcome::Stopped => {
                Err(Interrupted(format!("what was done is kept. Resume with: train --out {run} --resume")).into())
            }
        });
        // Where the time went is of interest however it ends.
        let profiled = profiler.finish(&self.out);
        ended.and(profiled)
    }

    /// The configuration of the run, but for what depends on the loaded model.
    pub(crate) fn config(&self) -> Result<TrainConfig> {
        self.layers()?.finish()
    }

    /// The preset, the file, the flags.
    fn layers(&self) -> Result<ConfigLayers> {
        if self.resume {
            // It has its own configuration, which need not be given again; what is given must say the same.
            let mut layers = ConfigLayers::of_run(&self.out)?;
            if let Some(preset) = self.preset {
                layers.preset(&preset.config())?;
            }
            return self.over(layers);
        }
        let paper = ConfigLayers::new(&TrainConfig::paper())?;
        match self.preset {
            Some(preset) => self.over(ConfigLayers::new(&preset.config())?),
            // Wherever the model is named.
            None => {
                let model = self.over(paper)?.finish()?.model;
                self.over(ConfigLayers::of_model(&model)?)
            }
        }
    }

    /// Lays the file and the flags over `layers`; each `--set` wins over all else.
    fn over(&self, mut layers: ConfigLayers) -> Result<ConfigLayers> {
        if let Some(path) = &self.config {
            layers.file(path)?;
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
            ("seed", self.seed.map(|seed| Value::from(seed.get()))),
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
        flags.extend(self.model_args.settings());
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
