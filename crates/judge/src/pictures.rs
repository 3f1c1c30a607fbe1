//! The pictures that a judge learns from: half of them fresh, half as a miniature would generate them.

use std::thread::JoinHandle;

use anyhow::{Result, anyhow};
use attributes::Label;
use libtorch::random;
use pretrainer::{IMAGE_SIZE, Sources};
use rayon::prelude::*;
use scenes::{Object, Placement, RgbImage, Scene, Split, World};
use tch::{Kind, Tensor};
use vae::AutoencoderKl;

use crate::labels::Labels;

/// Scenes that differ in their first thing alone.
const FAMILY: usize = 8;
/// Two such families with the same things, and so everything twice, in another scene or in other styles.
pub(crate) const GROUP: usize = 2 * FAMILY;
/// Steps after which other pictures are made as generated ones.
pub(crate) const REFILL: u64 = 2000;
/// The greatest standard deviation of a blur, in pixels.
const BLUR: f64 = 1.2;
/// Pictures that the VAE takes at once.
const ENCODED: usize = 16;

/// A picture and what it shows.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub(crate) image: RgbImage,
    pub(crate) caption: String,
    pub(crate) label: Label,
    /// Which thing it shows, where it shows one.
    pub(crate) identity: Option<i64>,
}

/// Where pictures come from.
pub(crate) struct Pictures {
    sources: Sources,
    labels: Labels,
    vae: AutoencoderKl,
    seed: u64,
    /// Groups of a step, of which half are as generated.
    groups: usize,
    /// Groups that are made at once.
    pool: usize,
    filled: Option<(u64, Vec<Vec<Picture>>)>,
    next: Option<(u64, JoinHandle<Vec<Vec<Picture>>>)>,
}

impl Pictures {
    pub(crate) fn new(sources: &Sources, vae: AutoencoderKl, seed: u64, groups: usize, pool: usize) -> Self {
        let labels = Labels::new(&sources.world);
        Self { sources: sources.clone(), labels, vae, seed, groups, pool, filled: None, next: None }
    }

    /// The pictures of a step, which depend on it and the seed alone; those of the next one are begun.
    pub(crate) fn of_step(&mut self, step: u64) -> Result<Vec<Picture>> {
        let rendering = match self.next.take() {
            Some((prepared, rendering)) if prepared == step => rendering,
            _ => self.fresh(step),
        };
        let mut groups = rendering.join().map_err(|_| anyhow!("the thread that renders scenes has failed"))?;
        self.next = Some((step + 1, self.fresh(step + 1)));
        let count = self.groups / 2;
        let first = step * count as u64;
        let pool = self.filled(step / REFILL)?;
        let chosen = (first..first + count as u64).map(|i| random::derive(pool.0, "chosen", i) % pool.1.len() as u64);
        groups.extend(chosen.map(|group| pool.1[group as usize].clone()));
        Ok(groups.concat())
    }

    fn fresh(&self, step: u64) -> JoinHandle<Vec<Vec<Picture>>> {
        let (sources, labels) = (self.sources.clone(), self.labels.clone());
        let count = (self.groups - self.groups / 2) as u64;
        let seed = self.seed;
        std::thread::spawn(move || {
            let seeds: Vec<u64> =
                (step * count..(step + 1) * count).map(|i| random::derive(seed, "scene", i)).collect();
            seeds.par_iter().map(|seed| group(&sources, &labels, *seed)).collect()
        })
    }

