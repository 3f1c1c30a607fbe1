//! What may be switched on, and what goes wrong.
#![allow(clippy::unwrap_used)]

mod common;

use common::{config, learned, start};
use options::Dtype;
use runs::{Prior, Stage, StageConfig, TrainConfig};
use tch::{Kind, Tensor};
use trainer::{Batch, BatchIndex, Batches, Objective};

const FIRST: BatchIndex = BatchIndex { stage: Stage::Unet, step: 0, part: 0 };

/// The diffusion loss and the attention loss of the first batch of stage 3.
fn losses(config: TrainConfig) -> [f64; 2] {
    let (trainer, mut batches) = start(config);
    let batch = batches.batch(FIRST).unwrap();
    let prior = trainer.config.prior.as_ref().map(|prior| trainer.config.fill(&prior.prompt));
    let prompts = [Some(trainer.config.fill(&trainer.config.prompt)), prior];
    let prompts: Vec<&str> = prompts.iter().flatten().map(String::as_str).collect();
    let hidden = trainer.pipeline.encode_prompts(&prompts).unwrap();
    let stage = *trainer.config.stage(Stage::Unet);
    let losses = trainer.losses(&stage, &batch, &hidden).unwrap();
    [losses.diffusion, losses.attention].map(|loss| loss.double_value(&[]))
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
        let objective = Objective::new(&pipeline, &TrainConfig { snr_gamma, ..trainer.config.clone() }).unwrap();
        let batch = batches.batch(FIRST).unwrap();
        let batch = Batch { timesteps: batch.timesteps.full_like(999), ..batch };
        let hidden = pipeline.encode_prompts(&["a photo of a [V] cat"]).unwrap();
        let losses = objective.losses(&pipeline, &trainer.subject, &trainer.config.unet, &batch, &hidden).unwrap();
        losses.diffusion.double_value(&[])
    };
    assert!(last(None).is_finite());
    assert_eq!(last(Some(5.0)), last(None));
}

#[test]
fn accumulated_batches_are_one_step_with_the_mean_of_their_gradients() {
    let unet = StageConfig { gradient_accumulation: 2, lambda_mean: 0.0, lambda_variance: 0.0, ..config().unet };
    let (trainer, mut batches) = start(TrainConfig { unet, ..config() });
    let hidden = trainer.pipeline.encode_prompts(&["a photo of a [V] cat"]).unwrap();
    let expected: f64 = (0..2)
        .map(|part| batches.batch(BatchIndex { part, ..FIRST }).unwrap())
        .map(|batch| trainer.losses(&unet, &batch, &hidden).unwrap().diffusion.double_value(&[]) / 2.0)
        .sum();
    let report = trainer.start(Stage::Unet).unwrap().step(&trainer, &mut batches).unwrap().wait().unwrap();
    assert!((report.diffusion_loss - expected).abs() < 1e-6);
    assert_eq!(report.attention_loss, 0.0);
}

