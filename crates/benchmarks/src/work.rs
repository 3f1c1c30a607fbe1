//! The pieces of work that can be timed.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use clip::ClipTextModel;
use evaluation::{FeatureExtractor, ImageFile};
use libtorch::random;
use runs::{ConfigLayers, TrainConfig};
use sampling::{ModelFolder, Pipeline, Request};
use scheduler::SchedulerKind;
use tch::{Kind, Tensor};
use trainer::{Event, Opening, Session};
use unet::{AddedConditions, UNet};
use vae::AutoencoderKl;

use crate::prepared::{Prepared, images, latents, size, timesteps};
use crate::settings::Settings;
use crate::step;

/// A piece of work. Its inputs are normal numbers of fixed seeds, the same in `python/work.py`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// The U-Net's forward pass, without gradients.
    UnetForward,
    /// A step of a method's phase, by its number from 0, with the VAE's encoding of its batch; where the recipe has prior
    /// preservation, half of the batch are class images. LoRAs have rank 8.
    Step(&'static str, usize),
    /// The text encoder's forward pass.
    TextEncoder,
    /// Images to the moments of latents.
    VaeEncode,
    /// Latents to images.
    VaeDecode,
    /// AdamW on all of the U-Net's parameters.
    AdamW,
    /// Images' latents from noise: DPM-Solver++ with guidance.
    Sampling,
    /// The U-Net's weights from their file to parameters.
    Loading,
    /// CLIP features of image files.
    Features,
    /// A whole training run from photos to files, by the model's own preset.
    Training,
}

impl Work {
    /// Every piece of work and its name.
    pub const ALL: [(Self, &str); 22] = [
        (Self::UnetForward, "unet-forward"),
        (Self::Step("attndreambooth", 0), "embedding-step"),
        (Self::Step("attndreambooth", 1), "cross-attention-step"),
        (Self::Step("attndreambooth", 2), "unet-step"),
        (Self::Step("attndreambooth-lora", 2), "attndreambooth-lora-step"),
        (Self::Step("textual-inversion", 0), "textual-inversion-step"),
        (Self::Step("dreambooth", 0), "dreambooth-step"),
        (Self::Step("ti-db", 0), "ti-db-step"),
        (Self::Step("custom-diffusion", 0), "custom-diffusion-step"),
        (Self::Step("oft", 0), "oft-step"),
        (Self::Step("coft", 0), "coft-step"),
        (Self::Step("lora", 0), "lora-step"),
        (Self::Step("neti", 0), "neti-step"),
        (Self::Step("vico", 0), "vico-step"),
        (Self::TextEncoder, "text-encoder"),
        (Self::VaeEncode, "vae-encode"),
        (Self::VaeDecode, "vae-decode"),
        (Self::AdamW, "adamw"),
        (Self::Sampling, "sampling"),
        (Self::Loading, "loading"),
        (Self::Features, "features"),
        (Self::Training, "training"),
    ];

    pub(crate) fn prepare(self, settings: &Settings) -> Result<Prepared> {
        let to = (settings.kind, settings.device);
        let component = |name: &str| Ok::<_, anyhow::Error>(ModelFolder::open(&settings.model)?.component(name));
        match self {
            Self::UnetForward => unet_forward(UNet::from_folder(&component("unet")?, to)?.0, settings),
            Self::Step(method, phase) => step::prepare(methods::named(method)?, phase, settings),
            Self::TextEncoder => {
                let (encoder, _) = ClipTextModel::from_folder(&component("text_encoder")?, to)?;
                let (batch, positions) = (settings.batch_size, encoder.config().max_position_embeddings);
                let ids = random::integers(4, encoder.config().vocab_size, &[batch, positions]);
                Ok(without_gradients(move || encoder.forward(&ids)))
            }
            Self::VaeEncode => {
                let (vae, _) = AutoencoderKl::from_folder(&component("vae")?, to)?;
                let images = images(settings)?.to_device(to.1).to_kind(to.0);
                Ok(without_gradients(move || Ok(vae.encode(&images)?.moments())))
            }
            Self::VaeDecode => {
                let (vae, _) = AutoencoderKl::from_folder(&component("vae")?, to)?;
                let latents = latents(settings, vae.config().latent_channels)?.to_device(to.1).to_kind(to.0);
                Ok(without_gradients(move || vae.decode(&latents)))
            }
            Self::AdamW => step::adamw(&component("unet")?, settings),
            Self::Sampling => sampling(Pipeline::from_folder(&settings.model, to)?, settings),
            Self::Loading => {
                let folder = component("unet")?;
                Ok(Prepared::new(move || {
                    let (_, parameters) = UNet::from_folder(&folder, to)?;
                    Ok(Tensor::from(parameters.count() as f64))
                }))
            }
            Self::Features => features(settings),
            Self::Training => training(settings),
        }
    }
}

