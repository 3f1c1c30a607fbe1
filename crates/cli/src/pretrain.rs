//! `pretrain`: the miniature base model, from nothing or from where another one has got.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use pretrainer::{Config, Dtype, Part, Pretraining, Sources};
use runs::ResultsFolder;

use crate::interrupt::{self, Interrupted};
use crate::number;
use crate::progress::Progress;
use crate::seed::Seed;

/// Train the miniature base model, from nothing or on: VAE, CLIP and U-Net, one after the other.
///
/// What has been done before is gone on with. Ctrl-C stops after a checkpoint.
#[derive(Args, Debug)]
pub(crate) struct Pretrain {
    /// The folder with the drawings, as the emoji package has them
    #[arg(long)]
    drawings: PathBuf,
    /// The repository's fixtures, for the vocabulary
    #[arg(long, default_value = "fixtures")]
    fixtures: PathBuf,
    /// The folder for everything: new, empty, or of a call before
    #[arg(long, default_value = "runs/miniature")]
    out: PathBuf,
    /// Begin with the weights of this model, one that this command has made, instead of random ones. With --part, the
    /// other parts serve as they are
    #[arg(long, value_name = "MODEL", conflicts_with = "assemble")]
    from: Option<PathBuf>,
    /// Only this part: vae, clip or unet
    #[arg(long)]
    part: Option<Part>,
    /// Make the steps of all parts fit this time, such as 90m or 2h; measured on this machine before each part
    #[arg(long, value_parser = duration)]
    budget: Option<Duration>,
    /// Optimiser steps of the part, or of each part; of one that goes on, all that it is to have in the end
    #[arg(long, conflicts_with = "budget", value_parser = number::within(1..=pretrainer::MAX_STEPS, "they are done one by one"))]
    steps: Option<u64>,
    /// The seed of scenes and noise; another one than MODEL's shows it scenes that it has not seen.
    /// -1 for a random one, which is shown
    #[arg(long, default_value_t, allow_negative_numbers = true)]
    seed: Seed,
    /// The learning rate between warm-up and decay
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Scenes in a step
    #[arg(long)]
    batch_size: Option<usize>,
    /// fp32, or bf16 with f32 parameters
    #[arg(long)]
    dtype: Option<Dtype>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value_t)]
    device: libtorch::DeviceChoice,
    /// Threads to compute with
    #[arg(long, value_parser = number::within(number::THREADS, number::THREADS_REASON))]
    threads: Option<i32>,
    /// Train nothing: write the model of what is there, and measure it
    #[arg(long)]
    assemble: bool,
}

/// How the budget is divided.
fn share(part: Part) -> f64 {
    match part {
        Part::Vae => 0.1,
        Part::Clip => 0.1,
        Part::Unet => 0.8,
    }
}

impl Pretrain {
    pub(crate) fn run(self) -> Result<()> {
        if let Some(threads) = self.threads {
            tch::set_num_threads(threads);
        }
        self.seed.announce();
        let device = libtorch::resolve(self.device)?;
        let results = ResultsFolder::check(&self.out, "pretrain", &pretrainer::MADE)?;
        let sources = Sources::open(&self.fixtures.join("tokenizer"), &self.drawings)?;
        results.create()?;
        if let Some(model) = &self.from {
            pretrainer::start_from(model, &self.out, &sources)?;
        }
        let parts: Vec<Part> = self.part.map_or(Part::ALL.to_vec(), |part| vec![part]);
        // What is wrong with the last part is said before the first one's hours.
        parts.iter().try_for_each(|part| self.given(*part).check(*part))?;
        let deferral = interrupt::defer();
        for part in parts.into_iter().filter(|_| !self.assemble) {
            let config = self.config(part, &sources, device)?;
            let mut pretraining = Pretraining::open(part, config, &sources, &self.out, device)?;
            if let Some(note) = pretraining.note() {
                terminal::note!("{note}");
            }
            let (done, steps) = pretraining.progress();
            let name = format!("{part} ({:.2} M parameters)", pretraining.parameter_count() as f64 / 1e6);
            let mut progress = Progress::from(&name, done, steps);
            let finished = pretraining.run(&interrupt::asked, &mut |report| {
                let notes: Vec<String> =
                    report.values.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
                progress.reach(report.step, &notes.join(" "));
            })?;
            if !finished {
                return Err(Interrupted("checkpoint saved; the same command goes on".to_owned()).into());
            }
        }
        drop(deferral);
        if interrupt::asked() {
            return Err(Interrupted("the same command goes on".to_owned()).into());
        }
        if self.part.is_none() || self.assemble {
            self.finish(&sources, device)?;
        }
        Ok(())
    }

    /// The part's configuration with what was asked for, but for its steps.
    fn given(&self, part: Part) -> Config {
        let mut config = Config { seed: self.seed.get(), ..Config::preset(part) };
        config.learning_rate = self.learning_rate.unwrap_or(config.learning_rate);
        config.batch_size = self.batch_size.unwrap_or(config.batch_size);
        config.dtype = self.dtype.unwrap_or(config.dtype);
        config
    }

    fn config(&self, part: Part, sources: &Sources, device: tch::Device) -> Result<Config> {
        let mut config = self.given(part);
        // What was begun goes on to the end that was planned, if no other is asked for.
        config.steps = match (self.steps, pretrainer::recorded_steps(part, &self.out)?, self.budget) {
            (Some(steps), _, _) | (None, Some(steps), _) => steps,
            (None, None, None) => config.steps,
            (None, None, Some(budget)) => {
                let seconds = pretrainer::seconds_per_step(part, &config, sources, &self.out, device)?;
                (budget.as_secs_f64() * share(part) / seconds).max(1.0) as u64
            }
        };
        Ok(config)
    }

    /// The model's folder, its measures and its pictures.
    fn finish(&self, sources: &Sources, device: tch::Device) -> Result<()> {
        let model = self.out.join("model");
        pretrainer::assemble(&self.out, sources, &model)?;
        let (measures, generated) =
            pretrainer::measure(&model, sources, device, &mut |part| terminal::say!("measuring: {part}"))?;
        let mut grid = images::Grid::new(6);
        for (picture, prompt) in generated.into_iter().zip(&measures.prompts).take(48) {
            grid.push(picture, prompt.as_str());
        }
        images::save_generated(&self.out.join("samples.png"), &grid.draw(), &[])?;
        atomic::write(&self.out.join("measures.json"), serde_json::to_string_pretty(&measures)?)?;
        terminal::say!(
            "VAE {:.1} dB; CLIP finds {:.0} % of scenes, {:.0} % of captions; {:.0} % of generated pictures are told by \
             their prompts; the model is in {}",
            measures.vae_psnr,
            100.0 * measures.text_to_image_recall,
            100.0 * measures.image_to_text_recall,
            100.0 * measures.generated_recall,
            model.display()
        );
        Ok(())
    }
}

/// `90m`, `2h` or `300s`.
fn duration(text: &str) -> Result<Duration> {
    let unit = match text.chars().last() {
        Some('s') => 1.0,
        Some('m') => 60.0,
        Some('h') => 3600.0,
        _ => bail!("{text:?} is no time; write 300s, 90m or 2h"),
    };
    match text[..text.len() - 1].parse::<f64>() {
        Ok(count) if count > 0.0 && count * unit < 1e9 => Ok(Duration::from_secs_f64(count * unit)),
        _ => bail!("{text:?} is no time; write 300s, 90m or 2h"),
    }
}