#[test]
fn looking_at_images_does_not_disturb_a_run() {
    let run = |look: bool| {
        let (trainer, mut batches) = start(config());
        let mut stage_run = trainer.start(Stage::Unet).unwrap();
        for _ in 0..3 {
            let _report = stage_run.step(&trainer, &mut batches).unwrap().wait().unwrap();
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
        for stage in Stage::ALL {
            let mut stage_run = trainer.start(stage).unwrap();
            for _ in 0..2 {
                let _report = stage_run.step(&trainer, &mut batches).unwrap().wait().unwrap();
            }
            stage_run.finish(&trainer).unwrap();
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
    let mut stage_run = trainer.start(Stage::Unet).unwrap();
    let broken = trainer.pipeline.parameters.unet.get("conv_out.bias").unwrap();
    let _ = tch::no_grad(|| broken.shallow_clone().fill_(f64::NAN));
    let before = learned(&trainer);
    let launched = stage_run.step(&trainer, &mut batches).unwrap();
    // As a session does, which reads a step's losses while the next one is on its way.
    let next = stage_run.step(&trainer, &mut batches).unwrap();
    let error = launched.wait().unwrap_err().to_string();
    assert!(next.wait().is_err());
    assert!(
        error.contains("become NaN in step 1 of stage unet") && error.contains("last checkpoint is good"),
        "{error}"
    );
    let same = |a: &Tensor, b: &Tensor| a.nan_to_num(Some(7.0), None, None).equal(&b.nan_to_num(Some(7.0), None, None));
    assert!(before.iter().zip(&learned(&trainer)).all(|((_, a), (_, b))| same(a, b)));
}

#[test]
fn gradients_that_are_not_finite_stop_before_anything_is_changed() {
    for max_grad_norm in [None, Some(1.0)] {
        let (trainer, mut batches) = start(TrainConfig { max_grad_norm, ..config() });
        let mut stage_run = trainer.start(Stage::Unet).unwrap();
        let parameter = |name| trainer.pipeline.parameters.unet.get(name).unwrap();
        // The prediction is 30 whatever the input, a loss of about 900. The last convolution has gradients of
        // Σ 2 · 30 / n · h, where h is near the end of f32.
        for (name, value) in [("conv_norm_out.weight", 5e37), ("conv_out.weight", 0.0), ("conv_out.bias", 30.0)] {
            let _ = tch::no_grad(|| parameter(name).shallow_clone().fill_(value));
        }
        let before = learned(&trainer);
        let launched = stage_run.step(&trainer, &mut batches).unwrap();
        assert!(parameter("conv_out.weight").grad().isfinite().logical_not().any().int64_value(&[]) == 1);
        let next = stage_run.step(&trainer, &mut batches).unwrap();
        let error = launched.wait().unwrap_err().to_string();
        assert!(next.wait().is_err());
        assert!(
            error.contains("the gradients are no longer finite in step 1 of stage unet")
                && error.contains("last checkpoint is good"),
            "{error}"
        );
        assert!(before.iter().zip(&learned(&trainer)).all(|((_, a), (_, b))| a.equal(b)));
        let folder = tempfile::tempdir().unwrap();
        stage_run.save(&trainer, &folder.path().join("checkpoint")).unwrap();
        let state = weights::Archive::open(&folder.path().join("checkpoint/optimizer.safetensors")).unwrap();
        for part in ["exp_avg", "exp_avg_sq", "step"] {
            let name = format!("conv_out.weight.{part}");
            assert_eq!(state.tensor(&name).unwrap().unwrap().abs().max().double_value(&[]), 0.0, "{name}");
        }
    }
}

#[test]
fn the_embedding_starts_from_the_category_and_no_other_token_can_change() {
    let (trainer, mut batches) = start(TrainConfig { vectors: 2, ..config() });
    let ids: Vec<i64> = trainer.subject.category_positions.clone();
    assert_eq!(trainer.subject.placeholder_positions, [5, 6]);
    assert_eq!(ids[0], 7, "the category stands right after [V]");
    let rows = &trainer.subject.embedding;
    assert_eq!((rows.size(), rows.kind()), (vec![2, 32], Kind::Float));
    let tokens = trainer.pipeline.tokenizer.encode("cat").unwrap();
    let category = Tensor::from_slice(&tokens.ids[1..tokens.len - 1]).unsqueeze(0);
    let expected =
        trainer.pipeline.text_encoder.embed(&category).unwrap().mean_dim([1i64].as_slice(), false, Kind::Float);
    assert!(rows.get(0).allclose(&expected.get(0), 1e-6, 1e-7, false));

    let table = trainer.pipeline.text_encoder.token_embeddings().copy();
    let _report = trainer.start(Stage::Embedding).unwrap().step(&trainer, &mut batches).unwrap().wait().unwrap();
    assert!(trainer.pipeline.text_encoder.token_embeddings().equal(&table));
    assert!(!trainer.subject.embedding.get(0).equal(&expected.get(0)));
}

#[test]
fn stage_two_trains_the_cross_attention_modules_and_not_their_norms() {
    for (name, trains) in [
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q.weight", true),
        ("mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.bias", true),
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight", false),
        ("down_blocks.0.attentions.0.transformer_blocks.0.norm2.weight", false),
        ("conv_in.weight", false),
    ] {
        assert_eq!(trainer::trains(Stage::CrossAttention, name), trains, "{name}");
        assert!(trainer::trains(Stage::Unet, name) && !trainer::trains(Stage::Embedding, name));
    }
}
