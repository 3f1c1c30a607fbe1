//! `generate`: prompts to PNG files.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use images::{Grid, RgbImage};
use runs::{ImageEntry, ImageFolder};
use sampling::{Pipeline, Request, Settings};
use serde::Serialize;
use tch::Tensor;
use weights::Archive;

use crate::device::ComputeArgs;
use crate::learned::{self, versions};
use crate::model::ModelArgs;
use crate::number;
use crate::profile::ProfileArgs;
use crate::progress::Progress;
use crate::sampler::{SamplerArgs, SizeArgs, guidance_of_model, scheduler_name};
use crate::seed::Seed;

/// Make images of prompts with a Stable Diffusion model.
#[derive(Args, Debug, Serialize)]
pub(crate) struct Generate {
    /// The model: a folder with unet/, vae/, text_encoder/, tokenizer/ and scheduler/, or a .safetensors checkpoint of
    /// Stable Diffusion 1.x or 2.x; with --run, where the run's base model is now, if it has been moved
    #[arg(long, required_unless_present = "run")]
    model: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    model_args: ModelArgs,
    // Not a doc comment: to rustdoc, [V] would be a link.
    #[arg(long, conflicts_with = "ModelArgs", help = "The folder of a training run, whose subject prompts call [V]")]
    run: Option<PathBuf>,
    /// Prompt; may be given several times
    #[arg(long = "prompt", required = true)]
    prompts: Vec<String>,
    /// Negative prompt
    #[arg(long, default_value = "")]
    negative_prompt: String,
    /// The folder to write to; RUN/images or runs/generate if not given. Numbering goes on from what is there
    #[arg(long)]
    out: Option<PathBuf>,
    /// Images of each prompt
    #[arg(long, default_value_t = 1, value_parser = number::within(number::IMAGES, number::IMAGES_REASON))]
    images: u32,
    /// The seed of each prompt's first image; the next has the next seed. -1 for a random one, which is shown
    #[arg(long, default_value_t, allow_negative_numbers = true)]
    seed: Seed,
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
        // What can be wrong is found out before anything slow or lasting is done.
        self.sampler.kind()?;
        let to = self.compute.resolve()?;
        let profiler = self.profile.start(to.1);
        let (pipeline, source, guidance_scale) = profile::timed("generate/load", || match (&self.run, &self.model) {
            (Some(folder), model) => {
                let run = learned::open(folder, model.as_deref())?;
                Ok((run.pipeline(to)?, folder, run.config.validation.guidance_scale))
            }
            (None, Some(model)) => {
                let pipeline = Pipeline::open(&self.model_args.open(model)?, to)?;
                Ok((pipeline, model, guidance_of_model(model)?))
            }
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
        for prompt in self.prompts.iter().chain([&self.negative_prompt]) {
            pipeline.prompt_notes(prompt)?.iter().for_each(|note| terminal::note!("{note}"));
        }
        self.seed.announce();
        let out = self.folder();
        let mut folder = ImageFolder::open(&out)?;

        let batches = requests.len().div_ceil(self.size.batch()) as u64;
        let mut progress: Option<Progress> = None;
        let columns = columns(self.prompts.len(), self.images as usize);
        // However many images there are, memory holds those of one grid.
        let mut grid = GridOf { first: None, images: 0, grid: Grid::new(columns) };
        let mut grids: Vec<String> = Vec::new();
        for (batch, chunk) in requests.chunks(self.size.batch()).enumerate() {
            let images = pipeline.generate(chunk, &settings, &mut |step| {
                let progress = progress.get_or_insert_with(|| Progress::new("steps", batches * step.total as u64));
                progress.step(&format!("batch {}/{batches}", batch + 1));
            })?;
            let _span = profile::span("generate/save");
            for (request, image) in chunk.iter().zip(images) {
                let parameters = self.parameters(request, &settings, &pipeline);
                let number = folder.add(&image, &parameters, self.entry(request, &settings, &pipeline))?;
                grid.push(image, format!("{} (seed {})", request.prompt, request.seed), number);
                if grid.images == MOST_IN_GRID / columns * columns {
                    grids.extend(grid.write(&folder)?);
                }
            }
        }
        drop(progress);
        grids.extend(profile::timed("generate/save", || grid.write(&folder))?);
        let grids = if grids.is_empty() { String::new() } else { format!(" and {}", grids.join(", ")) };
        terminal::say!("{} image(s){grids} in {}", requests.len(), terminal::path(&out));
        profiler.finish(&out)
    }

    /// The folder to write to.
    fn folder(&self) -> PathBuf {
        match (&self.out, &self.run) {
            (Some(out), _) => out.clone(),
            (None, Some(run)) => run.join("images"),
            (None, None) => PathBuf::from("runs/generate"),
        }
    }

    /// One request a picture, prompt by prompt.
    fn requests(&self) -> Result<Vec<Request>> {
        let pictures = self.prompts.len() as u64 * u64::from(self.images);
        limits::within(
            "the number of pictures (prompts times --images)",
            pictures,
            1..=10_000,
            "a grid holds them all",
        )?;
        let mut requests: Vec<Request> = Vec::new();
        for prompt in &self.prompts {
            for i in 0..u64::from(self.images) {
                let seed = self.seed.get().wrapping_add(i);
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

    /// What the log says of an image: what was asked for, what it became, and with which versions.
    fn entry(&self, request: &Request, settings: &Settings, pipeline: &Pipeline) -> ImageEntry {
        let (kind, device) = pipeline.placement();
        let path = |path: &Option<PathBuf>| {
            path.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        };
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        ImageEntry {
            file: String::new(),
            prompt: request.prompt.clone(),
            negative_prompt: request.negative_prompt.clone(),
            seed: request.seed,
            steps: settings.steps,
            guidance_scale: settings.guidance_scale,
            width: settings.width,
            height: settings.height,
            scheduler: scheduler_name(settings, pipeline).to_owned(),
            run: path(&self.run),
            model: path(&self.model),
            latents: path(&self.latents),
            device: format!("{device:?}"),
            dtype: format!("{kind:?}"),
            time: time.as_secs_f64(),
            versions: versions(),
        }
    }
}

/// Images in one grid at most.
const MOST_IN_GRID: usize = 64;

/// Columns of a grid, eight at most: a row a prompt, or several as long as each other; where each prompt has a single
/// image, about as many as rows.
fn columns(prompts: usize, images: usize) -> usize {
    const MOST: usize = 8;
    match images {
        1 => ((prompts as f64).sqrt().ceil() as usize).min(MOST),
        images => images.div_ceil(images.div_ceil(MOST)),
    }
}

/// A grid that is being filled.
struct GridOf {
    /// The number of its first image.
    first: Option<u64>,
    images: usize,
    grid: Grid,
}

impl GridOf {
    fn push(&mut self, image: RgbImage, caption: String, number: u64) {
        self.first.get_or_insert(number);
        self.images += 1;
        self.grid.push(image, caption);
    }

    /// Writes what there is, if it is more than one image, and begins anew. Returns the file's name.
    fn write(&mut self, folder: &ImageFolder) -> Result<Option<String>> {
        let (first, images) = (self.first.take(), std::mem::take(&mut self.images));
        let grid = self.grid.take();
        first.filter(|_| images > 1).map(|first| folder.add_grid(&grid.draw(), first)).transpose()
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
