//! Prompts as the U-Net reads them.

use anyhow::{Context, Result, ensure};
use clip::{ClipTextModel, ClipTextModelWithProjection};
use tch::{Kind, Tensor};
use tokenizer::Tokenizer;
use unet::{AddedConditions, KvCache, UNet};

/// What SDXL has beside the first tokenizer and the first text encoder.
#[derive(Debug)]
pub struct SecondTextEncoder {
    /// Prompts to ids: the first one's but for the padding.
    pub tokenizer: Tokenizer,
    /// Ids to hidden states and to what stands for a prompt as a whole.
    pub text_encoder: ClipTextModelWithProjection,
}

/// What the text encoders make of prompts: diffusers' `prompt_embeds` and `pooled_prompt_embeds`.
#[derive(Debug)]
pub struct PromptEmbeds {
    /// The hidden states [prompts, positions, width]; of SDXL those of both text encoders, one beside the other.
    pub hidden_states: Tensor,
    /// What stands for each prompt as a whole, [prompts, width]: of SDXL alone.
    pub pooled: Option<Tensor>,
}

/// SDXL's conditioning on sizes (arXiv 2307.01952, section 2.2), in pixels, heights first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeConditioning {
    /// Of the image before it was resized.
    pub original: [i64; 2],
    /// Where the crop begins in the resized image: top and left.
    pub crop: [i64; 2],
    /// Of the image that is generated.
    pub target: [i64; 2],
}

impl SizeConditioning {
    /// Of an image of this height and width that was neither resized nor cropped.
    pub fn whole(height: i64, width: i64) -> Self {
        Self { original: [height, width], crop: [0, 0], target: [height, width] }
    }

    fn time_ids(self) -> [f32; 6] {
        let Self { original, crop, target } = self;
        let [a, b, c, d, e, f] = [original[0], original[1], crop[0], crop[1], target[0], target[1]];
        [a, b, c, d, e, f].map(|pixels| pixels as f32)
    }
}

impl PromptEmbeds {
    /// Those of several, in their order.
    pub fn cat(several: &[Self]) -> Self {
        let pooled: Vec<&Tensor> = several.iter().filter_map(|embeds| embeds.pooled.as_ref()).collect();
        let states: Vec<&Tensor> = several.iter().map(|embeds| &embeds.hidden_states).collect();
        Self { hidden_states: Tensor::cat(&states, 0), pooled: (!pooled.is_empty()).then(|| Tensor::cat(&pooled, 0)) }
    }

    /// That of one prompt, by its number.
    #[must_use]
    pub fn get(&self, index: usize) -> Self {
        self.map(|tensor| tensor.narrow(0, index as i64, 1))
    }

    /// The same tensors with `change` made to each.
    #[must_use]
    pub fn map(&self, change: impl Fn(&Tensor) -> Tensor) -> Self {
        Self { hidden_states: change(&self.hidden_states), pooled: self.pooled.as_ref().map(change) }
    }

    /// How many prompts.
    pub fn prompts(&self) -> i64 {
        self.hidden_states.size()[0]
    }
}

/// Prompts as ids of each tokenizer, [`prompts`][positions].
#[derive(Debug)]
pub(crate) struct PromptIds {
    pub(crate) first: Vec<Vec<i64>>,
    pub(crate) second: Option<Vec<Vec<i64>>>,
}

/// The text encoders of a pipeline.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoders<'a> {
    pub(crate) first: &'a ClipTextModel,
    pub(crate) second: Option<&'a SecondTextEncoder>,
}

impl Encoders<'_> {
    /// Computed in `dtype`, on the autograd graph.
    pub(crate) fn encode(self, ids: &PromptIds, dtype: Kind) -> Result<PromptEmbeds> {
        let _span = tracing::trace_span!("text_encoder").entered();
        let embed = |encoder: &ClipTextModel, ids: &Tensor| Ok::<_, anyhow::Error>(encoder.embed(ids)?.to_kind(dtype));
        let first = embed(self.first, &Tensor::from_slice2(&ids.first))?;
        let (Some(second), Some(ids)) = (self.second, &ids.second) else {
            return Ok(PromptEmbeds { hidden_states: self.first.forward_embeddings(&first)?, pooled: None });
        };
        // Both without their last layers and final norms.
        let first = self.first.encode(&first, 1)?;
        let (second, ids) = (&second.text_encoder, Tensor::from_slice2(ids));
        let hidden_states = second.text_model().encode(&embed(second.text_model(), &ids)?, 1)?;
        let pooled = second.features_of(&second.text_model().forward_rest(&hidden_states, 1)?, &ids)?;
        Ok(PromptEmbeds { hidden_states: Tensor::cat(&[first, hidden_states], -1), pooled: Some(pooled) })
    }
}

/// The keys and values of prompts, of images of these sizes: one for each, or one for all; SDXL alone reads them.
pub(crate) fn project(unet: &UNet, embeds: &PromptEmbeds, sizes: &[SizeConditioning]) -> Result<KvCache> {
    let Some(pooled) = &embeds.pooled else { return unet.project(&embeds.hidden_states) };
    ensure!(!sizes.is_empty(), "SDXL reads the sizes of images, of which none is given");
    let time_ids: Vec<[f32; 6]> = sizes.iter().map(|sizes| sizes.time_ids()).collect();
    let time_ids = Tensor::from_slice2(&time_ids);
    let images = embeds.prompts().max(sizes.len() as i64);
    let each = |tensor: &Tensor, what: &str| {
        let count = tensor.size()[0];
        let fits = count == images || count == 1;
        let shape = [images, tensor.size()[1]];
        fits.then(|| tensor.expand(shape, false))
            .with_context(|| format!("there are {what} of {count} images, but {images} are asked for"))
    };
    let added = AddedConditions { text_embeds: each(pooled, "prompts")?, time_ids: each(&time_ids, "sizes")? };
    unet.project_with(&embeds.hidden_states, &added)
}
