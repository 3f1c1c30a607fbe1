//! Custom Diffusion's loop beside diffusers' `CustomDiffusionAttnProcessor`, and merging beside numpy:
//! fixtures/methods.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use clip::ClipTextModel;
use custom_diffusion::{Merger, masked_loss, text_features};
use golden::{Digest, Formula, Golden, fixtures, relative_error};
use optimizer::AdamW;
use options::MaskedLoss;
use scheduler::{ForwardProcess, SchedulerConfig, SchedulerKind};
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use tokenizer::Tokenizer;
use unet::UNet;
use vae::AutoencoderKl;
use weights::{Init, Parameters, Source};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn cases() -> Value {
    let file = fixtures().join("methods/custom_diffusion/cases.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn is_key_or_value(name: &str) -> bool {
    name.ends_with("attn2.to_k.weight") || name.ends_with("attn2.to_v.weight")
}

fn pattern(name: &str, shape: &[i64]) -> Tensor {
    Formula.fetch(name, shape, Init::Const(0.0), CPU).unwrap().to_kind(Kind::Double)
}

/// A tiny Stable Diffusion, of which the keys and values of the text are trained.
struct Model {
    tokenizer: Tokenizer,
    text_encoder: ClipTextModel,
    vae: AutoencoderKl,
    unet: UNet,
    parameters: Parameters,
    schedule: SchedulerConfig,
    inputs: Golden,
    /// Of all frozen parameters.
    _others: [Parameters; 2],
}

impl Model {
    fn load() -> Self {
        let folder = fixtures().join("tiny-sd21");
        let (text_encoder, text) = ClipTextModel::from_folder(&folder.join("text_encoder"), CPU).unwrap();
        let (vae, images) = AutoencoderKl::from_folder(&folder.join("vae"), CPU).unwrap();
        let (unet, parameters) = UNet::from_folder(&folder.join("unet"), CPU).unwrap();
        Self {
            tokenizer: Tokenizer::load(folder.join("tokenizer")).unwrap(),
            text_encoder,
            vae,
            unet,
            parameters,
            schedule: SchedulerConfig::from_file(folder.join("scheduler/scheduler_config.json")).unwrap(),
            inputs: Golden::open("methods/inputs.safetensors"),
            _others: [text, images],
        }
    }

    /// Adds tokens whose embeddings begin as those of words; returns the embeddings.
    fn add(&mut self, tokens: &[(&str, &str)]) -> Tensor {
        let rows: Vec<Tensor> = tokens
            .iter()
            .map(|(token, word)| {
                let id = self.tokenizer.encode(word).unwrap().ids[1];
                self.tokenizer.add_placeholder(token, 1).unwrap();
                self.text_encoder.token_embeddings().get(id).detach()
            })
            .collect();
        let rows = Tensor::stack(&rows, 0).set_requires_grad(true);
        self.text_encoder.set_extra_tokens(&rows).unwrap();
        rows
    }

    fn ids(&self, prompts: &[&str]) -> Tensor {
        let ids: Vec<_> = prompts.iter().map(|prompt| self.tokenizer.encode(prompt).unwrap().ids).collect();
        Tensor::from_slice2(&ids)
    }

    fn clean_latents(&self, step: i64) -> Tensor {
        let images = self.inputs.get("images").get(step);
        let images = images.repeat_interleave_self_int(8, 2, None).repeat_interleave_self_int(8, 3, None);
        let images = images.to_kind(Kind::Float) / 127.5 - 1.0;
        let noise = self.inputs.get("posterior_noise").get(step);
        tch::no_grad(|| self.vae.scale_latents(&self.vae.encode(&images).unwrap().sample(&noise).unwrap()))
    }

    /// The image's latents after ten steps of DDIM with eta 1 and the given noise, and its pixels [h, w, 3].
    fn image(&self, prompt: &str, guidance: f64) -> (Tensor, Tensor) {
        let config = self.schedule.with_eta(SchedulerKind::Ddim, 1.0).unwrap();
        let mut ddim = config.build(SchedulerKind::Ddim, 10).unwrap();
        let text = self.unet.project(&self.text_encoder.forward(&self.ids(&["", prompt])).unwrap()).unwrap();
        let mut latents = self.inputs.get("latents");
        for step in 0..10 {
            let both = Tensor::cat(&[&latents, &latents], 0);
            let timestep = Tensor::from(ddim.timesteps()[step]);
            let outputs = self.unet.forward_cached(&both, &timestep, &text, None).unwrap().chunk(2, 0);
            let output = &outputs[0] + (&outputs[1] - &outputs[0]) * guidance;
            let noise = self.inputs.get("step_noise").get(step as i64);
            latents = ddim.step(step, &output, &latents, Some(&noise)).unwrap();
        }
        let pixels = self.vae.decode(&self.vae.unscale_latents(&latents)).unwrap().get(0);
        let pixels = ((pixels / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round().permute([1, 2, 0]);
        (latents.get(0), pixels)
    }
}

/// Asserts that a measure is within its bound; prints it.
fn within(what: &str, error: f64, bound: f64) {
    println!("{what}: {error:.1e} (bound {bound:.0e})");
    assert!(error <= bound, "{what}: {error:.1e} exceeds {bound:.0e}");
}

/// The changes of parameters against their `change.*` and `total`: the worst of each, and that of all together.
fn changes<'a>(golden: &Golden, changed: impl Iterator<Item = (&'a str, Tensor)>) -> (f64, f64) {
    let (mut worst, mut total) = (0.0_f64, Digest::default());
    for (name, change) in changed {
        let digest = Digest::of(name, &change);
        worst = worst.max(digest.error(&golden.get(&format!("change.{name}"))));
        total.add(digest);
    }
    (worst, total.error(&golden.get("total")))
}

/// Takes the golden's steps.
fn follow(name: &str, divisor: MaskedLoss, tokens: &[(&str, &str)]) {
    let cases = cases();
    let case = &cases["cases"][name];
    let golden = Golden::open(&format!("methods/custom_diffusion/{name}.safetensors"));
    let mut model = Model::load();
    let embedding = model.add(tokens);
    let trained = model.parameters.train(is_key_or_value);
    let before: Vec<(&str, Tensor)> = trained.iter().map(|(name, tensor)| (*name, tensor.detach().copy())).collect();
    let all = trained.iter().copied().chain([("embedding", &embedding)]);
    let mut adamw = AdamW::new(all, &optimizer::Config::default()).unwrap();
    let forward = ForwardProcess::new(&model.schedule, Device::Cpu).unwrap();
    let prior_weight = case["prior_weight"].as_f64();
    let subjects = if prior_weight.is_some() { 2 } else { 4 };

    let mut worst = [0.0_f64; 3];
    for step in 0..5 {
        let prompts = case["prompts"][step as usize].as_array().unwrap();
        let ids = model.ids(&prompts.iter().map(|prompt| prompt.as_str().unwrap()).collect::<Vec<_>>());
        assert!(ids.equal(&golden.get("prompt_ids").get(step)), "step {step}");
        let [noise, timesteps, masks] = ["noise", "timesteps", "masks"].map(|name| model.inputs.get(name).get(step));
        let clean = model.clean_latents(step);
        let noisy = forward.add_noise(&clean, &noise, &timesteps).unwrap();
        let text = model.unet.project(&model.text_encoder.forward(&ids).unwrap()).unwrap().with_first_detached();
        let prediction = model.unet.forward_cached(&noisy, &timesteps, &text, None).unwrap();
        let squares = (prediction - noise).square();
        let subject = masked_loss(&squares.narrow(0, 0, subjects), &masks.narrow(0, 0, subjects), divisor).unwrap();
        let mut terms = vec![subject.mean(Kind::Float)];
        let loss = match prior_weight {
            Some(weight) => {
                terms.push(squares.narrow(0, subjects, 4 - subjects).mean(Kind::Float));
                &terms[0] + &terms[1] * weight
            }
            None => terms[0].shallow_clone(),
        };
        adamw.zero_grad().unwrap();
        loss.backward();
        let norm = adamw.clip_grad_norm(case["max_grad_norm"].as_f64().unwrap()).unwrap().double_value(&[]);
        adamw.step(cases["learning_rate"].as_f64().unwrap()).unwrap();

        let losses = Vec::<f64>::try_from(golden.get("losses").get(step)).unwrap();
        assert_eq!(losses.len(), terms.len());
        for (ours, theirs) in terms.iter().zip(losses) {
            worst[0] = worst[0].max((ours.double_value(&[]) / theirs - 1.0).abs());
        }
        worst[1] = worst[1].max((norm / golden.get("gradient_norms").double_value(&[step]) - 1.0).abs());
        worst[2] = worst[2].max(relative_error(&embedding, &golden.get("embedding").get(step)));
    }
    within(&format!("{name} losses"), worst[0], 2e-6);
    within(&format!("{name} gradient norms"), worst[1], 5e-6);
    within(&format!("{name} embedding"), worst[2], 2e-6);
    let changed = before.iter().map(|(name, before)| {
        (*name, model.parameters.get(name).unwrap().detach().to_kind(Kind::Double) - before.to_kind(Kind::Double))
    });
    let (each, total) = changes(&golden, changed);
    // AdamW divides a gradient by its own size, so that numbers whose gradients are as small as rounding turn either way: with
    // another number of threads or other instructions the same steps change one matrix of a thousand by up to 3e-5 otherwise.
    within(&format!("{name} change"), each, 1e-4);
    within(&format!("{name} total"), total, 2e-6);
    for whole in golden.names().filter_map(|name| name.strip_prefix("whole.")) {
        let ours = model.parameters.get(whole).unwrap();
        within(&format!("{name} {whole}"), relative_error(ours, &golden.get(&format!("whole.{whole}"))), 1e-5);
    }
    let prompt = case["image_prompt"].as_str().unwrap();
    let (latents, pixels) = tch::no_grad(|| {
        let states = model.text_encoder.forward(&model.ids(&[prompt])).unwrap().get(0).narrow(0, 0, 12);
        within(&format!("{name} text"), relative_error(&states, &golden.get("text_hidden_states")), 1e-5);
        model.image(prompt, cases["guidance_scale"].as_f64().unwrap())
    });
    within(&format!("{name} image's latents"), relative_error(&latents, &golden.get("image_latents")), 1e-5);
    let difference = (pixels - golden.get("image").to_kind(Kind::Float)).abs().max().double_value(&[]);
    within(&format!("{name} image"), difference, 1.0);
    if name == "reference" {
        let saved = Golden::open("methods/custom_diffusion/reference_weights.safetensors");
        for key in saved.names() {
            let ours = key.replace(".processor.", ".").replace("_custom_diffusion", "");
            saved.assert_close(key, model.parameters.get(&ours).unwrap(), 1e-5);
        }
    }
}

#[test]
fn the_reference_loss_learns_what_diffusers_learns() {
    follow("reference", MaskedLoss::Reference, &[("<new>", "ball")]);
}

#[test]
fn a_mean_over_the_mask_does_so_too() {
    follow("normalised", MaskedLoss::Mean, &[("<new>", "ball")]);
}

#[test]
fn and_without_a_prior() {
    follow("no_prior", MaskedLoss::Mean, &[("<new>", "ball")]);
}

#[test]
fn two_subjects_are_learned_in_one_run() {
    follow("joint", MaskedLoss::Mean, &[("<new1>", "ball"), ("<new2>", "book")]);
}

#[test]
fn merged_runs_are_numpys() {
    let golden = Golden::open("methods/custom_diffusion/merge.safetensors");
    let model = Model::load();
    // Half of the rows belong to each of the two subjects.
    let targets = golden.get("targets").chunk(2, 0);
    let merger = Merger::new(&[&targets[0], &targets[1]], &golden.get("retention")).unwrap();
    let merged: Vec<(&str, Tensor)> = model
        .parameters
        .iter()
        .filter(|(name, _)| is_key_or_value(name))
        .map(|(name, base)| {
            let base = base.to_kind(Kind::Double);
            let run = |number| &base + pattern(&format!("{name}.run{number}"), &base.size()) * 0.05;
            (name, merger.merge(&base, &[&run(1), &run(2)]).unwrap())
        })
        .collect();
    let changed = merged.iter().map(|(name, weight)| (*name, weight - model.parameters.get(name).unwrap()));
    let (each, total) = changes(&golden, changed);
    within("merged change", each, 1e-9);
    within("merged total", total, 1e-9);
    for (name, weight) in &merged {
        let key = format!("merged.{name}");
        if golden.names().any(|name| name == key) {
            golden.assert_close(&key, weight, 1e-7);
        }
    }
}

/// The captions' features by this project's text encoder, of both runs' tokens.
#[test]
fn text_features_are_those_of_the_merged_runs() {
    let golden = Golden::open("methods/custom_diffusion/merge.safetensors");
    let cases = cases();
    let mut model = Model::load();
    let tokens: Vec<(&str, &str)> = cases["merge"]["tokens"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(token, category)| (token.as_str(), category.as_str().unwrap()))
        .collect();
    let _ = model.add(&tokens);
    let rows = ["embedding.1", "embedding.2"].map(|name| golden.get(name));
    model.text_encoder.set_extra_tokens(&Tensor::stack(&rows, 0)).unwrap();
    let features = |caption: &str, skip| {
        let ids = model.tokenizer.encode(caption).unwrap().ids;
        let states = model.text_encoder.forward(&Tensor::from_slice(&ids).unsqueeze(0)).unwrap().get(0);
        text_features(&states, &ids, model.tokenizer.eos_id(), skip).unwrap()
    };
    let captions = |(token, category): &(&str, &str)| {
        [(format!("{token} {category}"), 1), (format!("photo of a {token} {category}"), 4)]
    };
    let targets: Vec<Tensor> = tokens.iter().flat_map(captions).map(|(text, skip)| features(&text, skip)).collect();
    golden.assert_close("targets", &Tensor::cat(&targets, 0), 1e-5);
    let retention = cases["merge"]["retention_captions"].as_array().unwrap();
    let retention: Vec<Tensor> = retention.iter().map(|text| features(text.as_str().unwrap(), 1)).collect();
    golden.assert_close("retention", &Tensor::cat(&retention, 0), 1e-5);
}

/// fixtures/methods/counts.json: keys, values and one embedding of Stable Diffusion's own geometry.
#[test]
fn as_many_numbers_are_trained_as_the_paper_says() {
    let counts: Value =
        serde_json::from_slice(&std::fs::read(fixtures().join("methods/counts.json")).unwrap()).unwrap();
    for (name, config) in [("sd21", unet::Config::sd21()), ("sd15", unet::Config::sd15())] {
        let (_, parameters) = weights::build(&golden::Hollow, CPU, |vs| UNet::new(vs, &config)).unwrap();
        let trained = parameters.iter().filter(|(name, _)| is_key_or_value(name));
        let count: usize = trained.map(|(_, tensor)| tensor.numel()).sum();
        let embedding = config.cross_attention_dim as u64;
        assert_eq!(counts[name]["textual-inversion"].as_u64(), Some(embedding));
        assert_eq!(counts[name]["custom-diffusion"].as_u64(), Some(count as u64 + embedding), "{name}");
    }
}
