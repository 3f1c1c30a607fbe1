//! What may be switched on, and what goes wrong.

use methods::{Batch, Denoising, LossTerm, Step};
use options::Dtype;
use runs::{Prior, TrainConfig};
use tch::{Kind, Tensor};
use trainer::{BatchIndex, Batches};

use crate::common::{config, learned, start};

/// The number of the phase that trains the U-Net.
const UNET: usize = 2;
const FIRST: BatchIndex = BatchIndex { phase: UNET, step: 0, part: 0 };

/// A term of a loss; nothing where there is none.
fn term(losses: &[LossTerm], name: &str) -> f64 {
    losses.iter().filter(|term| term.name == name).map(|term| term.value.double_value(&[])).sum()
}

/// The diffusion loss with that of class images, and the attention loss, of the first batch of the last phase.
fn losses(config: TrainConfig) -> [f64; 2] {
    let (trainer, mut batches) = start(config);
    let batch = batches.batch(FIRST).unwrap();
    let prior = trainer.config.prior.as_ref().map(|prior| trainer.config.fill(&prior.prompt));
    let prompts = [Some(trainer.config.fill(&trainer.config.prompt)), prior];
    let prompts: Vec<&str> = prompts.iter().flatten().map(String::as_str).collect();
    let hidden = trainer.pipeline.encode_prompts(&prompts).unwrap();
    let losses = trainer.losses(&trainer.config.phases[UNET], &batch, &hidden).unwrap();
    [term(&losses, "diffusion") + term(&losses, "prior"), term(&losses, "attention")]
}

#[test]
fn bf16_gives_nearly_the_same_losses() {
    let [full, half] = [Dtype::Fp32, Dtype::Bf16].map(|dtype| losses(TrainConfig { dtype, ..config() }));
    assert!((full[0] - half[0]).abs() < 0.01 * full[0], "{full:?} {half:?}");
    assert!((full[1] - half[1]).abs() < 0.1 * full[1], "{full:?} {half:?}");
    assert_ne!(full[0], half[0]);
}

#[test]
fn prior_preservation_adds_the_loss_of_the_category_and_leaves_attention_alone() {
    let weigh = |weight| {
        let prompt = "a photo of a cat".to_owned();
        losses(TrainConfig { prior: Some(Prior { prompt, weight, ..Prior::default() }), ..config() })
    };
    let [none, one, two] = [0.0, 1.0, 2.0].map(weigh);
    assert!(one[0] > none[0]);
    assert!((two[0] - none[0] - 2.0 * (one[0] - none[0])).abs() < 1e-5, "the weight is linear");
    assert_eq!(one[1], two[1]);
}

#[test]
fn min_snr_never_weighs_more_than_plain() {
    let plain = losses(config());
    // A γ that no SNR reaches changes nothing.
    let weigh = |gamma| losses(TrainConfig { snr_gamma: Some(gamma), ..config() });
    assert!((weigh(1e9)[0] - plain[0]).abs() < 1e-6);
    assert!(weigh(1e-3)[0] < plain[0]);
    assert_eq!(weigh(5.0)[1], plain[1]);
}

/// As in diffusers' `train_dreambooth.py`, where `prior_loss` is a plain mean.
#[test]
fn min_snr_weighs_the_subject_and_not_the_category() {
    let category = |snr_gamma| {
        let weigh = |weight| {
            let prior = Prior { prompt: "a photo of a cat".to_owned(), weight, ..Prior::default() };
            losses(TrainConfig { prior: Some(prior), snr_gamma, ..config() })[0]
        };
        weigh(1.0) - weigh(0.0)
    };
    let (plain, weighted) = (category(None), category(Some(1e-3)));
    assert!((plain - weighted).abs() < 1e-5 * plain, "{plain} {weighted}");
}

