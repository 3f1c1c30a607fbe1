//! Batches from photos, each determined by (seed, phase, step).

use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;
use libtorch::random;
use methods::{Batch, Method};
use photos::{ApparentSize, Crop, Photo, Place, PlacedPhoto};
use rayon::prelude::*;
use runs::{Phase, TrainConfig};
use sampling::{Pipeline, SizeConditioning};
use tch::{Device, Tensor};

use crate::LatentEncoder;
use crate::buckets::Buckets;
use crate::latent_cache::{LatentCache, Sample};
use crate::order::{key, permutation};
use crate::phases::phase;
use crate::prefetcher::Prefetcher;
use crate::prompts::Prompts;
use crate::share::Share;

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

impl BatchIndex {
    /// Its number in the phase, from 0.
    fn number(self, phase: &Phase) -> usize {
        self.step * phase.gradient_accumulation + self.part
    }
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
    buckets: Buckets,
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
    /// What it makes of each batch.
    share: Share,
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
        Self::shared(config, pipeline, photos, prior, Share::WHOLE)
    }

    /// The same of batches that several processes share: each has its own samples of the very same batches.
    ///
    /// # Errors
    /// As [`PhotoBatches::new`].
    pub fn shared(
        config: &TrainConfig,
        pipeline: &Pipeline,
        photos: Vec<Vec<Photo>>,
        prior: Vec<Vec<Photo>>,
        share: Share,
    ) -> Result<Self> {
        let shown = photos.iter().map(Vec::len).sum();
        let prompts = Prompts::of_photos(config, &photos)?;
        let buckets = Buckets::of(config, pipeline, &photos)?;
        let numbered = |of_each: Vec<Vec<Photo>>| {
            of_each.into_iter().enumerate().flat_map(|(subject, photos)| photos.into_iter().map(move |p| (subject, p)))
        };
        let (subjects, all) = numbered(photos).chain(numbered(prior)).unzip();
        let pixels_per_latent = u32::try_from(pipeline.vae.config().downscale_factor())?;
        let photos = Arc::new(Photos { all, subjects, shown, buckets, pixels_per_latent });
        let mut maker = Maker {
            config: config.clone(),
            photos: Arc::clone(&photos),
            prompts,
            latents: LatentCache::new(LatentEncoder::new(pipeline, config)?, config.cache_latents.is_some()),
            timesteps: pipeline.scheduler.num_train_timesteps as i64,
            method: methods::named(&config.method)?,
            layers: pipeline.unet.cross_attention_layers().len(),
            share,
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
        let all = self.photos.choose(&self.config, phase, index);
        let own = Own { share: self.share, batch: phase.batch_size, all: all.len() };
        let samples = own.of(&all);
        let moments = self.latents.moments(&self.photos.all, &samples)?;
        let looks = self.config.reference.is_some();
        let references = looks.then(|| own.of(&self.photos.choose_references(&self.config, phase, index, &all)));
        let references = references.map(|chosen| self.latents.moments(&self.photos.all, &chosen)).transpose()?;
        let number = index.number(phase);
        let seed = |purpose| random::derive(self.config.seed, purpose, key(index.phase, number));
        let first = number * phase.batch_size;
        let shown = own.subject();
        let seeds =
            shown.clone().map(|sample| random::derive(self.config.seed, "prompts", key(index.phase, first + sample)));
        let (subject, class) = samples.split_at(shown.len());
        let subject_of = |(photo, _): &Sample| self.photos.subjects[*photo];
        let sources = subject.iter().map(|sample| self.prompts.source(sample.0, subject_of(sample)));
        let seeds: Vec<(usize, u64)> = sources.zip(seeds).collect();
        let sizes: Vec<ApparentSize> =
            subject.iter().filter_map(|(_, crop)| placed(crop)).map(PlacedPhoto::apparent_size).collect();
        let prompts = self.prompts.choose(&seeds, &sizes);
        let class_prompts = self.prompts.of_class(&class.iter().map(subject_of).collect::<Vec<_>>(), prompts.len());
        let _span = tracing::trace_span!("batches/noise").entered();
        libtorch::catch(|| {
            // Means and logarithms of variances, half of the channels each.
            let mut shape = moments.chunk(2, 1)[0].size();
            shape[0] = all.len() as i64;
            let device = self.latents.encoder.device();
            // Drawn for all samples, whoever has them.
            let normal = |purpose| libtorch::upload(&own.rows(random::normal(seed(purpose), &shape)), device);
            let timesteps = own.rows(random::integers(seed("timesteps"), self.timesteps, &shape[..1]));
            let sample = |moments: &Tensor, purpose| self.latents.encoder.sample(moments, &normal(purpose));
            Ok(Batch {
                latents: sample(&moments, "posterior")?,
                references: references.map(|moments| sample(&moments, "reference posterior")).transpose()?,
                noise: normal("noise"),
                timesteps: libtorch::upload(&timesteps, device),
                mask: self.masks(subject, &moments, device),
                sizes: samples.iter().map(|sample| self.photos.sizes(sample)).collect(),
                prompts,
                class_prompts,
                drawn: self
                    .method
                    .draw(seed("method"), self.layers, phase.batch_size)
                    .map(|drawn| own.columns_of_subject(drawn)),
            })
        })?
    }

    /// How much the loss of the subject's samples counts where: [samples, 1, h, w], for latents of the size of `moments`.
    fn masks(&self, samples: &[Sample], moments: &Tensor, device: Device) -> Option<Tensor> {
        let (height, width) = (moments.size()[2], moments.size()[3]);
        // Tensors are not shared between threads.
        let (config, photos) = (&self.config, &*self.photos);
        let cells = |(photo, crop): &Sample| -> Option<Vec<f32>> {
            if let Some(placed) = placed(crop) {
                return Some(placed.mask(width as u32).into_iter().map(f32::from).collect());
            }
            let least = config.masks.as_ref()?.unmasked_weight as f32;
            let whole = || vec![1.0; (height * width) as usize];
            let mask = photos.all[*photo].mask.as_ref();
            let cells = mask.map_or_else(whole, |mask| mask.cells(crop, photos.pixels_per_latent));
            Some(cells.into_iter().map(|cell| cell.max(least)).collect())
        };
        let _span = tracing::trace_span!("batches/masks").entered();
        let cells: Vec<f32> = samples.par_iter().filter_map(cells).collect::<Vec<_>>().concat();
        let mask = (!cells.is_empty()).then(|| Tensor::from_slice(&cells).reshape([-1, 1, height, width]))?;
        Some(libtorch::upload(&mask, device))
    }
}

