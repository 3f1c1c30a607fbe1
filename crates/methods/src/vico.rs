//! ViCo (arXiv 2306.00971): a new token, and blocks in the U-Net's decoder that look at another photo of the subject.

use ::vico::{ImageAttention, Positions};
use anyhow::{Context, Result, bail, ensure};
use libtorch::random;
use options::SchedulerKind;
use runs::{Group, GroupConfig, Phase, Phases, Reference, TrainConfig};
use sampling::{Pipeline, ReferenceConditioning, ReferenceMask, ReferencePass};
use tch::Tensor;
use unet::{AttentionObserver, KvCache, UNet};

use crate::{Learned, LossTerm, Method, Step};

/// As the authors' code has it: each sample beside a photo of the same subject, which passes the U-Net without noise at the same
/// timestep and with the same text.
#[derive(Debug)]
pub struct ViCo;

impl Method for ViCo {
    fn name(&self) -> &'static str {
        "vico"
    }

    fn recipe(&self) -> TrainConfig {
        let mut phase = Phase::new([Group::Embedding, Group::Adapter], 400, 1e-5, 4);
        phase.trains.insert(Group::Embedding, GroupConfig { learning_rate: Some(2e-2), ..GroupConfig::default() });
        let mut config = TrainConfig {
            prompt: "a photo of a [V]".to_owned(),
            templates: Some("authors81".to_owned()),
            phases: Phases::from([("both".to_owned(), phase)]),
            reference: Some(Reference::default()),
            ..TrainConfig::of(self.name())
        };
        (config.augmentation.flip_p, config.augmentation.rotation_p) = (0.0, 0.0);
        config.augmentation.random_crop = false;
        config.validation.prompts = vec!["a photo of a [V]".to_owned()];
        (config.validation.steps, config.validation.scheduler) = (50, Some(SchedulerKind::Ddim));
        config
    }

    fn check_sdxl(&self, _config: &TrainConfig) -> Result<()> {
        bail!("the method vico is for Stable Diffusion 1.x and 2.x, but this model is SDXL")
    }

    fn install(&self, pipeline: &mut Pipeline, config: &TrainConfig) -> Result<Learned> {
        check(config)?;
        let seed = random::derive(config.seed, "image cross-attention", 0);
        let blocks = ImageAttention::new(&pipeline.unet, seed, pipeline.placement().1)?;
        let learned = Learned::start(pipeline, config)?;
        look_at_reference(pipeline, &blocks, &config.placeholder)?;
        let added = blocks.parameters().iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        Ok(Learned { added, image_attention: Some(blocks), ..learned })
    }

    /// With the term `attention`: in the reference, the token is to be attended to as the end of text is.
    fn losses(&self, step: &Step<'_>) -> Result<Vec<LossTerm>> {
        let Step { pipeline, learned, batch, config, .. } = step;
        let blocks = learned.image_attention.as_ref().context("ViCo has no image cross-attention")?;
        let weight = config.reference.as_ref().context("ViCo has no reference")?.attention_weight;
        let references = batch.references.as_ref().context("the batch has no references")?;
        let noisy = step.denoising.noisy(batch)?;
        let text = step.project(noisy.kind())?;
        let reference = libtorch::upload(references, noisy.device()).to_kind(noisy.kind());
        let names = Names::of(pipeline, &config.placeholder)?;
        let positions: Vec<Positions> =
            pipeline.prompt_ids(&batch.prompts)?.iter().map(|ids| names.positions(ids)).collect();
        let positions = for_each(&positions, noisy.size()[0] as usize);
        let references = blocks.look(&pipeline.unet, &reference, &batch.timesteps, &text, &positions)?;
        let prediction = blocks.predict(&pipeline.unet, &noisy, &batch.timesteps, &text, &references, None)?;
        let mut terms = step.diffusion(&prediction)?;
        terms.push(LossTerm::mean("attention", references.attention_loss() * weight));
        Ok(terms)
    }
}

/// What the method cannot do.
fn check(config: &TrainConfig) -> Result<()> {
    let placeholder = terminal::shortened(&config.placeholder);
    ensure!(
        config.reference.is_some(),
        "reference is not set, but the method vico looks at one: set reference.attention_weight"
    );
    ensure!(
        config.vectors == 1,
        "vectors is {}, but the method vico takes the mask from the attention to one for {placeholder}: set it to 1",
        config.vectors
    );
    ensure!(
        config.more_concepts.is_empty(),
        "there are several subjects, but the method vico looks at the photos of one: train each alone"
    );
    ensure!(config.adapter.is_none(), "adapter is set, but what the method vico adds is its blocks: leave adapter out");
    ensure!(
        config.prior.is_none(),
        "prior is set, but the method vico has no reference for class images: leave prior out"
    );
    ensure!(
        config.sizes.is_none(),
        "sizes is set, but the method vico has no place for masked losses: leave sizes out"
    );
    Ok(())
}