/// At the last timestep of such a schedule there is no signal, and min(SNR, γ) / SNR is 1 in the limit.
#[test]
fn min_snr_has_a_weight_at_a_zero_terminal_snr() {
    let last = |snr_gamma| {
        let (trainer, mut batches) = start(config());
        let mut pipeline = trainer.pipeline;
        pipeline.scheduler.rescale_betas_zero_snr = true;
        let denoising = Denoising::new(&pipeline, &TrainConfig { snr_gamma, ..trainer.config.clone() }).unwrap();
        let batch = batches.batch(FIRST).unwrap();
        let batch = Batch { timesteps: batch.timesteps.full_like(999), ..batch };
        let hidden = pipeline.encode_prompts(&["a photo of a [V] cat"]).unwrap();
        let step = Step {
            method: trainer.method,
            pipeline: &pipeline,
            config: &trainer.config,
            phase: &trainer.config.phases[UNET],
            learned: &trainer.learned,
            denoising: &denoising,
            batch: &batch,
            prompt_embeds: &hidden,
        };
        term(&trainer.method.losses(&step).unwrap(), "diffusion")
    };
    assert!(last(None).is_finite());
    assert_eq!(last(Some(5.0)), last(None));
}

#[test]
fn accumulated_batches_are_one_step_with_the_mean_of_their_gradients() {
    let mut config = config();
    let unet = &mut config.phases[UNET];
    (unet.gradient_accumulation, unet.lambda_mean, unet.lambda_variance) = (2, 0.0, 0.0);
    let (trainer, mut batches) = start(config);
    let unet = &trainer.config.phases[UNET];
    let hidden = trainer.pipeline.encode_prompts(&["a photo of a [V] cat"]).unwrap();
    let expected: f64 = (0..2)
        .map(|part| batches.batch(BatchIndex { part, ..FIRST }).unwrap())
        .map(|batch| term(&trainer.losses(unet, &batch, &hidden).unwrap(), "diffusion") / 2.0)
        .sum();
    let report = trainer.start(UNET).unwrap().step(&trainer, &mut batches).unwrap().wait().unwrap();
    assert!((report.loss("diffusion").unwrap() - expected).abs() < 1e-6);
    assert_eq!(report.losses.len(), 1);
}

#[test]
fn looking_at_images_does_not_disturb_a_run() {
    let run = |look: bool| {
        let (trainer, mut batches) = start(config());
        let mut phase_run = trainer.start(UNET).unwrap();
        for _ in 0..3 {
            let _report = phase_run.step(&trainer, &mut batches).unwrap().wait().unwrap();
            if look {
                let settings = sampling::Settings { steps: 2, ..trainer.pipeline.default_settings() };
                let request = sampling::Request::new("a [V] cat on the moon", 0);
                let _images = trainer.pipeline.generate(&[request], &settings, &mut |_| {}).unwrap();
            }
        }
        learned(&trainer)
    };
    assert!(run(false).iter().zip(&run(true)).all(|((_, a), (_, b))| a.equal(b)));
}

#[test]
fn gradient_checkpointing_learns_the_same() {
    let run = |gradient_checkpointing| {
        let (trainer, mut batches) = start(TrainConfig { gradient_checkpointing, ..config() });
        for phase in 0..3 {
            let mut phase_run = trainer.start(phase).unwrap();
            for _ in 0..2 {
                let _report = phase_run.step(&trainer, &mut batches).unwrap().wait().unwrap();
            }
            phase_run.finish(&trainer).unwrap();
        }
        learned(&trainer)
    };
    for ((name, kept), (_, computed_again)) in run(false).iter().zip(&run(true)) {
        golden::assert_close(name, computed_again, kept, 1e-6);
    }
}

