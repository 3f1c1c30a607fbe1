//! Batches from photos, each determined by (seed, phase, step).

use std::sync::Arc;

use anyhow::Result;
use libtorch::random;
use methods::{Batch, Method};
use photos::{ApparentSize, Crop, Photo, PlacedPhoto};
use runs::{Phase, TrainConfig};
use sampling::Pipeline;
use tch::{Device, Kind, Tensor};

use crate::LatentEncoder;
use crate::latent_cache::{LatentCache, Sample};
use crate::phases::phase;
use crate::prefetcher::Prefetcher;
use crate::prompts::Prompts;

/// Which batch: all its randomness derives from this and the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchIndex {
    /// The number of the phase, from 0.
    pub phase: usize,
    /// The step in the phase, from 0.
    pub step: usize,
    /// The part of the step, from 0, where gradients are accumulated.
    pub part: usize,
}

/// Where batches come from.
pub trait Batches {
    /// The batch of an index; asked for in order, but for the first after a run has resumed.
    ///
    /// # Errors
    /// When the batch cannot be made.
    fn batch(&mut self, index: BatchIndex) -> Result<Batch>;
}

/// Batches of random crops of photos. For a GPU, a thread of its own renders and encodes the next one while the current one is
/// used.
#[derive(Debug)]
pub struct PhotoBatches {
    config: TrainConfig,
    photos: Arc<Photos>,
    source: Source,
}

/// Where batches are made.
#[derive(Debug)]
enum Source {
    /// In the step's own thread: on a CPU the step has all cores, and then the encoder has.
    Inline(Box<Maker>),
    Prefetcher(Prefetcher<BatchIndex, Result<Batch>>),
}

/// The photos of the subjects, and then the class images.
#[derive(Debug)]
struct Photos {
    all: Vec<Photo>,
    /// Which subject each is of, or the class images of which.
    subjects: Vec<usize>,
    /// How many are of subjects.
    shown: usize,
    pixels_per_latent: u32,
}

/// Makes the batches.
#[derive(Debug)]
struct Maker {
    config: TrainConfig,
    photos: Arc<Photos>,
    latents: LatentCache,
    prompts: Prompts,
    timesteps: i64,
    method: &'static dyn Method,
    /// Cross-attention layers of the U-Net.
    layers: usize,
}

impl PhotoBatches {
    /// Crops of the photos of each subject, and as many of class images in each batch where there are `prior` ones, likewise of
    /// each subject.
    ///
    /// # Errors
    /// When there can be no more threads, or as [`LatentEncoder::new`].
    pub fn new(
        config: &TrainConfig,
        pipeline: &Pipeline,
        photos: Vec<Vec<Photo>>,
        prior: Vec<Vec<Photo>>,
    ) -> Result<Self> {
        let shown = photos.iter().map(Vec::len).sum();
        let numbered = |of_each: Vec<Vec<Photo>>| {
            of_each.into_iter().enumerate().flat_map(|(subject, photos)| photos.into_iter().map(move |p| (subject, p)))
        };
        let (subjects, all) = numbered(photos).chain(numbered(prior)).unzip();
        let pixels_per_latent = u32::try_from(pipeline.vae.config().downscale_factor())?;
        let photos = Arc::new(Photos { all, subjects, shown, pixels_per_latent });
        let mut maker = Maker {
            config: config.clone(),
            photos: Arc::clone(&photos),
            prompts: Prompts::new(config)?,
            latents: LatentCache::new(LatentEncoder::new(pipeline, config)?),
            timesteps: pipeline.scheduler.num_train_timesteps as i64,
            method: methods::named(&config.method)?,
            layers: pipeline.unet.cross_attention_layers().len(),
        };
        let source = match pipeline.placement().1 {
            Device::Cpu => Source::Inline(Box::new(maker)),
            _ => Source::Prefetcher(Prefetcher::new("batches", move |index| maker.batch(index))?),
        };
        Ok(Self { config: config.clone(), photos, source })
    }

    /// The crops of the subject in a batch, for a contact sheet.
    ///
    /// # Errors
    /// When there is no such phase.
    pub fn crops(&self, index: BatchIndex) -> Result<Vec<(&Photo, Crop)>> {
        let samples = self.photos.choose_subject(&self.config, phase(&self.config, index.phase)?.1, index);
        Ok(samples.into_iter().map(|(photo, crop)| (&self.photos.all[photo], crop)).collect())
    }

    /// The index after `index`, in the same phase.
    fn after(&self, index: BatchIndex) -> Option<BatchIndex> {
        let &Phase { steps, gradient_accumulation, .. } = phase(&self.config, index.phase).ok()?.1;
        let next = if index.part + 1 < gradient_accumulation {
            BatchIndex { part: index.part + 1, ..index }
        } else {
            BatchIndex { step: index.step + 1, part: 0, ..index }
        };
        (next.step < steps).then_some(next)
    }
}

impl Batches for PhotoBatches {
    fn batch(&mut self, index: BatchIndex) -> Result<Batch> {
        let next = self.after(index);
        match &mut self.source {
            Source::Inline(maker) => maker.batch(index),
            Source::Prefetcher(prefetcher) => prefetcher.take(index, next)?,
        }
    }
}

