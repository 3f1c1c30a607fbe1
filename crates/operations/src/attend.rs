//! `attend`: where the words of a prompt act in its image, after each phase of a run.

mod figure;
mod former;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use heatmaps::{Config, HeatMapRecorder};
use model_files::BaseModel;
use requests::{Attend, ColorScale};
use runs::{Attention, AttentionWord, HeatMapSettings, ResultsFolder, Validation};
use sampling::{Pipeline, Request, Settings, Word};
use serde::Serialize;
use tch::{Device, Kind};
use trainer::FinishedRun;

use crate::compute::{self, scheduler_name};
use crate::context::Context;
use crate::models;
use figure::{Figure, Row};

/// What was written.
#[derive(Debug, Clone, Serialize)]
pub struct Attended {
    /// The folder with grid.png, single images, maps.safetensors and attend.json.
    pub folder: PathBuf,
    /// The words of the columns.
    pub words: Vec<String>,
    /// The models of the rows.
    pub rows: Vec<String>,
}

/// Where the model comes from.
enum Source {
    Run(Box<FinishedRun>),
    Model(Box<BaseModel>),
}

/// A model to be shown: its name in files, and the number, from 1, of the phase that it comes after.
type Shown = (String, Option<usize>);

pub(crate) fn run(request: &Attend, context: &Context<'_>) -> Result<Attended> {
    let started = Instant::now();
    let config = Config { factors: request.factors.clone(), mid: request.mid, normalize: request.normalize };
    config.validate()?;
    let to = compute::resolve(request.compute)?;
    let (source, out) = source(request, context)?;
    let results = ResultsFolder::check(&out, "attend", &["attend.json"])?;
    let rows = rows(request, &source);
    context.seed(request.seed);

    let mut progress = context.progress("steps");
    let mut figure: Option<Figure> = None;
    for (name, phase) in &rows {
        context.check()?;
        let mut pipeline = source.pipeline(phase.is_some().then_some(name.as_str()), to)?;
        pipeline.set_packed_bytes(compute::packed_bytes(&pipeline));
        if figure.is_none() {
            context.notes(pipeline.notes());
        }
        let default = source.validation()?.sampler(&pipeline.default_settings());
        let settings = compute::settings(&request.sampler, &default);
        let figure = match &mut figure {
            Some(figure) => figure,
            None => figure.insert(empty_figure(request, &pipeline, &source, settings.clone(), context)?),
        };
        let [_, height, width] = pipeline.latents_shape(&settings);
        let mut recorder = HeatMapRecorder::new(config.clone(), figure.tokens.len(), (height, width), 1)?;
        let image = [Request::new(&request.prompt, request.seed.get())];
        let latents = pipeline.denoise_observed(&image, &settings, &mut recorder, &mut |step| {
            progress.step(rows.len() as u64 * step.total as u64, name.as_str());
        })?;
        let pixels = pipeline.decode(&image, &latents)?.remove(0);
        let row = Row::new(name, *phase, pixels, &recorder.finish()?, figure)?;
        figure.rows.push(row);
    }
    let Some(figure) = figure else { bail!("the run has no model to show") };

    results.create()?;
    figure.save_maps(&out.join("maps.safetensors"))?;
    let shown = figure.write(&out, request.colors == ColorScale::Common, context)?;
    former::remove(&out, &shown)?;
    let words = figure
        .words
        .iter()
        .map(|Word { text, positions }| AttentionWord { word: text.clone(), positions: positions.clone() });
    let record = Attention {
        arguments: serde_json::from_value(serde_json::to_value(request)?)?,
        settings: figure.settings,
        scheduler: figure.scheduler.to_owned(),
        heat_maps: HeatMapSettings { factors: config.factors, mid: config.mid, normalize: config.normalize },
        device: format!("{:?}", to.1),
        dtype: format!("{:?}", to.0),
        versions: models::versions(),
        seconds: started.elapsed().as_secs_f64(),
        tokens: figure.tokens,
        words: words.collect(),
        rows: shown,
    };
    record.write(&out)?;
    Ok(Attended {
        folder: out,
        words: figure.words.into_iter().map(|word| word.text).collect(),
        rows: rows.into_iter().map(|(name, _)| name).collect(),
    })
}