    /// The seed and the groups of the pool of this number.
    fn filled(&mut self, number: u64) -> Result<(u64, &[Vec<Picture>])> {
        if self.filled.as_ref().is_none_or(|(filled, _)| *filled != number) {
            let first = number * self.pool as u64;
            let seeds: Vec<u64> =
                (first..first + self.pool as u64).map(|i| random::derive(self.seed, "pool", i)).collect();
            let groups: Vec<Vec<Picture>> =
                seeds.par_iter().map(|seed| group(&self.sources, &self.labels, *seed)).collect();
            let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
            let mut pictures: Vec<Picture> = groups.concat();
            let sigma = |i: usize| BLUR * random::derive(self.seed, "blur", first + i as u64) as f64 / u64::MAX as f64;
            for (turn, some) in pictures.chunks_mut(ENCODED).enumerate() {
                let images: Vec<&RgbImage> = some.iter().map(|picture| &picture.image).collect();
                let sigmas: Vec<f64> = (0..some.len()).map(|i| sigma(turn * ENCODED + i)).collect();
                let seen = as_generated(&self.vae, &images, &sigmas)?;
                some.iter_mut().zip(seen).for_each(|(picture, image)| picture.image = image);
            }
            let mut rest = pictures.into_iter();
            let groups = sizes.into_iter().map(|size| rest.by_ref().take(size).collect()).collect();
            self.filled = Some((number, groups));
        }
        let groups = self.filled.as_ref().map_or(&[][..], |(_, groups)| groups);
        Ok((random::derive(self.seed, "choice", number), groups))
    }
}

/// The scenes of a group, half of all groups freely placed as photos of a subject are.
fn group(sources: &Sources, labels: &Labels, seed: u64) -> Vec<Picture> {
    let placement = if seed.is_multiple_of(2) { Placement::Steady } else { Placement::Free };
    let picture = |scene: Scene| drawn(sources, labels, &Scene { placement, ..scene });
    let world = &sources.world;
    let family = Scene::family(world, seed, Split::Training, FAMILY);
    let again = match random::derive(seed, "again", 0) {
        again if again.is_multiple_of(2) => elsewhere(world, &family, again),
        again => restyled(world, &family, again),
    };
    family.into_iter().chain(again).filter(|scene| !labels.withheld(scene)).map(picture).collect()
}

/// The first things of scenes in another scene, each in one of its poses; a few are left out.
fn elsewhere(world: &World, family: &[Scene], seed: u64) -> Vec<Scene> {
    let place = Scene::sample(world, seed, Split::Training);
    let scene = |(i, scene): (usize, &Scene)| {
        let seed = random::derive(seed, "thing", i as u64);
        let first = &scene.objects[0];
        let drawings = first.noun.map_or(&[][..], |noun| &world.nouns[noun].drawings);
        let drawing = drawings.get(seed as usize % drawings.len().max(1)).unwrap_or(&first.drawing).clone();
        let color = place.objects[0].color.clone();
        let others = place.objects.iter().skip(1).filter(|other| **other != place.objects[0]).cloned();
        let objects = std::iter::once(Object { drawing, color, ..first.clone() }).chain(others).collect();
        Scene { objects, seed, ..place.clone() }
    };
    let usable = |scene: &Scene| {
        let twice = scene.objects.iter().skip(1).any(|other| other.word == scene.objects[0].word);
        !twice && !scene.is_held_out()
    };
    family.iter().enumerate().map(scene).filter(usable).collect()
}

/// The same scenes, each in another style, so that styles are learned, which few scenes have.
fn restyled(world: &World, family: &[Scene], seed: u64) -> Vec<Scene> {
    let scene = |(i, scene): (usize, &Scene)| {
        let others: Vec<Option<&String>> = std::iter::once(None).chain(world.styles.keys().map(Some)).collect();
        let others: Vec<Option<&String>> = others.into_iter().filter(|style| *style != scene.style.as_ref()).collect();
        let chosen = random::derive(seed, "style", i as u64);
        let style = others[chosen as usize % others.len()].cloned();
        let says_photo = style.is_none() && random::derive(chosen, "photo", 0).is_multiple_of(2);
        Scene { style, says_photo, seed: chosen, ..scene.clone() }
    };
    family.iter().enumerate().map(scene).collect()
}

/// A scene as a picture.
pub(crate) fn drawn(sources: &Sources, labels: &Labels, scene: &Scene) -> Picture {
    Picture {
        image: scene.render(&sources.world, &sources.album, IMAGE_SIZE),
        caption: scene.caption(&sources.world),
        label: labels.of(scene),
        identity: labels.identity(scene),
    }
}

