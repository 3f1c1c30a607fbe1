//! Each component between its input and output tensors.

use ::clip::{ClipTextModel, ClipTextModelWithProjection, ImageProcessor};
use ::options::SchedulerKind;
use ::unet::{AddedConditions, AttentionMaps, AttentionObserver, UNet};
use ::vae::AutoencoderKl;
use anyhow::Result;
use tch::Tensor;
use tokenizer::Tokenizer;

use super::place::Place;
use super::tensors::{Inputs, Outputs};

fn outputs<const N: usize>(named: [(&str, Tensor); N]) -> Outputs {
    named.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
}

pub(super) fn unet(place: &Place<'_>, inputs: &Inputs) -> Result<Outputs> {
    let model = place.build(UNet::new)?;
    let sample = inputs.float("sample", place.to)?;
    let text = inputs.float("encoder_hidden_states", place.to)?;
    let tokens = inputs.optional("attention_tokens").map(|tokens| Vec::<i64>::try_from(tokens.flatten(0, -1)));
    let mut maps = tokens.transpose()?.map(AttentionMaps::new);
    let observer = maps.as_mut().map(|maps| maps as &mut dyn AttentionObserver);
    // Only SDXL's U-Net reads them, and only SDXL's has them: each says so where they are missing or too much.
    let sizes = inputs.optional("text_embeds").or_else(|| inputs.optional("time_ids"));
    let text = match sizes {
        Some(_) => {
            let (text_embeds, time_ids) = (inputs.float("text_embeds", place.to)?, inputs.get("time_ids")?);
            model.project_with(&text, &AddedConditions { text_embeds, time_ids })?
        }
        None => model.project(&text)?,
    };
    let sample = model.forward_cached(&sample, &inputs.get("timestep")?, &text, observer)?;
    let mut outputs = outputs([("sample", sample)]);
    for map in maps.into_iter().flat_map(|maps| maps.maps) {
        outputs.insert(format!("attention.{}", map.name), map.probabilities);
    }
    Ok(outputs)
}

pub(super) fn vae_encoder(place: &Place<'_>, inputs: &Inputs) -> Result<Outputs> {
    let model = place.build(AutoencoderKl::new)?;
    let posterior = model.encode(&inputs.float("images", place.to)?)?;
    let mut outputs =
        outputs([("mean", posterior.mean().shallow_clone()), ("logvar", posterior.logvar().shallow_clone())]);
    if inputs.optional("noise").is_some() {
        let sample = posterior.sample(&inputs.float("noise", place.to)?)?;
        outputs.insert("latents".to_owned(), model.scale_latents(&sample));
    }
    Ok(outputs)
}

pub(super) fn vae_decoder(place: &Place<'_>, inputs: &Inputs) -> Result<Outputs> {
    let model = place.build(AutoencoderKl::new)?;
    Ok(outputs([("images", model.decode(&inputs.float("latents", place.to)?)?)]))
}

pub(super) fn text_encoder(place: &Place<'_>, inputs: &Inputs) -> Result<Outputs> {
    let model = place.build(ClipTextModel::new)?;
    if inputs.optional("inputs_embeds").is_some() {
        return Ok(hidden_states(&model, &inputs.float("inputs_embeds", place.to)?)?.0);
    }
    let ids = inputs.get("input_ids")?;
    let (mut outputs, last) = hidden_states(&model, &model.embed(&ids)?)?;
    outputs.insert("pooler_output".to_owned(), model.pooled(&last, &ids)?);
    Ok(outputs)
}

pub(super) fn second_text_encoder(place: &Place<'_>, inputs: &Inputs) -> Result<Outputs> {
    let model = place.build(ClipTextModelWithProjection::new)?;
    let ids = inputs.get("input_ids")?;
    let (mut outputs, last) = hidden_states(model.text_model(), &model.text_model().embed(&ids)?)?;
    outputs.insert("text_embeds".to_owned(), model.features_of(&last, &ids)?);
    Ok(outputs)
}

/// What Stable Diffusion 1.x and 2.x read, and what SDXL reads; and the former again.
fn hidden_states(model: &ClipTextModel, embeddings: &Tensor) -> Result<(Outputs, Tensor)> {
    let penultimate = model.encode(embeddings, 1)?;
    let last = model.forward_rest(&penultimate, 1)?;
    let named = [("last_hidden_state", last.shallow_clone()), ("penultimate_hidden_state", penultimate)];
    Ok((outputs(named), last))
}

pub(super) fn clip_image(place: &Place<'_>, inputs: &Inputs) -> Result<Outputs> {
    let model = place.build(::clip::ClipModel::new)?;
    let pixel_values = match inputs.optional("image") {
        Some(image) => {
            let processor = ImageProcessor::from_folder(&place.folder)?;
            processor.process(&image.permute([2, 0, 1]))?.unsqueeze(0).to_device(place.to.1).to_kind(place.to.0)
        }
        None => inputs.float("pixel_values", place.to)?,
    };
    Ok(outputs([("image_embeds", model.image_features(&pixel_values)?)]))
}

pub(super) fn clip_text(place: &Place<'_>, inputs: &Inputs) -> Result<Outputs> {
    let model = place.build(::clip::ClipModel::new)?;
    Ok(outputs([("text_embeds", model.text_features(&inputs.get("input_ids")?)?)]))
}

pub(super) fn tokenizer(tokenizer: &Tokenizer, inputs: &Inputs) -> Result<Outputs> {
    let ids = inputs.texts()?.iter().map(|text| Ok(tokenizer.encode(text)?.ids)).collect::<Result<Vec<_>>>()?;
    Ok(outputs([("input_ids", Tensor::from_slice2(&ids))]))
}

pub(super) fn scheduler(
    place: &Place<'_>,
    inputs: &Inputs,
    kind: Option<SchedulerKind>,
    steps: usize,
) -> Result<Outputs> {
    let config = place.scheduler()?;
    let mut scheduler = config.build(kind.map_or_else(|| config.kind(), Ok)?, steps)?;
    let (mut sample, model_outputs) = (inputs.get("sample")?, inputs.get("model_outputs")?);
    let noise = inputs.optional("noise");
    let calls = scheduler.timesteps().len();
    anyhow::ensure!(
        model_outputs.size().first() == Some(&(calls as i64)),
        "model_outputs has shape {:?}, but {steps} steps are {calls} model calls",
        model_outputs.size()
    );
    let mut samples = Vec::with_capacity(calls);
    for call in 0..calls {
        let noise = noise.as_ref().map(|noise| noise.get(call as i64));
        sample = scheduler.step(call, &model_outputs.get(call as i64), &sample, noise.as_ref())?;
        samples.push(sample.shallow_clone());
    }
    let timesteps = Tensor::from_slice(scheduler.timesteps());
    Ok(outputs([("timesteps", timesteps), ("samples", Tensor::stack(&samples, 0))]))
}