/// A process's own samples of a batch: some of the subject's, and where there are class images the same of those behind.
struct Own {
    share: Share,
    /// The samples of the subject in all.
    batch: usize,
    /// All samples.
    all: usize,
}

impl Own {
    fn subject(&self) -> Range<usize> {
        self.share.samples(self.batch)
    }

    fn each(&self) -> impl Iterator<Item = Range<usize>> {
        let subject = self.subject();
        (0..self.all / self.batch).map(move |half| half * self.batch + subject.start..half * self.batch + subject.end)
    }

    fn of(&self, all: &[Sample]) -> Vec<Sample> {
        self.each().flat_map(|own| all[own].to_vec()).collect()
    }

    fn rows(&self, all: Tensor) -> Tensor {
        if self.share.is_whole() {
            return all;
        }
        let parts: Vec<Tensor> = self.each().map(|own| all.narrow(0, own.start as i64, own.len() as i64)).collect();
        Tensor::cat(&parts, 0)
    }

    fn columns_of_subject(&self, all: Tensor) -> Tensor {
        let own = self.subject();
        if self.share.is_whole() { all } else { all.narrow(-1, own.start as i64, own.len() as i64).contiguous() }
    }
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
        let prior: Vec<usize> = (self.shown..self.all.len()).collect();
        if !prior.is_empty() {
            let batch = index.number(phase);
            // They are cropped as the photos are beside which they lie.
            let (bucket, _) = self.buckets.of_batch(config.seed, index.phase, batch);
            let turn = Turn { phase: index.phase, batch, before: batch, size: phase.batch_size };
            let crop = |seed, photo: usize| self.cropped(config, seed, photo, bucket.shape);
            samples.extend(choose(config.seed, "prior photos", &prior, turn, crop));
        }
        samples
    }

    /// For each sample another photo of its subject; the same one where there is no other.
    fn choose_references(
        &self,
        config: &TrainConfig,
        phase: &Phase,
        index: BatchIndex,
        samples: &[Sample],
    ) -> Vec<Sample> {
        let batch = index.number(phase);
        let shape = self.buckets.of_batch(config.seed, index.phase, batch).0.shape;
        let first = batch * phase.batch_size;
        let choose_one = |(number, (photo, _)): (usize, &Sample)| {
            let seed = |purpose| random::derive(config.seed, purpose, key(index.phase, first + number));
            let is_other = |other: &usize| other != photo && self.subjects[*other] == self.subjects[*photo];
            let others: Vec<usize> = (0..self.shown).filter(is_other).collect();
            let reference = match others.len() as u64 {
                0 => *photo,
                count => others[(seed("references") % count) as usize],
            };
            (reference, self.cropped(config, seed("references: views"), reference, shape))
        };
        samples.iter().enumerate().map(choose_one).collect()
    }

    fn choose_subject(&self, config: &TrainConfig, phase: &Phase, index: BatchIndex) -> Vec<Sample> {
        let batch = index.number(phase);
        let (bucket, before) = self.buckets.of_batch(config.seed, index.phase, batch);
        let crop = |seed, photo: usize| match &config.sizes {
            None => self.cropped(config, seed, photo, bucket.shape),
            Some(sizes) => {
                let (side, flip_p) = (config.augmentation.resolution, config.augmentation.flip_p);
                let seed = crop_seed(config, seed, photo);
                Crop::Placed(sizes.augmentation.sample(seed, side, side / self.pixels_per_latent, flip_p))
            }
        };
        let turn = Turn { phase: index.phase, batch, before, size: phase.batch_size };
        choose(config.seed, "photos", &bucket.photos, turn, crop)
    }

    /// The sizes of a sample's photo and of its crop.
    fn sizes(&self, (photo, crop): &Sample) -> SizeConditioning {
        let (width, height) = self.all[*photo].pixels.dimensions();
        let original = [height.into(), width.into()];
        match crop {
            Crop::Augmented(crop) => SizeConditioning {
                original,
                crop: [crop.top, crop.left].map(|offset| offset as i64),
                target: [crop.height.into(), crop.width.into()],
            },
            Crop::Placed(placed) => {
                let crop = match placed.place {
                    Place::Cropped { top, left } => [top.into(), left.into()],
                    // All of the photo is shown.
                    Place::Whole | Place::Pasted { .. } => [0, 0],
                };
                SizeConditioning { original, crop, target: [placed.side.into(); 2] }
            }
        }
    }

    /// A random crop of a photo.
    fn cropped(&self, config: &TrainConfig, seed: u64, photo: usize, shape: [u32; 2]) -> Crop {
        let (width, height) = self.all[photo].pixels.dimensions();
        config.augmentation.sample_shape(crop_seed(config, seed, photo), width, height, shape).into()
    }
}

