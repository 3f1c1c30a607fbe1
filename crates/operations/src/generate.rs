//! `generate`: prompts to PNG files.

mod model;

use std::fmt;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use distributed::Group;
use image::codecs::jpeg::JpegEncoder;
use images::{Grid, RgbImage};
use requests::{Compute, Generate};
use runs::{ImageEntry, ImageFolder};
use sampling::{Pipeline, Request, Settings, Step};
use serde::Serialize;
use tch::Tensor;
use weights::Archive;

use crate::compute::{self, scheduler_name};
use crate::context::{Context, Event};
use crate::memory::guarded;
use crate::models;
use crate::profiling::Profiler;
use model::{LoadedModel, ModelKey};

/// What was generated.
#[derive(Debug, Clone, Serialize)]
pub struct Generated {
    /// The folder.
    pub folder: PathBuf,
    /// Images, by prompt and seed.
    pub images: Vec<PathBuf>,
    /// Grids of them, where there are several.
    pub grids: Vec<PathBuf>,
}

/// None in a process that has generated for rank 0, which writes.
pub(crate) fn run(request: &Generate, context: &Context<'_>) -> Result<Option<Generated>> {
    let processes = context.connect()?;
    processes.telling(|| run_among(request, &processes, context))
}

fn run_among(request: &Generate, processes: &Group, context: &Context<'_>) -> Result<Option<Generated>> {
    let request = &Generate {
        model: models::located(request.model.as_deref())?,
        compute: Compute { device: context.device(request.compute.device), ..request.compute },
        ..request.clone()
    };
    let to = compute::resolve(request.compute)?;
    let profiler = Profiler::start(request.profiling, to.1);
    write(request, &mut LoadedModel::load(request, to, context)?, profiler, (processes, context))
}

/// Generates images for one request after another, and keeps the model of the last one in memory for the next.
///
/// The images are those of [`generate`](crate::generate()), byte by byte.
#[derive(Default)]
pub struct Generator {
    kept: Option<(ModelKey, LoadedModel)>,
}

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator").field("keeps_a_model", &self.kept.is_some()).finish()
    }
}

impl Generator {
    /// As [`generate`](crate::generate()); the model is loaded where it is not the last one, or where one of its files has changed.
    ///
    /// # Errors
    /// As [`generate`](crate::generate()); then no model is kept.
    pub fn generate(&mut self, request: &Generate, context: &Context<'_>) -> Result<Generated> {
        guarded(|| self.run(request, context))
    }

    fn run(&mut self, request: &Generate, context: &Context<'_>) -> Result<Generated> {
        let request = &Generate { model: models::located(request.model.as_deref())?, ..request.clone() };
        let to = compute::resolve(request.compute)?;
        let profiler = Profiler::start(request.profiling, to.1);
        let key = ModelKey::of(request, context)?;
        // Another model goes before this one is loaded.
        let kept = self.kept.take().filter(|(kept, _)| *kept == key);
        let mut model = match kept {
            Some((_, model)) => model,
            None => LoadedModel::load(request, to, context)?,
        };
        let generated = write(request, &mut model, profiler, (&Group::alone(), context))?;
        let generated = generated.context("a process alone has written nothing")?;
        self.kept = Some((key, model));
        Ok(generated)
    }
}

/// Generates the images of a request, and writes them: rank 0, where there are several processes.
fn write(
    request: &Generate,
    model: &mut LoadedModel,
    profiler: Profiler,
    (processes, context): (&Group, &Context<'_>),
) -> Result<Option<Generated>> {
    context.notes(&model.notes);
    let pipeline = &mut model.pipeline;
    context.notes(pipeline.notes());
    if request.check {
        let source = request.run.as_ref().or(request.model.as_ref()).map(|path| path.display().to_string());
        check_finite(pipeline).with_context(|| format!("--check of {}", source.unwrap_or_default()))?;
    }
    let default = pipeline.default_settings();
    let [height, width] = request.size.or(default.height);
    let settings =
        compute::settings(&request.sampler, &model.validation.sampler(&Settings { height, width, ..default }));
    let images = images_of(request)?;
    pipeline.check(&images, &settings)?;
    for prompt in request.prompts.iter().chain([&request.negative_prompt]) {
        context.notes(pipeline.prompt_notes(prompt)?);
    }
    context.seed(request.seed);
    let out = folder(request);
    let mut folder = processes.leads().then(|| ImageFolder::open(&out)).transpose()?;

    // Of each batch every process has its share.
    let batch_size = request.size.batch_size.max(1) as usize * processes.size();
    let batches = images.len().div_ceil(batch_size) as u64;
    let mut progress = context.progress("steps");
    let columns = columns(request.prompts.len(), request.images as usize);
    // However many images there are, memory holds those of one grid.
    let mut grid = FilledGrid { first: None, images: 0, grid: Grid::new(columns) };
    let mut generated = Generated { folder: out, images: Vec::new(), grids: Vec::new() };
    for (batch, chunk) in images.chunks(batch_size).enumerate() {
        context.check()?;
        let mut preview = |image: RgbImage| context.tell(Event::Preview { jpeg: jpeg(&image) });
        let previews = (request.previews as usize, &mut preview as &mut dyn FnMut(RgbImage));
        let own = &chunk[processes.share(chunk.len())];
        let mut on_step = |step: Step| {
            progress.step(batches * step.total as u64, format!("batch {}/{batches}", batch + 1));
        };
        let made = match own {
            [] => Vec::new(),
            own => pipeline.generate_with_previews(own, &settings, previews, &mut on_step)?,
        };
        let made = gathered(processes, chunk.len(), made, [height, width])?;
        let Some(folder) = &mut folder else { continue };
        let _span = tracing::trace_span!("generate/save").entered();
        for (image, pixels) in chunk.iter().zip(made) {
            let parameters = parameters(request, image, &settings, pipeline);
            let number = folder.add(&pixels, &parameters, entry(request, image, &settings, pipeline))?;
            let file = generated.folder.join(ImageFolder::file_name(number, image.seed));
            context.image(file.clone());
            generated.images.push(file);
            grid.push(pixels, format!("{} (seed {})", image.prompt, image.seed), number);
            if grid.images == MOST_IN_GRID / columns * columns {
                generated.grids.extend(grid.write(folder)?.map(|grid| generated.folder.join(grid)));
            }
        }
    }
    processes.leave()?;
    let Some(folder) = folder else { return Ok(None) };
    let last = tracing::trace_span!("generate/save").in_scope(|| grid.write(&folder))?;
    generated.grids.extend(last.map(|grid| generated.folder.join(grid)));
    profiler.finish(&generated.folder, context)?;
    Ok(Some(generated))
}

/// All images of a batch of so many, of which each process has `made` its share.
fn gathered(processes: &Group, all: usize, made: Vec<RgbImage>, size: [i64; 2]) -> Result<Vec<RgbImage>> {
    if processes.size() == 1 {
        return Ok(made);
    }
    let [height, width] = [u32::try_from(size[0])?, u32::try_from(size[1])?];
    let own = processes.share(all);
    let bytes = height as usize * width as usize * 3;
    let mut pixels = vec![0u8; all * bytes];
    for (image, place) in made.iter().zip(pixels[own.start * bytes..].chunks_exact_mut(bytes)) {
        place.copy_from_slice(image.as_raw());
    }
    // What is another's is 0 here.
    let sum = Tensor::from_slice(&pixels);
    processes.sum(&sum)?;
    let image = |pixels: &[u8]| {
        RgbImage::from_raw(width, height, pixels.to_vec()).context("an image has other sizes than were asked for")
    };
    Vec::<u8>::try_from(&sum)?.chunks_exact(bytes).map(image).collect()
}

/// A preview in base64; none in practice that cannot be encoded.
fn jpeg(image: &RgbImage) -> String {
    let mut bytes = Cursor::new(Vec::new());
    let encoded = image.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, PREVIEW_QUALITY));
    encoded.map(|()| BASE64_STANDARD.encode(bytes.into_inner())).unwrap_or_default()
}

