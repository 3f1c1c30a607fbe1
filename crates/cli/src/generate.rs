//! `generate`: prompts to PNG files.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use pictures::Grid;
use sampling::{Pipeline, Request, Settings};
use serde::Serialize;
use serde_json::json;
use tch::Tensor;
use trainer::FinishedRun;
use weights::Archive;

use crate::device::ComputeArgs;
use crate::profile::ProfileArgs;
use crate::progress::Progress;
use crate::sampler::{SamplerArgs, SizeArgs, guidance_of_model, scheduler_name};

/// Make pictures of prompts with a model in the diffusers layout.
#[derive(Args, Debug, Serialize)]
pub(crate) struct Generate {
    /// The model: a folder with unet/, vae/, text_encoder/, tokenizer/ and scheduler/
    #[arg(long, required_unless_present = "run", conflicts_with = "run")]
    model: Option<PathBuf>,
    // Not a doc comment: to rustdoc, [V] would be a link.
    #[arg(long, help = "The folder of a training run, whose subject prompts call [V]")]
    run: Option<PathBuf>,
    /// What to draw; may be given several times
    #[arg(long = "prompt", required = true)]
    prompts: Vec<String>,
    /// What to lead away from
    #[arg(long, default_value = "")]
    negative_prompt: String,
    /// The folder to write to; it is made if need be
    #[arg(long, default_value = "runs/generate")]
    out: PathBuf,
    /// Pictures of each prompt
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
    /// The seed of each prompt's first picture; the next has the next seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    #[serde(flatten)]
    sampler: SamplerArgs,
    #[command(flatten)]
    #[serde(flatten)]
    size: SizeArgs,
    /// A safetensors file with the tensor `latents` [pictures, channels, height/8, width/8]: the initial noise
    #[arg(long)]
    latents: Option<PathBuf>,
    /// Look for NaN and infinite weights before starting
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    #[serde(flatten)]
    profile: ProfileArgs,
}

impl Generate {
    pub(crate) fn execute(self) -> Result<()> {
        let started = Instant::now();
        // What can be wrong is found out before anything slow or lasting is done.
        self.sampler.kind()?;
        let to = self.compute.resolve()?;
        let profiler = self.profile.start(to.1);
        let (pipeline, source, guidance_scale) = profile::timed("generate/load", || match (&self.run, &self.model) {
            (Some(folder), _) => {
                let run = FinishedRun::open(folder)?;
                Ok((run.pipeline(to)?, folder, run.config.validation.guidance_scale))
            }
            (None, Some(model)) => Ok((Pipeline::from_folder(model, to)?, model, guidance_of_model(model)?)),
            (None, None) => bail!("give a model with --model, or a training run with --run"),
        })?;
        pipeline.notes().iter().for_each(|note| terminal::note!("{note}"));
        if self.check {
            check_finite(&pipeline).with_context(|| format!("--check of {}", source.display()))?;
        }
        let default = pipeline.default_settings();
        let [height, width] = self.size.or(default.height);
        let settings = self.sampler.settings(&Settings { height, width, guidance_scale, ..default })?;
        let requests = self.requests()?;
        pipeline.check(&requests, &settings)?;
        for prompt in &self.prompts {
            if let Some(truncation) = pipeline.tokenizer.encode(&pipeline.resolve(prompt)?)?.truncation {
                terminal::note!("{truncation}");
            }
        }
        std::fs::create_dir_all(&self.out).with_context(|| format!("cannot make the folder {}", self.out.display()))?;

        let batches = requests.len().div_ceil(self.size.batch()) as u64;
        let mut progress: Option<Progress> = None;
        // A row a prompt; where each has a single picture, about as wide as high.
        let columns = match self.images {
            1 => (requests.len() as f64).sqrt().ceil() as usize,
            images => images as usize,
        };
        let mut grid = Grid::new(columns);
        let mut records = Vec::new();
        for (batch, chunk) in requests.chunks(self.size.batch()).enumerate() {
            let pictures = pipeline.generate(chunk, &settings, &mut |step| {
                let progress = progress.get_or_insert_with(|| Progress::new("steps", batches * step.total as u64));
                progress.step(&format!("batch {}/{batches}", batch + 1));
            })?;
            let _span = profile::span("generate/save");
            for (request, picture) in chunk.iter().zip(pictures) {
                let name = format!("{:04}-seed{}.png", records.len(), request.seed);
                let parameters = self.parameters(request, &settings, &pipeline);
                pictures::save_png(&self.out.join(&name), &picture, &[("parameters", &parameters)])?;
                records.push(json!({ "file": name, "prompt": request.prompt, "seed": request.seed }));
                grid.push(picture, format!("{} (seed {})", request.prompt, request.seed));
            }
        }
        drop(progress);
        profile::timed("generate/save", || pictures::save_png(&self.out.join("grid.png"), &grid.draw(), &[]))?;
        self.record(&settings, &pipeline, &records, started)?;
        terminal::say!("{} picture(s) and grid.png in {}", records.len(), self.out.display());
        profiler.finish(&self.out)
    }

