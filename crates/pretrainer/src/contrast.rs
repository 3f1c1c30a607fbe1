//! CLIP learns which caption belongs to which scene.

use anyhow::Result;
use clip::{ClipModel, ImageProcessor};
use images::RgbImage;
use libtorch::random;
use tch::{Device, Kind, Tensor};
use weights::{Parameters, Source};

use crate::part::Component;
use crate::prefetch::Prefetch;
use crate::sources::{Sources, to_tensor};
use crate::{Recipe, shapes};

/// Scenes of a batch that differ in a thing alone. Of scenes that differ in everything, colour and background find the
/// right one nearly always: after "blue", hardly 4 % of the variance of a noun's hidden state was the noun's then, and the
/// U-Net drew blots.
pub(crate) const FAMILY: usize = 8;

pub(crate) struct Contrast {
    model: ClipModel,
    parameters: Parameters,
    scenes: Prefetch,
    sources: Sources,
    device: Device,
    kind: Kind,
}

impl Contrast {
    pub(crate) fn new(source: &dyn Source, recipe: &Recipe, sources: &Sources, device: Device) -> Result<Self> {
        let config = serde_json::from_value(shapes::clip(sources.tokenizer.vocab_size()))?;
        let (model, parameters) = weights::build(source, (Kind::Float, device), |vs| ClipModel::new(vs, &config))?;
        let seed = random::derive(recipe.seed, "clip", 0);
        let scenes = Prefetch::families(sources, seed, recipe.batch_size / FAMILY, FAMILY);
        Ok(Self { model, parameters, scenes, sources: sources.clone(), device, kind: recipe.dtype.kind() })
    }
}

impl Component for Contrast {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn losses(&mut self, step: u64) -> Result<Vec<(&'static str, Tensor)>> {
        let (pictures, captions) = self.scenes.batch(step)?;
        let images = self
            .model
            .image_features(&prepare(&pictures).to_device_(self.device, self.kind, false, false))?
            .to_kind(Kind::Float);
        let texts = self.model.text_features(&self.sources.ids(&captions)?)?;
        let logits = self.model.logits_per_image(&images, &texts)?;
        // Each picture is to choose its caption and each caption its picture (Radford et al., figure 3).
        let own = Tensor::arange(pictures.len() as i64, (Kind::Int64, self.device));
        let loss = (logits.cross_entropy_for_logits(&own) + logits.tr().cross_entropy_for_logits(&own)) / 2.0;
        let accuracy = logits.argmax(1, false).eq_tensor(&own).to_kind(Kind::Float).mean(Kind::Float);
        Ok(vec![("loss", loss), ("accuracy", accuracy)])
    }
}

/// Pictures of the right size as CLIP's image processor makes them, all at once.
pub(crate) fn prepare(pictures: &[RgbImage]) -> Tensor {
    let constant = |values: [f64; 3]| Tensor::from_slice(&values.map(|v| v as f32)).reshape([1, 3, 1, 1]);
    let ImageProcessor { image_mean, image_std, .. } = shapes::image_processor();
    (to_tensor(pictures) / 2.0 + 0.5 - constant(image_mean)) / constant(image_std)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_prepared_as_by_the_image_processor() {
        let side = shapes::IMAGE_SIZE;
        let picture = RgbImage::from_fn(side, side, |x, y| [x as u8, (2 * y) as u8, (x ^ y) as u8].into());
        let expected = shapes::image_processor().process_rgb8(picture.as_raw(), side.into(), side.into()).unwrap();
        let largest = (prepare(&[picture]).get(0) - expected).abs().max();
        assert!(largest.double_value(&[]) < 1e-6, "{largest:?}");
    }
}