/// Images as the VAE rebuilds them, each blurred with a standard deviation in pixels, 0 for none.
pub(crate) fn as_generated(vae: &AutoencoderKl, images: &[&RgbImage], sigmas: &[f64]) -> Result<Vec<RgbImage>> {
    let _span = tracing::trace_span!("judge/as_generated").entered();
    let batch: Vec<Tensor> = images.iter().map(|image| sampling::image_to_tensor(image)).collect();
    let rebuilt = tch::no_grad(|| vae.decode(&vae.encode(&Tensor::cat(&batch, 0))?.mode()))?;
    let image = |(i, sigma): (usize, &f64)| {
        let pixels = blurred(&rebuilt.narrow(0, i as i64, 1), *sigma);
        let bytes = ((pixels.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to_kind(Kind::Uint8).squeeze_dim(0);
        let bytes = Vec::<u8>::try_from(bytes.permute([1, 2, 0]).contiguous().flatten(0, -1))?;
        RgbImage::from_raw(IMAGE_SIZE, IMAGE_SIZE, bytes).ok_or_else(|| anyhow!("an image has another size"))
    };
    sigmas.iter().enumerate().map(image).collect()
}

/// A Gaussian blur of an image [1, 3, h, w]; its edges are mirrored.
fn blurred(image: &Tensor, sigma: f64) -> Tensor {
    let radius = (3.0 * sigma).ceil() as i64;
    if radius == 0 {
        return image.shallow_clone();
    }
    let at = Tensor::arange_start(-radius, radius + 1, (Kind::Float, image.device()));
    let kernel = (-at.square() / (2.0 * sigma * sigma)).exp();
    let kernel = &kernel / kernel.sum(Kind::Float);
    let size = 2 * radius + 1;
    let padded = image.transpose(0, 1).reflection_pad2d([radius; 4]);
    let rows = padded.conv2d(&kernel.view([1, 1, 1, size]), None::<Tensor>, [1, 1], [0, 0], [1, 1], 1);
    rows.conv2d(&kernel.view([1, 1, size, 1]), None::<Tensor>, [1, 1], [0, 0], [1, 1], 1).transpose(0, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_shows_its_scenes_again_elsewhere_or_in_another_style() {
        let world = crate::world();
        let mut styles = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let family = Scene::family(&world, seed, Split::Training, FAMILY);
            let again = restyled(&world, &family, seed);
            assert_eq!(again.len(), FAMILY);
            for (before, after) in family.iter().zip(&again) {
                assert_ne!(before.style, after.style);
                assert_eq!((&before.objects, &before.background), (&after.objects, &after.background));
                assert!(after.style.is_none() || !after.says_photo);
                styles.insert(after.style.clone());
            }
            let words: Vec<&String> = family.iter().map(|scene| &scene.objects[0].word).collect();
            let elsewhere = elsewhere(&world, &family, seed);
            assert!(elsewhere.iter().all(|scene| !scene.is_held_out() && words.contains(&&scene.objects[0].word)));
        }
        assert_eq!(styles.len(), world.styles.len() + 1);
    }

    #[test]
    fn a_blur_keeps_the_mean_and_spreads_a_point_as_a_gaussian() {
        let image = Tensor::zeros([1, 3, 31, 31], (Kind::Float, tch::Device::Cpu));
        let _ = image.narrow(2, 15, 1).narrow(3, 15, 1).fill_(1.0);
        let blurred = blurred(&image, 1.0);
        let at = |y: i64, x: i64| blurred.double_value(&[0, 1, y, x]);
        assert!((blurred.sum(Kind::Double).double_value(&[]) - 3.0).abs() < 1e-5);
        // exp(-1/2) from the middle to the next pixel, and as much again to the one beside it.
        let step = (-0.5f64).exp();
        assert!((at(15, 16) / at(15, 15) - step).abs() < 1e-4 && (at(16, 16) / at(15, 15) - step * step).abs() < 1e-4);
        assert!(super::blurred(&image, 0.0).equal(&image));
    }
}
