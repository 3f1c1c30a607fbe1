//! What gives NaN or infinity is an error, and never an image.

use golden::fixtures;
use sampling::{NotFinite, Origin, Pipeline, Request, Settings};
use scheduler::SchedulerKind;
use tch::{Device, Kind, Tensor};
use weights::Parameters;

fn pipeline(kind: Kind) -> Pipeline {
    Pipeline::from_folder(&fixtures().join("tiny-sd21"), (kind, Device::Cpu)).unwrap()
}

fn settings(pipeline: &Pipeline) -> Settings {
    let scheduler = Some(SchedulerKind::Ddim);
    Settings { steps: 4, height: 32, width: 32, scheduler, ..pipeline.default_settings() }
}

/// The parameter whose name ends so.
fn parameter(parameters: &Parameters, name: &str) -> Tensor {
    parameters.iter().find(|(full, _)| full.ends_with(name)).unwrap().1.shallow_clone()
}

fn fill(parameters: &Parameters, name: &str, value: f64) {
    let _ = tch::no_grad(|| parameter(parameters, name).fill_(value));
}

/// The error, and how many steps were reported before it.
fn refused(pipeline: &Pipeline, requests: &[Request], settings: &Settings) -> (NotFinite, usize) {
    let mut steps = 0;
    let error = pipeline.generate(requests, settings, &mut |_| steps += 1).unwrap_err();
    (error.downcast::<NotFinite>().unwrap(), steps)
}

fn requests() -> [Request; 2] {
    [Request::new("a cat", 3), Request::new("a dog", 4)]
}

#[test]
fn weights_that_are_nan_are_told_with_the_image_and_the_step() {
    let pipeline = pipeline(Kind::Float);
    fill(&pipeline.parameters.unet, "conv_out.bias", f64::NAN);
    let (error, steps) = refused(&pipeline, &requests(), &settings(&pipeline));
    assert_eq!((error.prompt.as_str(), error.seed), ("a cat", 3));
    assert_eq!((error.origin, steps), (Origin::Denoising { step: 1, total: 4 }, 0));
    let said = "the image of the prompt \"a cat\" (seed 3) cannot be generated: its latents are no longer finite from \
                denoising step 1 of 4 on; lower guidance_scale (--guidance-scale), or check the model's weights \
                (generate --check)";
    assert_eq!(error.to_string(), said);
}

#[test]
fn a_text_encoder_that_gives_nan_is_told() {
    let pipeline = pipeline(Kind::Float);
    fill(&pipeline.parameters.text_encoder, "final_layer_norm.weight", f64::INFINITY);
    let (error, _) = refused(&pipeline, &requests(), &settings(&pipeline));
    assert_eq!(error.origin, Origin::TextEncoder);
}

/// The text of one image alone: the other is finite, and not blamed.
#[test]
fn the_image_that_is_not_finite_is_the_one_that_is_named() {
    let pipeline = pipeline(Kind::Float);
    let dog = pipeline.tokenizer.encode("a dog").unwrap();
    let only = dog.ids[..dog.len].iter().find(|id| !pipeline.tokenizer.encode("a cat").unwrap().ids.contains(id));
    let table = parameter(&pipeline.parameters.text_encoder, "token_embedding.weight");
    let _ = tch::no_grad(|| table.get(*only.unwrap()).fill_(f64::NAN));
    let (error, _) = refused(&pipeline, &requests(), &settings(&pipeline));
    assert_eq!((error.prompt.as_str(), error.seed, error.origin), ("a dog", 4, Origin::TextEncoder));
}

#[test]
fn a_vae_alone_that_gives_nan_is_told() {
    let pipeline = pipeline(Kind::Float);
    fill(&pipeline.parameters.vae, "decoder.conv_out.bias", f64::NAN);
    let (error, steps) = refused(&pipeline, &requests(), &settings(&pipeline));
    assert_eq!((error.origin, steps), (Origin::Decoder, 4));
    assert!(error.to_string().contains("the VAE decodes") && !error.to_string().contains("--guidance-scale"));
}

/// Beyond 65504 there is no number in fp16, whose range bf16 and fp32 exceed.
#[test]
fn an_overflow_in_fp16_is_told_with_another_dtype_to_try() {
    let overflowing = |kind| {
        let pipeline = pipeline(kind);
        fill(&pipeline.parameters.vae, "decoder.conv_out.bias", 6e4);
        fill(&pipeline.parameters.vae, "decoder.conv_norm_out.weight", 6e4);
        pipeline
    };
    let half = overflowing(Kind::Half);
    let (error, _) = refused(&half, &requests(), &settings(&half));
    assert_eq!(error.origin, Origin::Decoder);
    assert!(error.to_string().contains("bf16 or fp32 instead of fp16 (--dtype)"), "{error}");
    for kind in [Kind::BFloat16, Kind::Float] {
        let pipeline = overflowing(kind);
        assert_eq!(pipeline.generate(&requests(), &settings(&pipeline), &mut |_| {}).unwrap().len(), 2);
    }
}

#[test]
fn an_absurd_guidance_scale_is_told_with_the_step() {
    let pipeline = pipeline(Kind::Float);
    // As a model that answers with enormous numbers: guidance takes them beyond f32.
    let _ = tch::no_grad(|| parameter(&pipeline.parameters.unet, "conv_out.weight").g_mul_scalar_(1e36));
    let absurd = Settings { guidance_scale: 1000.0, ..settings(&pipeline) };
    let (error, steps) = refused(&pipeline, &requests(), &absurd);
    assert!(matches!(error.origin, Origin::Denoising { step, total: 4 } if step == steps + 1), "{error}");
    assert!(error.to_string().contains("lower guidance_scale"), "{error}");
}

#[test]
fn initial_latents_that_are_nan_are_refused_before_anything() {
    let pipeline = pipeline(Kind::Float);
    let settings = settings(&pipeline);
    let latents = Tensor::full(pipeline.latents_shape(&settings), f64::NAN, (Kind::Float, Device::Cpu));
    let request = [Request { latents: Some(latents), ..Request::new("a cat", 3) }];
    let error = pipeline.generate(&request, &settings, &mut |_| panic!("a step was done")).unwrap_err().to_string();
    assert!(error.contains("\"a cat\" (seed 3)") && error.contains("not finite"), "{error}");
}