/// The model's place, and the folder to write to.
fn source(request: &Attend, context: &Context<'_>) -> Result<(Source, PathBuf)> {
    let (source, out) = match (&request.run, &request.model) {
        (Some(run), model) => (Source::Run(Box::new(models::finished(run, model.as_deref())?)), run.join("attend")),
        (None, Some(_)) if request.phases => {
            bail!("--phases shows the phases of a training run; give one with --run in place of --model")
        }
        (None, Some(model)) => {
            let model = models::open(model, &request.single_file, context)?;
            (Source::Model(Box::new(model)), PathBuf::from("runs/attend"))
        }
        (None, None) => bail!("give a training run with --run, or a model with --model"),
    };
    Ok((source, request.out.clone().unwrap_or(out)))
}

/// The rows of the figure.
fn rows(request: &Attend, source: &Source) -> Vec<Shown> {
    let Source::Run(run) = source else { return vec![("model".to_owned(), None)] };
    let phases = run.config.phases.iter().enumerate();
    if !request.phases {
        return phases.rev().take(1).map(|(i, (name, _))| (name.clone(), Some(i + 1))).collect();
    }
    let done = phases.filter(|(_, (_, phase))| phase.steps > 0).map(|(i, (name, _))| (name.clone(), Some(i + 1)));
    std::iter::once(("base".to_owned(), None)).chain(done).collect()
}

/// The figure without its rows.
fn empty_figure(
    request: &Attend,
    pipeline: &Pipeline,
    source: &Source,
    settings: Settings,
    context: &Context<'_>,
) -> Result<Figure> {
    let prompt = &request.prompt;
    let shown = terminal::shortened(prompt);
    pipeline.check(&[Request::new(prompt, request.seed.get())], &settings)?;
    let words = pipeline.words(prompt).with_context(|| format!("the prompt {shown:?} cannot be shown"))?;
    if let Source::Run(run) = source {
        let category = &run.config.category;
        ensure!(
            words.iter().any(|word| word.text == "[V]"),
            "the prompt {shown:?} does not name the run's subject; write [V] where it stands, as in \"a [V] {category}\""
        );
    }
    ensure!(!words.is_empty(), "the prompt {shown:?} has no word to show");
    context.notes(pipeline.prompt_notes(prompt)?);
    let encoding = pipeline.tokenizer.encode(&pipeline.resolve(prompt)?)?;
    Ok(Figure {
        tokens: encoding.tokens[..encoding.len].to_vec(),
        words: choose(&request.words, words)?,
        scheduler: scheduler_name(&settings, pipeline),
        request: Request::new(prompt, request.seed.get()),
        settings,
        normalized: request.normalize,
        rows: Vec::new(),
    })
}

/// Those of the prompt's words that are to be shown.
fn choose(chosen: &[String], words: Vec<Word>) -> Result<Vec<Word>> {
    let is = |word: &Word, chosen: &str| word.text.to_lowercase() == chosen.to_lowercase();
    if let Some(unknown) = chosen.iter().find(|chosen| !words.iter().any(|word| is(word, chosen))) {
        let known: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        bail!(
            "the prompt has no word {:?}; its words are {}",
            terminal::shortened(unknown),
            terminal::shortened(&known.join(", "))
        );
    }
    Ok(words.into_iter().filter(|word| chosen.is_empty() || chosen.iter().any(|chosen| is(word, chosen))).collect())
}

impl Source {
    fn pipeline(&self, phase: Option<&str>, to: (Kind, Device)) -> Result<Pipeline> {
        match self {
            Self::Run(run) => run.pipeline_after(phase, to),
            Self::Model(model) => Pipeline::open(model, to),
        }
    }

    /// What its own images are generated with.
    fn validation(&self) -> Result<Validation> {
        match self {
            Self::Run(run) => Ok(run.config.validation.clone()),
            Self::Model(model) => models::validation(model.path()),
        }
    }
}
