//! The VAE's moments of photos' crops, cached where a crop may come again.

use std::collections::HashMap;

use anyhow::Result;
use images::RgbImage;
use photos::{Crop, Photo};
use rayon::prelude::*;
use tch::Tensor;

use crate::LatentEncoder;

/// As many moments of 512x512 pixels take 64 MiB.
const CAPACITY: usize = 512;

/// A photo's index, and the crop of it.
pub(crate) type Sample = (usize, Crop);

/// Renders and encodes crops.
#[derive(Debug)]
pub(crate) struct LatentCache {
    pub(crate) encoder: LatentEncoder,
    cached: HashMap<Key, Tensor>,
}

/// A photo's index, mirrored or not, and the crop's left and upper edges, width and height. Masks are of the loss and change no
/// latents.
type Key = (usize, bool, u64, u64, [u32; 2]);

/// There are so many angles, and places, that a rotated crop or a placed photo hardly comes again.
fn key((photo, crop): &Sample) -> Option<Key> {
    match crop {
        Crop::Augmented(crop) if crop.angle.is_none() => {
            Some((*photo, crop.flip, crop.left, crop.top, [crop.width, crop.height]))
        }
        _ => None,
    }
}

impl LatentCache {
    pub(crate) fn new(encoder: LatentEncoder) -> Self {
        Self { encoder, cached: HashMap::new() }
    }

    /// The moments [samples, 8, h, w], the same whether they were cached or not.
    pub(crate) fn moments(&mut self, photos: &[Photo], samples: &[Sample]) -> Result<Tensor> {
        let cached = |sample: &Sample| key(sample).is_some_and(|key| self.cached.contains_key(&key));
        let needed: Vec<Option<&Sample>> = samples.iter().map(|sample| (!cached(sample)).then_some(sample)).collect();
        let render = |(photo, crop): &Sample| crop.render(&photos[*photo].pixels);
        let rendered: Vec<Option<RgbImage>> = tracing::trace_span!("batches/render")
            .in_scope(|| needed.into_par_iter().map(|sample| sample.map(render)).collect());

        let each = samples.iter().zip(&rendered).map(|(sample, image)| self.moments_of(sample, image.as_ref()));
        let moments = each.collect::<Result<Vec<_>>>()?;
        Ok(libtorch::catch(|| Tensor::cat(&moments, 0))?)
    }

    /// The moments [1, 8, h, w] of a crop that is cached or given as an image.
    fn moments_of(&mut self, sample: &Sample, image: Option<&RgbImage>) -> Result<Tensor> {
        let key = key(sample);
        match (key.and_then(|key| self.cached.get(&key)), image) {
            (Some(moments), _) => Ok(moments.shallow_clone()),
            (None, Some(image)) => {
                let moments = self.encoder.moments(&sampling::image_to_tensor(image))?;
                if let Some(key) = key.filter(|_| self.cached.len() < CAPACITY) {
                    self.cached.insert(key, moments.shallow_clone());
                }
                Ok(moments)
            }
            (None, None) => anyhow::bail!("a crop that is not cached was not rendered"),
        }
    }
}