    /// One request a picture, prompt by prompt.
    fn requests(&self) -> Result<Vec<Request>> {
        let mut requests: Vec<Request> = Vec::new();
        for prompt in &self.prompts {
            for i in 0..u64::from(self.images) {
                let seed = self.seed.wrapping_add(i);
                let negative_prompt = self.negative_prompt.clone();
                requests.push(Request { negative_prompt, ..Request::new(prompt, seed) });
            }
        }
        if let Some(path) = &self.latents {
            let latents = read_latents(path)?;
            let count = latents.size()[0];
            ensure!(
                count == requests.len() as i64,
                "{} has the latents of {count} pictures, but {} are asked for (prompts times --images)",
                path.display(),
                requests.len()
            );
            for (i, request) in requests.iter_mut().enumerate() {
                request.latents = Some(latents.get(i as i64));
            }
        }
        Ok(requests)
    }

    /// The parameters in the words that other programs read from PNG files.
    fn parameters(&self, request: &Request, settings: &Settings, pipeline: &Pipeline) -> String {
        let source = self.run.as_ref().or(self.model.as_ref());
        let model = source.and_then(|path| path.file_name()).unwrap_or_default().to_string_lossy();
        request.describe(settings, scheduler_name(settings, pipeline), &model)
    }

    /// Writes `generate.json`: what was asked for, what it became, and with which versions.
    fn record(
        &self,
        settings: &Settings,
        pipeline: &Pipeline,
        records: &[serde_json::Value],
        started: Instant,
    ) -> Result<()> {
        let (kind, device) = pipeline.placement();
        let record = json!({
            "arguments": self,
            "settings": settings,
            "scheduler": scheduler_name(settings, pipeline),
            "device": format!("{device:?}"),
            "dtype": format!("{kind:?}"),
            "versions": { "attndreambooth": env!("CARGO_PKG_VERSION"), "libtorch": libtorch::LIBTORCH_VERSION },
            "seconds": started.elapsed().as_secs_f64(),
            "pictures": records,
        });
        atomic::write(&self.out.join("generate.json"), serde_json::to_vec_pretty(&record)?)
    }
}

fn read_latents(path: &Path) -> Result<Tensor> {
    let latents = Archive::open(path)?.tensor("latents")?;
    match latents {
        Some(latents) if latents.dim() == 4 => Ok(latents),
        Some(latents) => bail!(
            "the tensor `latents` in {} has shape {:?}, but must be [pictures, channels, height/8, width/8]",
            path.display(),
            latents.size()
        ),
        None => bail!("{} has no tensor called `latents`", path.display()),
    }
}

fn check_finite(pipeline: &Pipeline) -> Result<()> {
    let parameters = &pipeline.parameters;
    for (name, parameters) in
        [("text_encoder", &parameters.text_encoder), ("unet", &parameters.unet), ("vae", &parameters.vae)]
    {
        parameters.check_finite().context(name)?;
    }
    Ok(())
}
