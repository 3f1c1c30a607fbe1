//! CLIP's training: which caption belongs to which scene.

use anyhow::Result;
use clip::{ClipModel, ImageProcessor};
use images::RgbImage;
use libtorch::random;
use tch::{Device, Kind, Tensor};
use weights::{Parameters, Source};

use crate::config::FAMILY;
use crate::part::Component;
use crate::prefetch::Prefetch;
use crate::sources::{Sources, to_tensor};
use crate::{Config, shapes};

pub(crate) struct Contrast {
    model: ClipModel,
    parameters: Parameters,
    scenes: Prefetch,
    sources: Sources,
    device: Device,
    kind: Kind,
}

impl Contrast {
    pub(crate) fn new(source: &dyn Source, config: &Config, sources: &Sources, device: Device) -> Result<Self> {
        let shape = serde_json::from_value(shapes::clip(sources.tokenizer.vocab_size()))?;
        let (model, parameters) = weights::build(source, (Kind::Float, device), |vs| ClipModel::new(vs, &shape))?;
        let seed = random::derive(config.seed, "clip", 0);
        let scenes = Prefetch::families(sources, seed, config.batch_size / FAMILY, FAMILY);
        Ok(Self { model, parameters, scenes, sources: sources.clone(), device, kind: config.dtype.kind() })
    }
}

impl Component for Contrast {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn losses(&mut self, step: u64) -> Result<Vec<(&'static str, Tensor)>> {
        let (images, captions) = self.scenes.batch(step)?;
        let images = self
            .model
            .image_features(&prepare(&images).to_device_(self.device, self.kind, false, false))?
            .to_kind(Kind::Float);
        let texts = self.model.text_features(&self.sources.ids(&captions)?)?;
        let logits = self.model.logits_per_image(&images, &texts)?;
        // Each image is to choose its caption and each caption its image (Radford et al., figure 3).
        let own = Tensor::arange(captions.len() as i64, (Kind::Int64, self.device));
        let loss = (logits.cross_entropy_for_logits(&own) + logits.tr().cross_entropy_for_logits(&own)) / 2.0;
        let accuracy = logits.argmax(1, false).eq_tensor(&own).to_kind(Kind::Float).mean(Kind::Float);
        Ok(vec![("loss", loss), ("accuracy", accuracy)])
    }
}

/// Images of the right size as CLIP's image processor makes them, all at once.
pub(crate) fn prepare(images: &[RgbImage]) -> Tensor {
    let constant = |values: [f64; 3]| Tensor::from_slice(&values.map(|v| v as f32)).reshape([1, 3, 1, 1]);
    let ImageProcessor { image_mean, image_std, .. } = shapes::image_processor();
    (to_tensor(images) / 2.0 + 0.5 - constant(image_mean)) / constant(image_std)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_prepared_as_by_the_image_processor() {
        let side = shapes::IMAGE_SIZE;
        let image = RgbImage::from_fn(side, side, |x, y| [x as u8, (2 * y) as u8, (x ^ y) as u8].into());
        let expected = shapes::image_processor().process_rgb8(image.as_raw(), side.into(), side.into()).unwrap();
        let largest = (prepare(&[image]).get(0) - expected).abs().max();
        assert!(largest.double_value(&[]) < 1e-6, "{largest:?}");
    }
}
