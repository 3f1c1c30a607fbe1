//! Batches from photos, each determined by (seed, stage, step).

use std::sync::Arc;

use anyhow::Result;
use libtorch::random;
use photos::{Augmentation, AugmentedCrop, Photo};
use runs::{Stage, StageConfig, TrainConfig};
use sampling::Pipeline;
use tch::Device;

use crate::latent_cache::{LatentCache, Sample};
use crate::prefetcher::Prefetcher;
use crate::{Batch, LatentEncoder};

/// Which batch: the place in the run that all its randomness derives from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchIndex {
    /// The stage.
    pub stage: Stage,
    /// The step in the stage, from 0.
    pub step: usize,
    /// The part of the step, from 0, where gradients are accumulated.
    pub part: usize,
}

/// Where batches come from.
pub trait Batches {
    /// The batch of a place; asked for in order, but for the first of a run that goes on.
    ///
    /// # Errors
    /// When the batch cannot be made.
    fn batch(&mut self, place: BatchIndex) -> Result<Batch>;
}

/// Batches of random views of photos. For a GPU, a thread of its own renders and encodes the next one while the present
/// one is used.
#[derive(Debug)]
pub struct PhotoBatches {
    config: TrainConfig,
    photos: Arc<Photos>,
    source: Source,
}

/// Who makes the batches.
#[derive(Debug)]
enum Source {
    /// Nobody ahead of time: on a CPU the step has all cores, and then the encoder has. (A thread of its own with a team as
    /// large as the step's took the miniature's recipe, two threads, from 105 s to 176.)
    Here(Box<Maker>),
    Prefetcher(Prefetcher<BatchIndex, Result<Batch>>),
}

/// The subject's photos, and then the category's.
#[derive(Debug)]
struct Photos {
    all: Vec<Photo>,
    subject: usize,
}

/// What makes the batches.
#[derive(Debug)]
struct Maker {
    config: TrainConfig,
    photos: Arc<Photos>,
    views: LatentCache,
    timesteps: i64,
}

impl PhotoBatches {
    /// LatentCache of the subject's photos, and as many of the category's in each batch where there are `prior` photos.
    ///
    /// # Errors
    /// When there can be no more threads, or as [`LatentEncoder::new`].
    pub fn new(
        config: &TrainConfig,
        pipeline: &Pipeline,
        subject: Vec<Photo>,
        prior: Option<Vec<Photo>>,
    ) -> Result<Self> {
        let subjects = subject.len();
        let all = subject.into_iter().chain(prior.into_iter().flatten()).collect();
        let photos = Arc::new(Photos { all, subject: subjects });
        let mut maker = Maker {
            config: config.clone(),
            photos: Arc::clone(&photos),
            views: LatentCache::new(LatentEncoder::new(pipeline, config)?),
            timesteps: pipeline.scheduler.num_train_timesteps as i64,
        };
        let source = match pipeline.placement().1 {
            Device::Cpu => Source::Here(Box::new(maker)),
            _ => Source::Prefetcher(Prefetcher::new("batches", move |place| maker.batch(place))?),
        };
        Ok(Self { config: config.clone(), photos, source })
    }

    /// The views of the subject in a batch, for looking at.
    pub fn views(&self, place: BatchIndex) -> Vec<(&Photo, AugmentedCrop)> {
        let samples = self.photos.choose_subject(&self.config, place);
        samples.into_iter().map(|(photo, view)| (&self.photos.all[photo], view)).collect()
    }

    /// The place after `place`, in the same stage.
    fn after(&self, place: BatchIndex) -> Option<BatchIndex> {
        let StageConfig { steps, gradient_accumulation, .. } = *self.config.stage(place.stage);
        let next = if place.part + 1 < gradient_accumulation {
            BatchIndex { part: place.part + 1, ..place }
        } else {
            BatchIndex { step: place.step + 1, part: 0, ..place }
        };
        (next.step < steps).then_some(next)
    }
}