impl Maker {
    fn batch(&mut self, index: BatchIndex) -> Result<Batch> {
        let _span = tracing::trace_span!("batches/batch").entered();
        let (_, phase) = phase(&self.config, index.phase)?;
        let samples = self.photos.choose(&self.config, phase, index);
        let moments = self.latents.moments(&self.photos.all, &samples)?;
        let size = moments.size()[0];
        let number = index.step * phase.gradient_accumulation + index.part;
        let seed = |purpose| random::derive(self.config.seed, purpose, key(index.phase, number));
        let first = number * phase.batch_size;
        let seeds = (first..first + phase.batch_size)
            .map(|sample| random::derive(self.config.seed, "prompts", key(index.phase, sample)));
        let (subject, class) = samples.split_at(phase.batch_size);
        let subjects = |samples: &[Sample]| -> Vec<usize> {
            samples.iter().map(|(photo, _)| self.photos.subjects[*photo]).collect()
        };
        let seeds: Vec<(usize, u64)> = subjects(subject).into_iter().zip(seeds).collect();
        let sizes: Vec<ApparentSize> =
            subject.iter().filter_map(|(_, crop)| placed(crop)).map(PlacedPhoto::apparent_size).collect();
        let prompts = self.prompts.choose(&seeds, &sizes);
        let class_prompts = self.prompts.of_class(&subjects(class), prompts.len());
        let _span = tracing::trace_span!("batches/noise").entered();
        libtorch::catch(|| {
            // Means and logarithms of variances, half of the channels each.
            let shape = moments.chunk(2, 1)[0].size();
            let device = self.latents.encoder.device();
            let normal = |purpose| libtorch::upload(&random::normal(seed(purpose), &shape), device);
            let timesteps = random::integers(seed("timesteps"), self.timesteps, &[size]);
            Ok(Batch {
                latents: self.latents.encoder.sample(&moments, &normal("posterior"))?,
                noise: normal("noise"),
                timesteps: libtorch::upload(&timesteps, device),
                mask: masks(subject, &moments, device)?,
                prompts,
                class_prompts,
                drawn: self.method.draw(seed("method"), self.layers, phase.batch_size),
            })
        })?
    }
}
/// Where the loss of each placed photo counts: [samples, 1, h, w] of 0 and 1, for latents of the size of `moments`.
fn masks(samples: &[Sample], moments: &Tensor, device: Device) -> Result<Option<Tensor>> {
    let side = moments.size()[3];
    let cells: Vec<u8> =
        samples.iter().filter_map(|(_, crop)| placed(crop)).flat_map(|placed| placed.mask(side as u32)).collect();
    if cells.is_empty() {
        return Ok(None);
    }
    let mask = Tensor::from_slice(&cells).reshape([-1, 1, side, side]).to_kind(Kind::Float);
    Ok(Some(libtorch::upload(&mask, device)))
}

fn placed(crop: &Crop) -> Option<&PlacedPhoto> {
    match crop {
        Crop::Placed(placed) => Some(placed),
        Crop::Augmented(_) => None,
    }
}

impl Photos {
    /// The samples of a batch: the subjects', and then as many of class images where there are any.
    fn choose(&self, config: &TrainConfig, phase: &Phase, index: BatchIndex) -> Vec<Sample> {
        let mut samples = self.choose_subject(config, phase, index);
        let prior = &self.all[self.shown..];
        if !prior.is_empty() {
            let crop = |seed, photo: &Photo| cropped(config, seed, photo);
            let chosen = choose(config, "prior photos", prior, phase, index, crop);
            samples.extend(chosen.into_iter().map(|(photo, crop)| (self.shown + photo, crop)));
        }
        samples
    }

    fn choose_subject(&self, config: &TrainConfig, phase: &Phase, index: BatchIndex) -> Vec<Sample> {
        let crop = |seed, photo: &Photo| match &config.sizes {
            None => cropped(config, seed, photo),
            Some(sizes) => {
                let (side, flip_p) = (config.augmentation.resolution, config.augmentation.flip_p);
                Crop::Placed(sizes.augmentation.sample(seed, side, side / self.pixels_per_latent, flip_p))
            }
        };
        choose(config, "photos", &self.all[..self.shown], phase, index, crop)
    }
}

/// The photos' indices and the crops of a batch. All photos come once, in random order, before any comes again.
fn choose(
    config: &TrainConfig,
    purpose: &str,
    photos: &[Photo],
    phase: &Phase,
    index: BatchIndex,
    crop: impl Fn(u64, &Photo) -> Crop,
) -> Vec<Sample> {
    let &Phase { batch_size, gradient_accumulation, .. } = phase;
    let first = (index.step * gradient_accumulation + index.part) * batch_size;
    let choose_one = |sample: usize| {
        let (epoch, turn) = (sample / photos.len(), sample % photos.len());
        let photo = permutation(random::derive(config.seed, purpose, key(index.phase, epoch)), photos.len())[turn];
        let seed = random::derive(config.seed, &format!("{purpose}: views"), key(index.phase, sample));
        (photo, crop(seed, &photos[photo]))
    };
    (first..first + batch_size).map(choose_one).collect()
}

/// A random crop.
fn cropped(config: &TrainConfig, seed: u64, photo: &Photo) -> Crop {
    let (width, height) = photo.pixels.dimensions();
    config.augmentation.sample(seed, width, height).into()
}

/// The numbers below `n` in an order that depends on the seed (Fisher and Yates).
fn permutation(seed: u64, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, (random::derive(seed, "swap", i as u64) % (i as u64 + 1)) as usize);
    }
    order
}

/// A number for a phase and a count within it.
fn key(phase: usize, count: usize) -> u64 {
    (phase as u64 + 1) << 48 | count as u64
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
            let index = BatchIndex { phase: 2, step: 3, part: 0 };
            let mut seen = vec![0; count];
            for (photo, _) in choose(&config, "photos", &photos, &config.phases["unet"], index, |seed, photo| {
                cropped(&config, seed, photo)
            }) {
                seen[photo] += 1;
            }
            assert_eq!(seen, vec![8 / count; count]);
        }
    }
}
