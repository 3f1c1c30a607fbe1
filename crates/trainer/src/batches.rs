//! Batches from photos, each determined by (seed, stage, step).

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Result, anyhow};
use libtorch::random;
use photos::{Augmentation, Photo, View};
use pictures::RgbImage;
use rayon::prelude::*;
use tch::Tensor;

use crate::{Batch, Stage, StageConfig, TrainConfig};

/// Which batch: the place in the run that all its randomness derives from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
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
    fn batch(&mut self, place: Place) -> Result<Batch>;
}

/// Batches of random views of photos, of which the next is rendered while the present one is used.
#[derive(Debug)]
pub struct PhotoBatches {
    config: TrainConfig,
    subject: Arc<Vec<Photo>>,
    prior: Option<Arc<Vec<Photo>>>,
    /// [channels, h, w] of one view's latents.
    latents: [i64; 3],
    timesteps: i64,
    next: Option<(Place, JoinHandle<Vec<RgbImage>>)>,
}

impl PhotoBatches {
    /// Views of the subject's photos, and as many of the category's in each batch where there are `prior` photos;
    /// for latents of the shape [channels, h, w] and a noise schedule of so many `timesteps`.
    pub fn new(
        config: &TrainConfig,
        subject: Vec<Photo>,
        prior: Option<Vec<Photo>>,
        latents: [i64; 3],
        timesteps: i64,
    ) -> Self {
        let prior = prior.map(Arc::new);
        Self { config: config.clone(), subject: Arc::new(subject), prior, latents, timesteps, next: None }
    }

    /// The views of the subject in a batch, for looking at.
    pub fn views(&self, place: Place) -> Vec<(&Photo, View)> {
        let chosen = choose(&self.config, "photos", &self.subject, place);
        chosen.into_iter().map(|(index, view)| (&self.subject[index], view)).collect()
    }

    /// Starts to render a batch in the background.
    fn start(&self, place: Place) -> JoinHandle<Vec<RgbImage>> {
        let mut work = vec![(Arc::clone(&self.subject), choose(&self.config, "photos", &self.subject, place))];
        if let Some(prior) = &self.prior {
            work.push((Arc::clone(prior), choose(&self.config, "prior photos", prior, place)));
        }
        std::thread::spawn(move || {
            let views = work.iter().flat_map(|(photos, chosen)| chosen.iter().map(|(i, view)| (&photos[*i], view)));
            let views: Vec<(&Photo, &View)> = views.collect();
            views.into_par_iter().map(|(photo, view)| view.render(&photo.pixels)).collect()
        })
    }

    /// The place after `place`, in the same stage.
    fn after(&self, place: Place) -> Option<Place> {
        let StageConfig { steps, gradient_accumulation, .. } = *self.config.stage(place.stage);
        let next = if place.part + 1 < gradient_accumulation {
            Place { part: place.part + 1, ..place }
        } else {
            Place { step: place.step + 1, part: 0, ..place }
        };
        (next.step < steps).then_some(next)
    }
}

impl Batches for PhotoBatches {
    fn batch(&mut self, place: Place) -> Result<Batch> {
        let rendering = match self.next.take() {
            Some((prepared, rendering)) if prepared == place => rendering,
            _ => self.start(place),
        };
        let views = rendering.join().map_err(|_| anyhow!("the thread that renders training views has failed"))?;
        self.next = self.after(place).map(|next| (next, self.start(next)));

        let images: Vec<Tensor> = views.iter().map(sampling::from_picture).collect();
        let size = images.len() as i64;
        let [channels, height, width] = self.latents;
        let shape = [size, channels, height, width];
        let parts = self.config.stage(place.stage).gradient_accumulation;
        let seed =
            |purpose| random::derive(self.config.seed, purpose, key(place.stage, place.step * parts + place.part));
        Ok(Batch {
            images: Tensor::cat(&images, 0),
            posterior_noise: random::normal(seed("posterior"), &shape),
            noise: random::normal(seed("noise"), &shape),
            timesteps: random::integers(seed("timesteps"), self.timesteps, &[size]),
        })
    }
}

/// The photos' indices and the views of a batch. All photos come once, in random order, before any comes again.
fn choose(config: &TrainConfig, purpose: &str, photos: &[Photo], place: Place) -> Vec<(usize, View)> {
    let StageConfig { batch_size, gradient_accumulation, .. } = *config.stage(place.stage);
    let first = (place.step * gradient_accumulation + place.part) * batch_size;
    let augmentation: &Augmentation = &config.augmentation;
    let choose_one = |sample: usize| {
        let (epoch, turn) = (sample / photos.len(), sample % photos.len());
        let index = permutation(random::derive(config.seed, purpose, key(place.stage, epoch)), photos.len())[turn];
        let seed = random::derive(config.seed, &format!("{purpose}: views"), key(place.stage, sample));
        let (width, height) = photos[index].pixels.dimensions();
        (index, augmentation.draw(seed, width, height))
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
}
