//! The loop of `fixtures/methods/common.py`.
#![allow(dead_code, reason = "each test uses some of it")]

use adapters::Adapters;
use golden::{Digest, Formula, Golden, fixtures};
use optimizer::AdamW;
use options::SchedulerKind;
use sampling::{Pipeline, Request, Settings};
use tch::{Device, Kind, Tensor};
use weights::{Init, Source};

pub(crate) const F32: (Kind, Device) = (Kind::Float, Device::Cpu);
const PLACEHOLDER: &str = "<new>";

/// A tiny Stable Diffusion, frozen, and what each step is given.
pub(crate) struct Loop {
    pub(crate) pipeline: Pipeline,
    inputs: Golden,
    placeholder: Option<i64>,
}

pub(crate) struct Image {
    /// [channels, h, w].
    pub(crate) latents: Tensor,
    /// [height, width, 3], of 0 to 255.
    pixels: Tensor,
}

impl Loop {
    pub(crate) const STEPS: i64 = 5;

    pub(crate) fn load(model: &str) -> Self {
        let pipeline = Pipeline::from_folder(&fixtures().join(model), F32).unwrap();
        pipeline.parameters.unet.train(|_| false);
        Self { pipeline, inputs: Golden::open("methods/inputs.safetensors"), placeholder: None }
    }

    pub(crate) fn lora_rate() -> f64 {
        1e-2
    }

    /// Adds `<new>` with the row of a word.
    pub(crate) fn add_placeholder(&mut self, word: &str) {
        let id = self.pipeline.tokenizer.encode(word).unwrap().ids[1];
        let row = self.pipeline.text_encoder.token_embeddings().get(id).unsqueeze(0).copy();
        self.placeholder = Some(self.pipeline.tokenizer.embedding_rows());
        self.pipeline.add_placeholder(PLACEHOLDER, &row).unwrap();
    }

    /// [prompts, 77].
    pub(crate) fn ids(&self, prompts: &[&str]) -> Tensor {
        let ids = prompts.iter().map(|prompt| {
            let prompt = self.pipeline.resolve(prompt).unwrap();
            self.pipeline.tokenizer.encode(&prompt).unwrap().ids
        });
        Tensor::from_slice2(&ids.collect::<Vec<_>>())
    }

    pub(crate) fn placeholder_position(&self, ids: &Tensor) -> Option<i64> {
        self.placeholder.map(|id| ids.get(0).eq(id).nonzero().int64_value(&[0, 0]))
    }

    pub(crate) fn encode(&self, ids: &Tensor) -> Tensor {
        tch::no_grad(|| self.pipeline.text_encoder.forward(ids).unwrap())
    }

    /// Noisy latents, timesteps, noise.
    pub(crate) fn batch(&self, step: i64) -> (Tensor, Tensor, Tensor) {
        let [images, posterior_noise, noise, timesteps] =
            ["images", "posterior_noise", "noise", "timesteps"].map(|name| self.inputs.get(name).get(step));
        let images = images.to_kind(Kind::Float) / 127.5 - 1.0;
        let images = images.repeat_interleave_self_int(8, 2, None).repeat_interleave_self_int(8, 3, None);
        let vae = &self.pipeline.vae;
        let latents =
            tch::no_grad(|| vae.scale_latents(&vae.encode(&images).unwrap().sample(&posterior_noise).unwrap()));
        // As `DDPMScheduler.add_noise`.
        let betas = Tensor::linspace(0.00085f64.sqrt(), 0.012f64.sqrt(), 1000, F32).square();
        let alphas =
            (betas.ones_like() - betas).cumprod(0, Kind::Float).index_select(0, &timesteps).view([-1, 1, 1, 1]);
        let noisy = latents * alphas.sqrt() + &noise * (alphas.ones_like() - &alphas).sqrt();
        (noisy, timesteps, noise)
    }

    pub(crate) fn optimizer(&self, adapters: &Adapters) -> AdamW {
        let parameters = adapters.parameters();
        AdamW::new(parameters.iter().map(|(name, tensor)| (name.as_str(), tensor)), &optimizer::Config::default())
            .unwrap()
    }

    pub(crate) fn image(&self, prompt: &str) -> Image {
        let request = Request { latents: Some(self.inputs.get("latents").get(0)), ..Request::new(prompt, 0) };
        let settings = Settings {
            steps: 10,
            guidance_scale: 7.5,
            height: 64,
            width: 64,
            scheduler: Some(SchedulerKind::DpmSolverPlusPlus),
            eta: None,
        };
        let requests = [request];
        let latents = self.pipeline.denoise(&requests, &settings, &mut |_| ()).unwrap();
        let image = self.pipeline.decode(&requests, &latents).unwrap().remove(0);
        let pixels = Tensor::from_slice(image.as_raw()).view([64, 64, 3]);
        Image { latents: latents.get(0), pixels }
    }
}

impl Image {
    pub(crate) fn pixels(&self) -> Tensor {
        self.pixels.shallow_clone()
    }

    /// But for one of 255.
    pub(crate) fn assert_equal(&self, expected: &Tensor) {
        let largest = (self.pixels.to_kind(Kind::Int) - expected.to_kind(Kind::Int)).abs().max().int64_value(&[]);
        assert!(largest <= 1, "images differ by {largest} of 255");
    }
}

pub(crate) fn number(tensor: &Tensor) -> f64 {
    tensor.double_value(&[])
}

pub(crate) fn formula(name: &str, shape: &[i64]) -> Tensor {
    Formula.fetch(name, shape, Init::Const(0.0), F32).unwrap()
}

/// Compares the changes of parameters with the digests `change.NAME` of some and `total` of all, relative to the norms.
pub(crate) fn check_change(golden: &Golden, changes: &[(String, Tensor)], bound: f64) {
    let (mut compared, mut total) = (0, Digest::default());
    let compare = |name: &str, digest: Digest| {
        let error = digest.error(&golden.get(name));
        assert!(error <= bound, "{name}: relative error {error:.1e}");
    };
    for (name, change) in changes {
        let digest = Digest::of(name, change);
        total.add(digest);
        let key = format!("change.{name}");
        if golden.names().any(|name| name == key) {
            compare(&key, digest);
            compared += 1;
        }
    }
    compare("total", total);
    assert_eq!(golden.names().filter(|name| name.starts_with("change.")).count(), compared);
}