/// Where crops come again (`cache_latents`), that of one of a photo's, chosen by `seed`; else `seed` itself.
fn crop_seed(config: &TrainConfig, seed: u64, photo: usize) -> u64 {
    config.cache_latents.map_or(seed, |crops| {
        let number = seed % u64::from(crops);
        random::derive(config.seed, "cached crops", key(photo, number as usize))
    })
}

/// A batch of a phase.
#[derive(Debug, Clone, Copy)]
struct Turn {
    phase: usize,
    /// Its number.
    batch: usize,
    /// How many batches of the same photos came before.
    before: usize,
    /// How many samples it has.
    size: usize,
}

/// The samples of a batch, of some photos by their numbers. All of them come once, in random order, before any comes again.
fn choose(seed: u64, purpose: &str, photos: &[usize], turn: Turn, crop: impl Fn(u64, usize) -> Crop) -> Vec<Sample> {
    let Turn { phase, batch, before, size } = turn;
    let choose_one = |sample: usize| {
        let (epoch, at) = ((before * size + sample) / photos.len(), (before * size + sample) % photos.len());
        let photo = photos[permutation(random::derive(seed, purpose, key(phase, epoch)), photos.len())[at]];
        let seed = random::derive(seed, &format!("{purpose}: views"), key(phase, batch * size + sample));
        (photo, crop(seed, photo))
    };
    (0..size).map(choose_one).collect()
}

#[cfg(test)]
mod tests {
    use photos::Augmentation;

    use super::*;

