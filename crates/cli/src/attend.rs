//! `attend`: where the words of a prompt act in its picture, on the way through a run.

mod figure;
mod former;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use heatmaps::{Config, HeatMapRecorder};
use journal::ResultsFolder;
use model_files::BaseModel;
use sampling::{Pipeline, Request, Settings, Word};
use serde::Serialize;
use serde_json::json;
use tch::{Device, Kind};
use trainer::{FinishedRun, Stage};

use crate::device::ComputeArgs;
use crate::learned;
use crate::model::ModelArgs;
use crate::progress::Progress;
use crate::sampler::{SamplerArgs, guidance_of_model, scheduler_name};
use crate::seed::Seed;
use figure::{Figure, Row};

/// Draw a prompt's picture, and where in it each word acts: attention heat maps as DAAM makes them.
#[derive(Args, Debug, Serialize)]
pub(crate) struct Attend {
    /// The folder of a training run
    #[arg(long, required_unless_present = "model", conflicts_with = "ModelArgs")]
    run: Option<PathBuf>,
    /// A model in place of a run: a folder in the diffusers layout, or a .safetensors checkpoint; with --run, where the
    /// run's base model is now, if it has been moved
    #[arg(long)]
    model: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    model_args: ModelArgs,
    // Not a doc comment: to rustdoc, [V] would be a link.
    #[arg(long, help = "Prompt; of a run, one with [V]")]
    prompt: String,
    /// The seed of the image's noise, the same in all rows; -1 for a random one, which is shown
    #[arg(long, default_value_t, allow_negative_numbers = true)]
    seed: Seed,
    /// Show the base model and the model after each stage of the run, row by row
    #[arg(long)]
    stages: bool,
    /// A word to show; may be given several times. All words if not given
    #[arg(long = "word")]
    words: Vec<String>,
    /// The folder to write to, new, empty or of a call before, whose images are replaced; RUN/attend or runs/attend if not
    /// given
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    sampler: SamplerArgs,
    /// Colour scale: per map or shared
    #[arg(long, value_enum, default_value_t)]
    colors: Colors,
    /// The layers that count, by how many times smaller than the latents they are
    #[arg(long, value_delimiter = ',', default_values_t = Config::default().factors)]
    factors: Vec<i64>,
    /// Let the U-Net's middle block count too
    #[arg(long)]
    mid: bool,
    /// Divide each pixel's attention by its sum over the words
    #[arg(long)]
    normalize: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Colors {
    /// Each map's own least and greatest value, as in DAAM: shows where
    #[default]
    Own,
    /// Those of all maps in the figure: shows also how much
    Common,
}

/// Where the model comes from.
enum Source {
    Run(Box<FinishedRun>),
    Model(Box<BaseModel>),
}

/// A model to be shown: its name in files, and the stage that it comes after.
type Moment = (&'static str, Option<Stage>);

impl Attend {
    pub(crate) fn run(self) -> Result<()> {
        let started = Instant::now();
        self.sampler.kind()?;
        let config = Config { factors: self.factors.clone(), mid: self.mid, normalize: self.normalize };
        config.validate()?;
        let to = self.compute.resolve()?;
        let (source, out) = self.source()?;
        let results = ResultsFolder::check(&out, "attend", &["attend.json"])?;
        let moments = self.moments(&source);
        self.seed.announce();

        let mut progress: Option<Progress> = None;
        let mut figure: Option<Figure> = None;
        for &(name, stage) in &moments {
            let pipeline = source.pipeline(stage, to)?;
            if figure.is_none() {
                pipeline.notes().iter().for_each(|note| terminal::note!("{note}"));
            }
            let guidance_scale = source.guidance_scale()?;
            let settings = self.sampler.settings(&Settings { guidance_scale, ..pipeline.default_settings() })?;
            let figure = match &mut figure {
                Some(figure) => figure,
                None => figure.insert(self.figure(&pipeline, &source, settings.clone())?),
            };
            let [_, height, width] = pipeline.latents_shape(&settings);
            let mut recorder = HeatMapRecorder::new(config.clone(), figure.tokens.len(), (height, width), 1)?;
            let request = [Request::new(&self.prompt, self.seed.get())];
            let latents = pipeline.denoise_observed(&request, &settings, &mut recorder, &mut |step| {
                let total = moments.len() as u64 * step.total as u64;
                progress.get_or_insert_with(|| Progress::new("steps", total)).step(name);
            })?;
            let picture = pipeline.decode(&request, &latents)?.remove(0);
            let row = Row::new(name, stage, picture, &recorder.finish()?, figure)?;
            figure.rows.push(row);
        }
        drop(progress);
        let Some(figure) = figure else { bail!("the run has no model to show") };

        results.create()?;
        figure.save_maps(&out.join("maps.safetensors"))?;
        let rows = figure.draw(&out, self.colors == Colors::Common)?;
        let path = out.join("attend.json");
        former::remove(&path, &rows)?;
        let words: Vec<_> = figure
            .words
            .iter()
            .map(|Word { text, positions }| json!({ "word": text, "positions": positions }))
            .collect();
        let record = json!({
            "arguments": self,
            "settings": figure.settings,
            "scheduler": figure.scheduler,
            "heat_maps": config,
            "device": format!("{:?}", to.1),
            "dtype": format!("{:?}", to.0),
            "versions": { "attndreambooth": env!("CARGO_PKG_VERSION"), "libtorch": libtorch::LIBTORCH_VERSION },
            "seconds": started.elapsed().as_secs_f64(),
            "tokens": figure.tokens,
            "words": words,
            "rows": rows,
        });
        atomic::write(&path, serde_json::to_vec_pretty(&record)?)?;
        terminal::say!("grid.png, single pictures, maps.safetensors and attend.json in {}", out.display());
        Ok(())
    }

    /// The model's place, and the folder to write to.
    fn source(&self) -> Result<(Source, PathBuf)> {
        let (source, out) = match (&self.run, &self.model) {
            (Some(run), model) => (Source::Run(Box::new(learned::open(run, model.as_deref())?)), run.join("attend")),
            (None, Some(_)) if self.stages => {
                bail!("--stages shows the stages of a training run; give one with --run in place of --model")
            }
            (None, Some(model)) => {
                (Source::Model(Box::new(self.model_args.open(model)?)), PathBuf::from("runs/attend"))
            }
            (None, None) => bail!("give a training run with --run, or a model with --model"),
        };
        Ok((source, self.out.clone().unwrap_or(out)))
    }

    /// The rows of the figure.
    fn moments(&self, source: &Source) -> Vec<Moment> {
        let Source::Run(run) = source else { return vec![("model", None)] };
        if !self.stages {
            return vec![(Stage::Unet.name(), Some(Stage::Unet))];
        }
        let (kept, gone): (Vec<Stage>, Vec<Stage>) = Stage::ALL
            .into_iter()
            .filter(|stage| run.config.stage(*stage).steps > 0)
            .partition(|stage| run.keeps(*stage));
        for stage in gone {
            terminal::note!("the run has not kept its model from after stage {}, which is left out", stage.number());
        }
        [("base", None)].into_iter().chain(kept.into_iter().map(|stage| (stage.name(), Some(stage)))).collect()
    }

    /// The figure without its rows.
    fn figure(&self, pipeline: &Pipeline, source: &Source, settings: Settings) -> Result<Figure> {
        let prompt = &self.prompt;
        let shown = terminal::shortened(prompt);
        pipeline.check(&[Request::new(prompt, self.seed.get())], &settings)?;
        let words = pipeline.words(prompt).with_context(|| format!("the prompt {shown:?} cannot be shown"))?;
        if let Source::Run(run) = source {
            let category = &run.config.category;
            ensure!(
                words.iter().any(|word| word.text == "[V]"),
                "the prompt {shown:?} does not name the run's subject; write [V] where it stands, as in \"a [V] {category}\""
            );
        }
        ensure!(!words.is_empty(), "the prompt {shown:?} has no word to show");
        pipeline.prompt_notes(prompt)?.iter().for_each(|note| terminal::note!("{note}"));
        let encoding = pipeline.tokenizer.encode(&pipeline.resolve(prompt)?)?;
        Ok(Figure {
            tokens: encoding.tokens[..encoding.len].to_vec(),
            words: self.choose(words)?,
            scheduler: scheduler_name(&settings, pipeline),
            request: Request::new(prompt, self.seed.get()),
            settings,
            normalized: self.normalize,
            rows: Vec::new(),
        })
    }

    /// Those of the prompt's words that are to be shown.
    fn choose(&self, words: Vec<Word>) -> Result<Vec<Word>> {
        let is = |word: &Word, chosen: &str| word.text.to_lowercase() == chosen.to_lowercase();
        if let Some(unknown) = self.words.iter().find(|chosen| !words.iter().any(|word| is(word, chosen))) {
            let known: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
            bail!(
                "the prompt has no word {:?}; its words are {}",
                terminal::shortened(unknown),
                terminal::shortened(&known.join(", "))
            );
        }
        let all = self.words.is_empty();
        Ok(words.into_iter().filter(|word| all || self.words.iter().any(|chosen| is(word, chosen))).collect())
    }
}

impl Source {
    fn pipeline(&self, stage: Option<Stage>, to: (Kind, Device)) -> Result<Pipeline> {
        match self {
            Self::Run(run) => run.pipeline_after(stage, to),
            Self::Model(model) => Pipeline::open(model, to),
        }
    }

    /// What its own pictures are drawn with.
    fn guidance_scale(&self) -> Result<f64> {
        match self {
            Self::Run(run) => Ok(run.config.validation.guidance_scale),
            Self::Model(model) => guidance_of_model(model.path()),
        }
    }
}
