//! Which photos share batches: those whose crops have one shape.

use std::collections::BTreeMap;

use anyhow::Result;
use libtorch::random;
use photos::{Photo, Shapes};
use runs::TrainConfig;
use sampling::Pipeline;

use crate::order::{key, permutation};

/// Photos of the subjects whose crops have one shape.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// Width and height of the crops in pixels.
    pub(crate) shape: [u32; 2],
    /// The photos' numbers.
    pub(crate) photos: Vec<usize>,
}

/// All photos, each in one bucket.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// Sorted by shape.
    all: Vec<Bucket>,
    /// Of each photo, the number of its bucket.
    of_photos: Vec<usize>,
}

impl Buckets {
    /// Without `buckets` in the configuration all photos are in one, of squares.
    pub(crate) fn of(config: &TrainConfig, pipeline: &Pipeline, photos: &[Vec<Photo>]) -> Result<Self> {
        let resolution = config.augmentation.resolution;
        let shapes = if config.buckets { Some(Shapes::new(resolution, step(pipeline, resolution)?)) } else { None };
        let shape = |photo: &Photo| {
            let (width, height) = photo.pixels.dimensions();
            shapes.as_ref().map_or([resolution; 2], |shapes| shapes.nearest(width, height))
        };
        Ok(Self::new(photos.iter().flatten().map(shape)))
    }

    /// For photos whose crops have these shapes.
    pub(crate) fn new(shapes: impl Iterator<Item = [u32; 2]>) -> Self {
        let mut by_shape: BTreeMap<[u32; 2], Vec<usize>> = BTreeMap::new();
        for (photo, shape) in shapes.enumerate() {
            by_shape.entry(shape).or_default().push(photo);
        }
        let all: Vec<_> = by_shape.into_iter().map(|(shape, photos)| Bucket { shape, photos }).collect();
        let numbered =
            all.iter().enumerate().flat_map(|(bucket, Bucket { photos, .. })| photos.iter().map(move |p| (p, bucket)));
        let of_photos = numbered.collect::<BTreeMap<_, _>>().into_values().collect();
        Self { all, of_photos }
    }

    /// The bucket of a batch of a phase, and how many batches of the phase it had before.
    ///
    /// Each round of as many batches as there are photos has a batch of each photo's bucket, in random order: a photo comes as
    /// often as any other, whatever its shape.
    pub(crate) fn of_batch(&self, seed: u64, phase: usize, batch: usize) -> (&Bucket, usize) {
        if let [only] = self.all.as_slice() {
            return (only, batch);
        }
        let photos = self.of_photos.len();
        let (round, turn) = (batch / photos, batch % photos);
        let order = permutation(random::derive(seed, "buckets", key(phase, round)), photos);
        let number = self.of_photos[order[turn]];
        let before = order[..turn].iter().filter(|photo| self.of_photos[**photo] == number).count();
        let bucket = &self.all[number];
        (bucket, round * bucket.photos.len() + before)
    }

    /// The shapes, and how many photos have each.
    pub(crate) fn describe(&self) -> String {
        let shapes = self.all.iter().map(|Bucket { shape: [width, height], photos }| {
            format!("{width}x{height} ({} photo{})", photos.len(), if photos.len() == 1 { "" } else { "s" })
        });
        shapes.collect::<Vec<_>>().join(", ")
    }
}

/// What sides are multiples of, in pixels. The U-Net halves its feature maps exactly at multiples of 64 for Stable Diffusion; at small
/// resolutions, where those are few, at least the VAE does.
fn step(pipeline: &Pipeline, resolution: u32) -> Result<u32> {
    let factor = u32::try_from(pipeline.vae.config().downscale_factor())?;
    let halvings = pipeline.unet.config().block_out_channels.len().saturating_sub(1);
    Ok((factor << halvings).min(resolution / 8 / factor * factor).max(factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [[u32; 2]; 6] = [[64, 64], [48, 80], [64, 64], [80, 48], [64, 64], [48, 80]];

    #[test]
    fn each_round_has_as_many_batches_of_a_bucket_as_it_has_photos_and_counts_them() {
        let buckets = Buckets::new(SHAPES.into_iter());
        let mut turns: BTreeMap<[u32; 2], usize> = BTreeMap::new();
        for batch in 0..30 {
            let (bucket, turn) = buckets.of_batch(7, 1, batch);
            assert!(bucket.photos.iter().all(|photo| SHAPES[*photo] == bucket.shape));
            let expected = turns.entry(bucket.shape).or_default();
            assert_eq!(turn, *expected, "batch {batch}");
            *expected += 1;
            if batch % 6 == 5 {
                let rounds = batch / 6 + 1;
                assert_eq!([turns[&[64, 64]], turns[&[48, 80]], turns[&[80, 48]]], [3 * rounds, 2 * rounds, rounds]);
            }
        }
        assert_eq!(buckets.describe(), "48x80 (2 photos), 64x64 (3 photos), 80x48 (1 photo)");
        let orders: std::collections::BTreeSet<Vec<[u32; 2]>> =
            (0..20).map(|seed| (0..6).map(|batch| buckets.of_batch(seed, 0, batch).0.shape).collect()).collect();
        assert!(orders.len() > 10);
    }
}