impl Batches for PhotoBatches {
    fn batch(&mut self, place: BatchIndex) -> Result<Batch> {
        let next = self.after(place);
        match &mut self.source {
            Source::Here(maker) => maker.batch(place),
            Source::Prefetcher(ahead) => ahead.take(place, next)?,
        }
    }
}

impl Maker {
    fn batch(&mut self, place: BatchIndex) -> Result<Batch> {
        let _span = tracing::trace_span!("batches/batch").entered();
        let samples = self.photos.choose(&self.config, place);
        let moments = self.views.moments(&self.photos.all, &samples)?;
        let size = moments.size()[0];
        let parts = self.config.stage(place.stage).gradient_accumulation;
        let seed =
            |purpose| random::derive(self.config.seed, purpose, key(place.stage, place.step * parts + place.part));
        let _span = tracing::trace_span!("batches/noise").entered();
        libtorch::catch(|| {
            // Means and logarithms of variances, half of the channels each.
            let shape = moments.chunk(2, 1)[0].size();
            let device = self.views.encoder.device();
            let normal = |purpose| libtorch::upload(&random::normal(seed(purpose), &shape), device);
            let timesteps = random::integers(seed("timesteps"), self.timesteps, &[size]);
            Ok(Batch {
                latents: self.views.encoder.sample(&moments, &normal("posterior"))?,
                noise: normal("noise"),
                timesteps: libtorch::upload(&timesteps, device),
            })
        })?
    }
}
impl Photos {
    /// The samples of a batch: the subject's, and then as many of the category's where it has photos.
    fn choose(&self, config: &TrainConfig, place: BatchIndex) -> Vec<Sample> {
        let mut samples = self.choose_subject(config, place);
        let prior = &self.all[self.subject..];
        if !prior.is_empty() {
            let chosen = choose(config, "prior photos", prior, place);
            samples.extend(chosen.into_iter().map(|(photo, view)| (self.subject + photo, view)));
        }
        samples
    }

    fn choose_subject(&self, config: &TrainConfig, place: BatchIndex) -> Vec<Sample> {
        choose(config, "photos", &self.all[..self.subject], place)
    }
}

/// The photos' indices and the views of a batch. All photos come once, in random order, before any comes again.
fn choose(config: &TrainConfig, purpose: &str, photos: &[Photo], place: BatchIndex) -> Vec<Sample> {
    let StageConfig { batch_size, gradient_accumulation, .. } = *config.stage(place.stage);
    let first = (place.step * gradient_accumulation + place.part) * batch_size;
    let augmentation: &Augmentation = &config.augmentation;
    let choose_one = |sample: usize| {
        let (epoch, turn) = (sample / photos.len(), sample % photos.len());
        let index = permutation(random::derive(config.seed, purpose, key(place.stage, epoch)), photos.len())[turn];
        let seed = random::derive(config.seed, &format!("{purpose}: views"), key(place.stage, sample));
        let (width, height) = photos[index].pixels.dimensions();
        (index, augmentation.sample(seed, width, height))
    };
    (first..first + batch_size).map(choose_one).collect()
}

/// The numbers below `n` in an order that depends on the seed (Fisher and Yates).
fn permutation(seed: u64, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, (random::derive(seed, "swap", i as u64) % (i as u64 + 1)) as usize);
    }
    order
}

/// A number for a stage and a count within it.
fn key(stage: Stage, count: usize) -> u64 {
    stage.number() << 48 | count as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_are_permutations_and_differ() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let order = permutation(seed, 4);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
            seen.insert(order);
        }
        assert_eq!(seen.len(), 24);
    }

    #[test]
    fn all_photos_come_before_any_comes_again_and_one_is_enough() {
        let photo = Photo { path: "a.png".into(), sha256: String::new(), pixels: images::RgbImage::new(8, 8) };
        let config = TrainConfig::paper();
        for count in [1, 4, 8] {
            let photos = vec![photo.clone(); count];
            let place = BatchIndex { stage: Stage::Unet, step: 3, part: 0 };
            let mut seen = vec![0; count];
            for (photo, _) in choose(&config, "photos", &photos, place) {
                seen[photo] += 1;
            }
            assert_eq!(seen, vec![8 / count; count]);
        }
    }
}