#[test]
fn a_loss_that_is_no_number_stops_before_anything_is_changed() {
    let (trainer, mut batches) = start(config());
    let mut phase_run = trainer.start(UNET).unwrap();
    let broken = trainer.pipeline.parameters.unet.get("conv_out.bias").unwrap();
    let _ = tch::no_grad(|| broken.shallow_clone().fill_(f64::NAN));
    let before = learned(&trainer);
    let launched = phase_run.step(&trainer, &mut batches).unwrap();
    // As a session does, which reads a step's losses while the next one is on its way.
    let next = phase_run.step(&trainer, &mut batches).unwrap();
    let error = launched.wait().unwrap_err().to_string();
    assert!(next.wait().is_err());
    assert!(
        error.contains("become NaN in step 1 of phase unet") && error.contains("last checkpoint is good"),
        "{error}"
    );
    let same = |a: &Tensor, b: &Tensor| a.nan_to_num(Some(7.0), None, None).equal(&b.nan_to_num(Some(7.0), None, None));
    assert!(before.iter().zip(&learned(&trainer)).all(|((_, a), (_, b))| same(a, b)));
}

#[test]
fn gradients_that_are_not_finite_stop_before_anything_is_changed() {
    for max_grad_norm in [None, Some(1.0)] {
        let (trainer, mut batches) = start(TrainConfig { max_grad_norm, ..config() });
        let mut phase_run = trainer.start(UNET).unwrap();
        let parameter = |name| trainer.pipeline.parameters.unet.get(name).unwrap();
        // The prediction is 30 whatever the input, a loss of about 900. The last convolution has gradients of
        // Σ 2 · 30 / n · h, where h is near the end of f32.
        for (name, value) in [("conv_norm_out.weight", 5e37), ("conv_out.weight", 0.0), ("conv_out.bias", 30.0)] {
            let _ = tch::no_grad(|| parameter(name).shallow_clone().fill_(value));
        }
        let before = learned(&trainer);
        let launched = phase_run.step(&trainer, &mut batches).unwrap();
        assert!(parameter("conv_out.weight").grad().isfinite().logical_not().any().int64_value(&[]) == 1);
        let next = phase_run.step(&trainer, &mut batches).unwrap();
        let error = launched.wait().unwrap_err().to_string();
        assert!(next.wait().is_err());
        assert!(
            error.contains("the gradients are no longer finite in step 1 of phase unet")
                && error.contains("last checkpoint is good"),
            "{error}"
        );
        assert!(before.iter().zip(&learned(&trainer)).all(|((_, a), (_, b))| a.equal(b)));
        let folder = tempfile::tempdir().unwrap();
        phase_run.save(&trainer, &folder.path().join("checkpoint")).unwrap();
        let state = weights::Archive::open(&folder.path().join("checkpoint/unet.optimizer.safetensors")).unwrap();
        for part in ["exp_avg", "exp_avg_sq", "step"] {
            let name = format!("conv_out.weight.{part}");
            assert_eq!(state.tensor(&name).unwrap().unwrap().abs().max().double_value(&[]), 0.0, "{name}");
        }
    }
}

#[test]
fn the_embedding_starts_from_the_category_and_no_other_token_can_change() {
    let (trainer, mut batches) = start(TrainConfig { vectors: 2, ..config() });
    let rows = trainer.learned.embedding.as_ref().unwrap();
    assert_eq!((rows.size(), rows.kind()), (vec![2, 32], Kind::Float));
    let tokens = trainer.pipeline.tokenizer.encode("cat").unwrap();
    let category = Tensor::from_slice(&tokens.ids[1..tokens.len - 1]).unsqueeze(0);
    let expected =
        trainer.pipeline.text_encoder.embed(&category).unwrap().mean_dim([1i64].as_slice(), false, Kind::Float);
    assert!(rows.get(0).allclose(&expected.get(0), 1e-6, 1e-7, false));

    let table = trainer.pipeline.text_encoder.token_embeddings().copy();
    let _report = trainer.start(0).unwrap().step(&trainer, &mut batches).unwrap().wait().unwrap();
    assert!(trainer.pipeline.text_encoder.token_embeddings().equal(&table));
    assert!(!rows.get(0).equal(&expected.get(0)));
}