/// Of a preview's JPEG.
const PREVIEW_QUALITY: u8 = 80;

/// The folder to write to.
fn folder(request: &Generate) -> PathBuf {
    match (&request.out, &request.run) {
        (Some(out), _) => out.clone(),
        (None, Some(run)) => run.join("images"),
        (None, None) => PathBuf::from("runs/generate"),
    }
}

/// What to ask of the pipeline, image by image, prompt by prompt.
fn images_of(request: &Generate) -> Result<Vec<Request>> {
    let images = request.prompts.len() as u64 * u64::from(request.images);
    limits::within("the number of images (prompts times --images)", images, 1..=10_000, "all of them are generated")?;
    let mut requests: Vec<Request> = Vec::new();
    for prompt in &request.prompts {
        for i in 0..u64::from(request.images) {
            let seed = request.seed.get().wrapping_add(i);
            let negative_prompt = request.negative_prompt.clone();
            requests.push(Request { negative_prompt, ..Request::new(prompt, seed) });
        }
    }
    if let Some(path) = &request.latents {
        let latents = read_latents(path)?;
        let count = latents.size()[0];
        ensure!(
            count == requests.len() as i64,
            "{} has the latents of {count} images, but {} are asked for (prompts times --images)",
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
fn parameters(request: &Generate, image: &Request, settings: &Settings, pipeline: &Pipeline) -> String {
    let source = request.run.as_ref().or(request.model.as_ref());
    let model = source.and_then(|path| path.file_name()).unwrap_or_default().to_string_lossy();
    image.describe(settings, scheduler_name(settings, pipeline), &model)
}

/// What the log says of an image: what was asked for, what it became, and with which versions.
fn entry(request: &Generate, image: &Request, settings: &Settings, pipeline: &Pipeline) -> ImageEntry {
    let (kind, device) = pipeline.placement();
    let path =
        |path: &Option<PathBuf>| path.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    ImageEntry {
        file: String::new(),
        prompt: image.prompt.clone(),
        negative_prompt: image.negative_prompt.clone(),
        seed: image.seed,
        steps: settings.steps,
        guidance_scale: settings.guidance_scale,
        width: settings.width,
        height: settings.height,
        scheduler: scheduler_name(settings, pipeline).to_owned(),
        eta: settings.eta,
        run: path(&request.run),
        model: path(&request.model),
        loras: request.loras.iter().map(ToString::to_string).collect(),
        lora_scale: request.lora_scale,
        latents: path(&request.latents),
        reference: path(&request.reference),
        embeddings: request.embeddings.iter().filter_map(|file| path(&Some(file.clone()))).collect(),
        device: format!("{device:?}"),
        dtype: format!("{kind:?}"),
        time: time.as_secs_f64(),
        versions: models::versions(),
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
struct FilledGrid {
    /// The number of its first image.
    first: Option<u64>,
    images: usize,
    grid: Grid,
}

impl FilledGrid {
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
            "the tensor `latents` in {} has shape {:?}, but must be [images, channels, height/8, width/8]",
            path.display(),
            latents.size()
        ),
        None => bail!("{} has no tensor called `latents`", path.display()),
    }
}

fn check_finite(pipeline: &Pipeline) -> Result<()> {
    pipeline.parameters.all().try_for_each(|(name, parameters)| parameters.check_finite().context(name))
}
