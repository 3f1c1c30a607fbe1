//! The VAE's moments of photos' crops, cached where a crop may come again.

use std::collections::HashMap;

use anyhow::Result;
use images::RgbImage;
use photos::{Crop, Photo, PlacedPhoto};
use rayon::prelude::*;
use tch::Tensor;

use crate::LatentEncoder;

/// How many are kept. As many moments of 512x512 pixels take 64 MiB, those of crops that were asked to be kept 512 MiB.
const CAPACITY: usize = 512;
const ASKED_CAPACITY: usize = 4096;

/// A photo's index, and the crop of it.
pub(crate) type Sample = (usize, Crop);

/// Renders and encodes crops.
#[derive(Debug)]
pub(crate) struct LatentCache {
    pub(crate) encoder: LatentEncoder,
    /// Every crop comes again, whatever it is.
    all: bool,
    cached: HashMap<Key, Tensor>,
}

/// A photo's index, and what was made of it. Masks are of the loss and change no latents.
type Key = (usize, Made);

#[derive(Debug, PartialEq, Eq, Hash)]
enum Made {
    Augmented { angle: Option<u32>, flip: bool, offset: [u64; 2], size: [u32; 2] },
    Placed(PlacedPhoto),
}

impl LatentCache {
    /// With `all`, every crop is cached; else those that are likely to come again.
    pub(crate) fn new(encoder: LatentEncoder, all: bool) -> Self {
        Self { encoder, all, cached: HashMap::new() }
    }

    /// None of what is not cached: there are so many angles, and places, that a rotated crop or a placed photo hardly comes again.
    fn key(&self, (photo, crop): &Sample) -> Option<Key> {
        let made = match crop {
            Crop::Augmented(crop) => Made::Augmented {
                angle: crop.angle.map(f32::to_bits),
                flip: crop.flip,
                offset: [crop.left, crop.top],
                size: [crop.width, crop.height],
            },
            Crop::Placed(placed) => Made::Placed(placed.clone()),
        };
        let likely = matches!(made, Made::Augmented { angle: None, .. });
        (self.all || likely).then_some((*photo, made))
    }

    fn is_full(&self) -> bool {
        self.cached.len() >= if self.all { ASKED_CAPACITY } else { CAPACITY }
    }

    /// The moments [samples, 8, h, w], the same whether they were cached or not.
    pub(crate) fn moments(&mut self, photos: &[Photo], samples: &[Sample]) -> Result<Tensor> {
        let cached = |sample: &Sample| self.key(sample).is_some_and(|key| self.cached.contains_key(&key));
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
        let key = self.key(sample);
        match (key.as_ref().and_then(|key| self.cached.get(key)), image) {
            (Some(moments), _) => Ok(moments.shallow_clone()),
            (None, Some(image)) => {
                let moments = self.encoder.moments(&sampling::image_to_tensor(image))?;
                if let Some(key) = key.filter(|_| !self.is_full()) {
                    self.cached.insert(key, moments.shallow_clone());
                }
                Ok(moments)
            }
            (None, None) => anyhow::bail!("a crop that is not cached was not rendered"),
        }
    }
}