    #[test]
    fn a_reference_is_another_photo_of_the_same_subject_and_a_single_photo_is_its_own() {
        let photo = Photo::new("a.png", images::RgbImage::new(8, 8));
        let config = TrainConfig::paper();
        let (phase, mut seen) = (&config.phases["unet"], std::collections::BTreeSet::new());
        // Three photos of one subject and one of another, and a class image of the first.
        let (subjects, buckets) = (vec![0, 0, 0, 1, 0], Buckets::new([[8, 8]; 4].into_iter()));
        let photos = Photos { all: vec![photo; 5], subjects, shown: 4, buckets, pixels_per_latent: 8 };
        for step in 0..20 {
            let index = BatchIndex { phase: 2, step, part: 0 };
            let samples = photos.choose_subject(&config, phase, index);
            let references = photos.choose_references(&config, phase, index, &samples);
            assert_eq!(references, photos.choose_references(&config, phase, index, &samples));
            for ((photo, _), (reference, _)) in samples.iter().zip(&references) {
                assert_eq!((photos.subjects[*photo], *photo == 3), (photos.subjects[*reference], photo == reference));
                assert!(*reference < photos.shown);
                seen.insert((*photo, *reference));
            }
        }
        assert_eq!(seen.len(), 3 * 2 + 1);
    }

    #[test]
    fn sizes_are_heights_first_of_the_photo_and_tell_where_its_crop_begins() {
        let photo = Photo::new("a.png", images::RgbImage::new(30, 20));
        let buckets = Buckets::new([[8, 8]].into_iter());
        let photos = Photos { all: vec![photo], subjects: vec![0], shown: 1, buckets, pixels_per_latent: 8 };
        let crop = photos::AugmentedCrop { angle: None, flip: true, left: 3, top: 1, width: 16, height: 8 };
        let expected = SizeConditioning { original: [20, 30], crop: [1, 3], target: [8, 16] };
        assert_eq!(photos.sizes(&(0, crop.into())), expected);
        for (place, crop) in [
            (Place::Whole, [0, 0]),
            (Place::Pasted { top: 2, left: 5 }, [0, 0]),
            (Place::Cropped { top: 2, left: 5 }, [2, 5]),
        ] {
            let placed = PlacedPhoto { side: 16, flip: false, scale: 24, place };
            let expected = SizeConditioning { original: [20, 30], crop, target: [16, 16] };
            assert_eq!(photos.sizes(&(0, Crop::Placed(placed))), expected);
        }
    }

    #[test]
    fn of_cached_crops_each_photo_has_as_many_as_asked_for() {
        let photo = Photo::new("a.png", images::RgbImage::new(90, 70));
        let buckets = Buckets::new([[64, 64]; 2].into_iter());
        let photos = Photos { all: vec![photo; 2], subjects: vec![0; 2], shown: 2, buckets, pixels_per_latent: 8 };
        let seen = |config: &TrainConfig| {
            let mut seen = [Vec::<Crop>::new(), Vec::new()];
            let steps = config.phases.values().enumerate().flat_map(|(number, phase)| {
                (0..20).map(move |step| (phase, BatchIndex { phase: number, step, part: 0 }))
            });
            for (photo, crop) in steps.flat_map(|(phase, index)| photos.choose_subject(config, phase, index)) {
                if !seen[photo].contains(&crop) {
                    seen[photo].push(crop);
                }
            }
            seen
        };
        let config = TrainConfig { cache_latents: Some(5), ..TrainConfig::paper() };
        let crops = seen(&config);
        assert_eq!(crops.each_ref().map(Vec::len), [5, 5]);
        assert!(!crops[1].contains(&crops[0][0]), "each photo has its own");
        assert_ne!(seen(&TrainConfig { seed: 1, ..config.clone() }), crops);
        assert!(seen(&TrainConfig { cache_latents: None, ..config })[0].len() > 100);
    }

    #[test]
    fn all_photos_come_before_any_comes_again_and_one_is_enough() {
        for count in [1, 4, 8] {
            let photos: Vec<usize> = (10..10 + count).collect();
            let turn = Turn { phase: 2, batch: 3, before: 3, size: 8 };
            let mut seen = vec![0; count];
            for (photo, _) in
                choose(0, "photos", &photos, turn, |seed, _| Augmentation::default().sample(seed, 8, 8).into())
            {
                seen[photo - 10] += 1;
            }
            assert_eq!(seen, vec![8 / count; count]);
        }
    }
}