/// Of one prompt for all samples, one for each.
fn for_each(positions: &[Positions], samples: usize) -> Vec<Positions> {
    positions.iter().flat_map(|of_prompt| std::iter::repeat_n(*of_prompt, samples / positions.len())).collect()
}

/// Where prompts have what the masks are taken from.
#[derive(Debug, Clone, Copy)]
struct Names {
    token: i64,
    end: i64,
}

impl Names {
    /// Of a subject that prompts call by this name.
    fn of(pipeline: &Pipeline, name: &str) -> Result<Self> {
        let encoding = pipeline.tokenizer.encode(name)?;
        Ok(Self { token: encoding.ids[1], end: pipeline.tokenizer.eos_id() })
    }

    /// The first token of the name, where it stands first, and the first end of text, which stands for it in other prompts.
    fn positions(&self, ids: &[i64]) -> Positions {
        let position = |id: i64| ids.iter().position(|known| *known == id).map(|position| position as i64);
        let end = position(self.end).unwrap_or(ids.len() as i64 - 1);
        Positions { token: position(self.token).unwrap_or(end), end }
    }
}

/// Makes a pipeline's passes look at its reference photo by blocks, whose memory is shared; the mask is where the reference shows
/// what prompts call `name`.
///
/// # Errors
/// When it does so already.
fn look_at_reference(pipeline: &mut Pipeline, blocks: &ImageAttention, name: &str) -> Result<()> {
    let names = Names::of(pipeline, name)?;
    pipeline.set_reference_conditioning(Box::new(Conditioner { blocks: blocks.share(), names }))
}

/// Adds a token with its embedding [1, width], and the blocks that were learned with it, to a pipeline of the base model; it is the
/// subject, if the pipeline has none.
///
/// # Errors
/// When there is such a token already, or the pipeline looks at a reference already.
pub fn add_blocks(pipeline: &mut Pipeline, blocks: &ImageAttention, (token, rows): (&str, &Tensor)) -> Result<()> {
    match pipeline.subject() {
        None => pipeline.add_placeholder(token, rows)?,
        Some(_) => pipeline.add_token(token, rows)?,
    }
    look_at_reference(pipeline, blocks, token)
}

/// The blocks in a pipeline that generates images.
#[derive(Debug)]
struct Conditioner {
    blocks: ImageAttention,
    names: Names,
}

impl Conditioner {
    /// What each row of a pass looks at.
    fn look(&self, unet: &UNet, pass: &ReferencePass<'_>) -> Result<::vico::References> {
        // Rows of the same text that look for the same position see the same reference: once.
        let mut distinct: Vec<(&[i64], Positions)> = Vec::new();
        let (mut first, mut order) = (Vec::new(), Vec::new());
        for (row, ids) in pass.ids.iter().enumerate() {
            let looks = (ids.as_slice(), self.names.positions(pass.prompt(row)));
            let known = distinct.iter().position(|known| *known == looks).unwrap_or_else(|| {
                distinct.push(looks);
                first.push(row as i64);
                distinct.len() - 1
            });
            order.push(known as i64);
        }
        let positions: Vec<Positions> = distinct.iter().map(|(_, positions)| *positions).collect();
        let rows = positions.len() as i64;
        let device = pass.reference.device();
        let upload = |numbers: &[i64]| libtorch::upload(&Tensor::from_slice(numbers), device);
        let reference = pass.reference.expand([rows, -1, -1, -1], false);
        if rows as usize == pass.ids.len() {
            return self.blocks.look(unet, &reference, pass.timestep, pass.text, &positions);
        }
        let text = KvCache::gathered(&[pass.text], &upload(&first));
        Ok(self.blocks.look(unet, &reference, pass.timestep, &text, &positions)?.gathered(&upload(&order)))
    }
}

impl ReferenceConditioning for Conditioner {
    fn predict(
        &self,
        unet: &UNet,
        noisy: &Tensor,
        pass: &ReferencePass<'_>,
        observer: Option<&mut dyn AttentionObserver>,
    ) -> Result<Tensor> {
        let references = self.look(unet, pass)?;
        self.blocks.predict(unet, noisy, pass.timestep, pass.text, &references, observer)
    }

    fn masks(&self, unet: &UNet, pass: &ReferencePass<'_>) -> Result<Vec<ReferenceMask>> {
        let masks = self.look(unet, pass)?.masks(0)?;
        let mask = |::vico::Mask { place, height, width, subject }| ReferenceMask { place, height, width, subject };
        Ok(masks.into_iter().map(mask).collect())
    }
}
