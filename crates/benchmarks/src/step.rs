//! Training steps on batches that are the same each time.

use std::path::Path;

use anyhow::Result;
use libtorch::random;
use methods::{Batch, Learned, Method};
use optimizer::AdamW;
use options::{Adapter, Dtype};
use prompts::TemplateSet;
use runs::TrainConfig;
use sampling::{BaseModel, ModelOptions, Pipeline, SizeConditioning};
use tch::{Device, Kind, Tensor};
use trainer::{BatchIndex, Batches, LatentEncoder, Trainer};
use unet::UNet;

use crate::prepared::{Prepared, images, size, timesteps};
use crate::settings::Settings;

/// Encodes the same images again for each step.
struct SameBatch {
    encoder: LatentEncoder,
    images: Tensor,
    noise: Tensor,
    posterior_noise: Tensor,
    timesteps: Tensor,
    mask: Option<Tensor>,
    /// The noise of the references' posterior, where the model looks at some: the images in another order.
    reference_noise: Option<Tensor>,
    prompts: Vec<String>,
    class_prompts: Vec<String>,
    size: SizeConditioning,
}

impl SameBatch {
    fn new(pipeline: &Pipeline, config: &TrainConfig, settings: &Settings) -> Result<Self> {
        let images = images(settings)?;
        let encoder = LatentEncoder::new(pipeline, config)?;
        let side = settings.side()? / 8;
        let shape = [settings.batch_size, pipeline.unet.config().in_channels, side, side];
        let prompts: Vec<String> = match &config.templates {
            None => vec![config.fill(&config.prompt)],
            Some(name) => {
                let prompts = TemplateSet::load(name)?.prompts;
                (0..usize::try_from(settings.batch_size)?).map(|i| config.fill(&prompts[i % prompts.len()])).collect()
            }
        };
        let class = config.prior.as_ref().map(|prior| config.fill(&prior.prompt));
        let subjects = settings.batch_size / if class.is_some() { 2 } else { 1 };
        let full = [subjects, 1, side, side];
        // The trainer's batches lie on the device as well.
        let there = |tensor: Tensor| libtorch::upload(&tensor, settings.device);
        Ok(Self {
            encoder,
            images,
            noise: there(random::normal(5, &shape)),
            posterior_noise: there(random::normal(6, &shape)),
            timesteps: there(timesteps(settings.batch_size)),
            mask: config.sizes.as_ref().map(|_| there(Tensor::ones(full, (Kind::Float, Device::Cpu)))),
            reference_noise: config.reference.as_ref().map(|_| there(random::normal(7, &shape))),
            size: SizeConditioning::whole(settings.side()?, settings.side()?),
            class_prompts: class.iter().flat_map(|class| vec![class.clone(); prompts.len()]).collect(),
            prompts,
        })
    }
}

impl Batches for SameBatch {
    fn batch(&mut self, _: BatchIndex) -> Result<Batch> {
        let moments = self.encoder.moments(&self.images)?;
        let reference = |noise: &Tensor| self.encoder.sample(&self.encoder.moments(&self.images.flip([0]))?, noise);
        Ok(Batch {
            latents: self.encoder.sample(&moments, &self.posterior_noise)?,
            noise: self.noise.shallow_clone(),
            timesteps: self.timesteps.shallow_clone(),
            mask: self.mask.as_ref().map(Tensor::shallow_clone),
            prompts: self.prompts.clone(),
            class_prompts: self.class_prompts.clone(),
            sizes: vec![self.size; self.images.size()[0] as usize],
            references: self.reference_noise.as_ref().map(reference).transpose()?,
            drawn: None,
        })
    }
}

/// A single token for every tokenizer here, the small ones too.
const CATEGORY: &str = "photo";

/// No layer of the miniature takes a larger one.
const RANK: u32 = 8;

/// Steps of a phase of a method, by its number from 0; the check is the loss of the first.
pub(crate) fn prepare(method: &dyn Method, phase: usize, settings: &Settings) -> Result<Prepared> {
    settings.check_trains()?;
    let mut recipe = method.recipe();
    recipe.phases.values_mut().for_each(|phase| phase.gradient_accumulation = 1);
    let config = TrainConfig {
        category: CATEGORY.to_owned(),
        dtype: if settings.kind == Kind::BFloat16 { Dtype::Bf16 } else { Dtype::Fp32 },
        gradient_checkpointing: settings.gradient_checkpointing,
        // A rare word is several tokens for a small tokenizer.
        placeholder: "<new>".to_owned(),
        // NeTI's token has embeddings of its mapper.
        new_token: method.name() != methods::NeTi.name(),
        initial_word: None,
        adapter: recipe.adapter.map(|adapter| match adapter {
            Adapter::Lora { alpha, targets, .. } => Adapter::Lora { rank: RANK, alpha, targets },
            oft => oft,
        }),
        ..recipe
    };
    let model = BaseModel::open(&settings.model, &ModelOptions::default())?;
    let pipeline = Pipeline::open_with(&model, (Kind::Float, settings.device), trainer::unet_dtype(&config))?;
    let mut batches = SameBatch::new(&pipeline, &config, settings)?;
    let trainer = Trainer::new(config, pipeline)?;
    start_as_python(&trainer.learned);
    let mut phase_run = trainer.start(phase)?;
    Ok(Prepared::new(move || {
        let report = phase_run.step(&trainer, &mut batches)?.wait()?;
        Ok(Tensor::from(report.losses.iter().map(|(_, loss)| loss).sum::<f64>()))
    }))
}

/// Networks that begin at random begin as they do in `python/work.py`: by their parameters in order of their names.
fn start_as_python(learned: &Learned) {
    let mut begun: Vec<&(String, Tensor)> = match (&learned.mapper, &learned.image_attention) {
        (None, None) => return,
        _ => learned.added.iter().collect(),
    };
    begun.sort_by_key(|(name, _)| name);
    tch::no_grad(|| {
        for (number, (name, parameter)) in begun.into_iter().enumerate() {
            let offset = if parameter.dim() == 1 && name.ends_with("weight") { 1.0 } else { 0.0 };
            let values = random::normal(100 + number as u64, &parameter.size()) * 0.02 + offset;
            parameter.shallow_clone().copy_(&values);
        }
        if let Some(mapper) = &learned.mapper {
            let frequencies = random::normal(99, &mapper.frequencies().size());
            mapper.frequencies().shallow_clone().copy_(&(frequencies * Tensor::from_slice(&[0.03f32, 2.0])));
        }
    });
}

/// AdamW with the parameters themselves, doubled, as their gradients; the check is what the step leaves of the first.
pub(crate) fn adamw(unet: &Path, settings: &Settings) -> Result<Prepared> {
    let (_, parameters) = UNet::from_folder(unet, (Kind::Float, settings.device))?;
    let trained = parameters.train(|_| true);
    for (_, parameter) in &trained {
        parameter.square().sum(Kind::Float).backward();
    }
    let mut adamw = AdamW::new(trained.iter().copied(), &optimizer::Config::default())?;
    let first = trained[0].1.shallow_clone();
    Ok(Prepared::new(move || {
        adamw.step(1e-3)?;
        Ok(tch::no_grad(|| size(&first)))
    }))
}
