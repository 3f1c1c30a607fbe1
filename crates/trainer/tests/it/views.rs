//! Batches of views: made ahead, encoded one by one, remembered; and still what the plain way makes.

use libtorch::random;
use methods::Batch;
use photos::Augmentation;
use runs::{Prior, TrainConfig};
use tch::{Kind, Tensor};
use trainer::{BatchIndex, Batches};

use crate::common::{config, start};

fn place(step: usize) -> BatchIndex {
    BatchIndex { phase: 2, step, part: 0 }
}

fn assert_same(a: &Batch, b: &Batch) {
    for (a, b) in [(&a.latents, &b.latents), (&a.noise, &b.noise), (&a.timesteps, &b.timesteps)] {
        assert!(a.equal(b));
    }
}

/// Views that come again: one of each photo, or its mirror image.
fn few_views() -> TrainConfig {
    let augmentation = Augmentation { flip_p: 0.5, ..Augmentation::none(32) };
    TrainConfig { augmentation, ..config() }
}

#[test]
fn latents_are_sampled_from_the_posteriors_of_the_views() {
    let (trainer, mut batches) = start(config());
    for step in 0..3 {
        let batch = batches.batch(place(step)).unwrap();
        let views = batches.crops(place(step)).unwrap();
        let images: Vec<Tensor> =
            views.iter().map(|(photo, view)| sampling::image_to_tensor(&view.render(&photo.pixels))).collect();
        let noise = random::normal(random::derive(0, "posterior", 3 << 48 | step as u64), &[2, 4, 4, 4]);
        let plain = tch::no_grad(|| {
            let posterior = trainer.pipeline.vae.encode(&Tensor::cat(&images, 0)).unwrap();
            trainer.pipeline.vae.scale_latents(&posterior.sample(&noise).unwrap())
        });
        golden::assert_close("latents", &batch.latents, &plain, 1e-5);
        assert_eq!((batch.latents.kind(), batch.latents.requires_grad()), (Kind::Float, false));
        assert_eq!(batch.timesteps.size(), [2]);
    }
}

#[test]
fn a_batch_depends_on_its_place_and_not_on_what_was_made_before() {
    for config in [config(), few_views()] {
        let in_order: Vec<Batch> = {
            let (_trainer, mut batches) = start(config.clone());
            (0..3).map(|step| batches.batch(place(step)).unwrap()).collect()
        };
        // From the middle, as a resumed run; then back and forth, with everything known.
        let (_trainer, mut batches) = start(config);
        for step in [1, 2, 0, 2, 2, 1] {
            assert_same(&batches.batch(place(step)).unwrap(), &in_order[step]);
        }
    }
}

#[test]
fn the_categorys_images_follow_the_subjects() {
    let (_trainer, mut batches) = start(config());
    let alone = batches.batch(place(0)).unwrap();
    let (_trainer, mut batches) = start(TrainConfig { prior: Some(Prior::default()), ..config() });
    let both = batches.batch(place(0)).unwrap();
    assert_eq!((alone.latents.size()[0], both.latents.size()[0]), (2, 4));
    assert_eq!(batches.crops(place(0)).unwrap().len(), 2);
    assert!(!both.latents.narrow(0, 0, 2).equal(&both.latents.narrow(0, 2, 2)));
}

#[test]
fn a_view_that_cannot_be_encoded_is_an_error_and_not_the_end_of_the_thread() {
    let (_trainer, mut batches) = start(TrainConfig { augmentation: Augmentation::none(33), ..config() });
    for _ in 0..2 {
        let error = batches.batch(place(0)).unwrap_err().to_string();
        assert!(error.contains("33x33 pixels"), "{error}");
    }
}
