//! CLIP's training: which caption belongs to which scene.

use anyhow::Result;
use clip::{ClipModel, ImageProcessor};
use images::RgbImage;
use libtorch::random;
use tch::{Device, Kind, Tensor};
use weights::{Parameters, Source};

use crate::config::FAMILY;
use crate::prefetch::Prefetch;
use crate::sources::{Sources, to_tensor};
use crate::training::Component;
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
        Ok(vec![("loss", contrastive_loss(&logits)), ("accuracy", accuracy(&logits))])
    }
}

/// Each image is to choose its caption and each caption its image (Radford et al., figure 3): of logits [images, captions], of which
/// those on the diagonal belong together.
pub fn contrastive_loss(logits: &Tensor) -> Tensor {
    let own = own(logits);
    (logits.cross_entropy_for_logits(&own) + logits.tr().cross_entropy_for_logits(&own)) / 2.0
}

/// How often the greatest value of a row is on the diagonal: a scalar in [0, 1], f64.
pub fn accuracy(logits: &Tensor) -> Tensor {
    logits.argmax(1, false).eq_tensor(&own(logits)).to_kind(Kind::Double).mean(Kind::Double)
}

fn own(logits: &Tensor) -> Tensor {
    Tensor::arange(logits.size()[0], (Kind::Int64, logits.device()))
}

/// Images of [`IMAGE_SIZE`](crate::IMAGE_SIZE) pixels as CLIP's image processor makes them, all at once: [n, 3, side, side], f32.
pub fn prepare<'a>(images: impl IntoIterator<Item = &'a RgbImage>) -> Tensor {
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
