//! The moments of photos' views, remembered where a view may come again.

use std::collections::HashMap;

use anyhow::Result;
use images::RgbImage;
use photos::{AugmentedCrop, Photo};
use rayon::prelude::*;
use tch::Tensor;

use crate::LatentEncoder;

/// As many moments of 512x512 pixels take 64 MiB.
const MOST_KNOWN: usize = 512;

/// A photo's number, and the view of it.
pub(crate) type Sample = (usize, AugmentedCrop);

/// Renders and encodes views.
#[derive(Debug)]
pub(crate) struct LatentCache {
    pub(crate) encoder: LatentEncoder,
    known: HashMap<Key, Tensor>,
}

/// A photo's number, mirrored or not, and the crop's left and upper edges.
type Key = (usize, bool, u64, u64);

/// Angles are drawn from so many that a rotated view never comes again.
fn key((photo, view): &Sample) -> Option<Key> {
    view.angle.is_none().then_some((*photo, view.flip, view.left, view.top))
}

impl LatentCache {
    pub(crate) fn new(encoder: LatentEncoder) -> Self {
        Self { encoder, known: HashMap::new() }
    }

    /// The moments [samples, 8, h, w], the same whether they were known or not.
    pub(crate) fn moments(&mut self, photos: &[Photo], samples: &[Sample]) -> Result<Tensor> {
        let known = |sample: &Sample| key(sample).is_some_and(|key| self.known.contains_key(&key));
        let needed: Vec<Option<&Sample>> = samples.iter().map(|sample| (!known(sample)).then_some(sample)).collect();
        let render = |(photo, view): &Sample| view.render(&photos[*photo].pixels);
        let rendered: Vec<Option<RgbImage>> = tracing::trace_span!("batches/render")
            .in_scope(|| needed.into_par_iter().map(|sample| sample.map(render)).collect());

        let each = samples.iter().zip(&rendered).map(|(sample, picture)| self.moments_of(sample, picture.as_ref()));
        let moments = each.collect::<Result<Vec<_>>>()?;
        Ok(libtorch::catch(|| Tensor::cat(&moments, 0))?)
    }

    /// The moments [1, 8, h, w] of a view that is known or given as a picture.
    fn moments_of(&mut self, sample: &Sample, picture: Option<&RgbImage>) -> Result<Tensor> {
        let key = key(sample);
        match (key.and_then(|key| self.known.get(&key)), picture) {
            (Some(moments), _) => Ok(moments.shallow_clone()),
            (None, Some(picture)) => {
                let moments = self.encoder.moments(&sampling::from_picture(picture))?;
                if let Some(key) = key.filter(|_| self.known.len() < MOST_KNOWN) {
                    self.known.insert(key, moments.shallow_clone());
                }
                Ok(moments)
            }
            (None, None) => anyhow::bail!("a view that is not known was not rendered"),
        }
    }
}