impl FromStr for Work {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name);
        let names = || Self::ALL.map(|(_, name)| name).join(", ");
        found.map(|(work, _)| *work).with_context(|| format!("there is no work {name:?}; choose one of {}", names()))
    }
}

fn without_gradients(pass: impl Fn() -> Result<Tensor> + 'static) -> Prepared {
    Prepared::new(move || tch::no_grad(|| Ok(size(&pass()?))))
}

fn unet_forward(unet: UNet, settings: &Settings) -> Result<Prepared> {
    let (config, to) = (unet.config(), (settings.kind, settings.device));
    let latents = latents(settings, config.in_channels)?.to_device(to.1).to_kind(to.0);
    let text = random::normal(2, &[settings.batch_size, 77, config.cross_attention_dim]).to_device(to.1).to_kind(to.0);
    let timesteps = timesteps(settings.batch_size).to_device(to.1);
    let Some(width) = config.pooled_text_dim() else {
        return Ok(without_gradients(move || unet.forward(&latents, &timesteps, &text, None)));
    };
    let side = settings.side()? as f32;
    let added = AddedConditions {
        text_embeds: random::normal(8, &[settings.batch_size, width]).to_device(to.1).to_kind(to.0),
        time_ids: Tensor::from_slice(&[side, side, 0.0, 0.0, side, side]).expand([settings.batch_size, 6], false),
    };
    Ok(without_gradients(move || unet.forward_cached(&latents, &timesteps, &unet.project_with(&text, &added)?, None)))
}

fn sampling(pipeline: Pipeline, settings: &Settings) -> Result<Prepared> {
    let side = settings.side()?;
    let requests: Vec<Request> =
        (0..settings.batch_size).map(|i| Request::new("a photo of a bird", i.unsigned_abs())).collect();
    let scheduler = Some(SchedulerKind::DpmSolverPlusPlus);
    let base = sampling::Settings { height: side, width: side, ..pipeline.default_settings() };
    let asked = sampling::Settings { steps: settings.steps, guidance_scale: 7.5, scheduler, ..base };
    Ok(Prepared::new(move || Ok(size(&pipeline.denoise(&requests, &asked, &mut |_| {})?))))
}

fn features(settings: &Settings) -> Result<Prepared> {
    let extractor = FeatureExtractor::open(&settings.model, settings.device)?;
    let extractor = extractor.with_batch_size(usize::try_from(settings.batch_size)?);
    let folder = std::fs::read_dir(&settings.images)
        .with_context(|| format!("cannot read the images in {}", settings.images.display()))?;
    let mut images = folder.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    ensure!(!images.is_empty(), "there are no images in {}", settings.images.display());
    images.sort();
    let images: Vec<ImageFile> = images.into_iter().map(ImageFile::new).collect();
    Ok(Prepared::new(move || {
        let mut sum = 0.0;
        extractor.each_batch(&images, &mut |batch| {
            sum += batch.abs().sum(Kind::Double).double_value(&[]);
            Ok(())
        })?;
        Ok(Tensor::from(sum / images.len() as f64))
    }))
}

fn training(settings: &Settings) -> Result<Prepared> {
    let Settings { model, images: photos, category, changes, .. } = settings.clone();
    let (device, resolution) = (settings.device, settings.resolution);
    settings.check_trains()?;
    let dtype = match settings.kind {
        Kind::BFloat16 => "bf16",
        _ if settings.tf32 => "tf32",
        _ => "fp32",
    };
    let first_step = Rc::new(Cell::new(None));
    let reported = Rc::clone(&first_step);
    let run = move || {
        let out = tempfile::tempdir()?;
        let mut layers = ConfigLayers::of_model(&model, &TrainConfig::paper())?;
        for (path, value) in
            [("model", path(&model)), ("concept", path(&photos)), ("category", category.as_str().into())]
        {
            layers.put(path, value)?;
        }
        layers.put("dtype", dtype.into())?;
        if let Some(resolution) = resolution {
            layers.put("augmentation.resolution", resolution.into())?;
        }
        for (path, value) in &changes {
            layers.set(path, value)?;
        }
        let mut loss = f64::NAN;
        let _outcome =
            Session::open(layers, &out.path().join("run"), device, Opening::New)?.run(&|| false, &mut |event| {
                if let Event::Step { report, .. } = event {
                    loss = report.loss("diffusion").unwrap_or(f64::NAN);
                    reported.set(reported.get().or_else(since_start));
                }
            })?;
        Ok(Tensor::from(loss))
    };
    Ok(Prepared { run: Box::new(run), first_step })
}

fn path(path: &Path) -> serde_json::Value {
    path.display().to_string().into()
}

/// Seconds since the process was started, where the system tells; to a hundredth.
fn since_start() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The 22nd field; the name in the second may have spaces, but ends with the last parenthesis.
    let ticks: f64 = stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let now: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    /// `USER_HZ`, which Linux has fixed for programs.
    const TICKS_A_SECOND: f64 = 100.0;
    Some(now - ticks / TICKS_A_SECOND)
}
