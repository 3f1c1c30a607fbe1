//! SDXL: two text encoders, pooled text, sizes.

use golden::{Formula, Golden, fixtures};
use sampling::{Pipeline, PromptEmbeds, Request, Settings, SizeConditioning};
use scheduler::SchedulerKind;
use tch::{Device, Kind, Tensor};
use weights::{Init, Source};

use crate::diffusers::assert_alike;

const PROMPTS: [&str; 2] = ["a photo of a cat", "an oil painting of two dogs on the beach"];
const SUBJECT: &str = "a photo of a <new> cat";

fn pipeline() -> Pipeline {
    Pipeline::from_folder(&fixtures().join("tiny-sdxl"), (Kind::Float, Device::Cpu)).unwrap()
}

#[test]
fn images_are_those_of_diffusers() {
    let (pipeline, reference) = (pipeline(), Golden::open("pipelines/sdxl.safetensors"));
    // diffusers' default.
    let own = Settings { guidance_scale: 5.0, ..pipeline.default_settings() };
    let alike = |what: &str, requests: &[Request], settings: &Settings| {
        assert_alike(what, &pipeline.generate(requests, settings, &mut |_| {}).unwrap(), &reference);
    };
    for kind in SchedulerKind::ALL {
        let settings = Settings { height: 64, width: 64, scheduler: Some(kind), ..own.clone() };
        let mut requests = [Request::new(PROMPTS[0], 11), Request::new(PROMPTS[1], 12)];
        requests.iter_mut().for_each(|request| request.negative_prompt = "blurry".to_owned());
        alike(&format!("seeds.{kind}"), &requests, &Settings { steps: 10, ..settings.clone() });
        // Without a negative prompt, which here means zeros.
        let latents = Some(reference.get("latents").get(0));
        let request = Request { latents, ..Request::new(PROMPTS[0], 5) };
        alike(&format!("latents.{kind}"), &[request], &Settings { steps: 25, guidance_scale: 3.0, ..settings });
    }
    let unguided = Settings { steps: 4, guidance_scale: 1.0, height: 40, width: 72, ..own.clone() };
    alike("unguided", &[Request::new(PROMPTS[1], 3)], &unguided);
    let wide = Settings { steps: 6, height: 64, width: 104, ..own.clone() };
    alike("wide", &[Request::new(PROMPTS[0], 3), Request::new(PROMPTS[1], 4)], &wide);
    alike("default", &[Request::new(PROMPTS[0], 0)], &own);
}

/// Procedural numbers, as `fill.values(name, (count,))` of the generator.
fn values(name: &str, shape: &[i64]) -> Tensor {
    let count = shape.iter().product();
    Formula.fetch(name, &[count], Init::Const(0.0), (Kind::Float, Device::Cpu)).unwrap().view(shape)
}

/// The added token's row of both text encoders together.
fn row(reference: &Golden) -> Tensor {
    Tensor::cat(&[reference.get("clip_l"), reference.get("clip_g")], 0).unsqueeze(0)
}

/// How far two tensors are from each other, as a share of the second one's largest number.
fn distance(actual: &Tensor, expected: &Tensor) -> f64 {
    ((actual - expected).abs().max() / expected.abs().max()).double_value(&[])
}

#[test]
fn what_the_unet_reads_of_prompts_and_its_gradients_are_transformers() {
    let reference = Golden::open("pipelines/sdxl-text.safetensors");
    let mut pipeline = pipeline();
    let rows = row(&reference).set_requires_grad(true);
    pipeline.add_placeholder("<new>", &rows).unwrap();
    let encoders = || pipeline.parameters.all().filter(|(name, _)| name.starts_with("text_encoder"));
    encoders().for_each(|(_, parameters)| drop(parameters.train(|_| true)));

    let PromptEmbeds { hidden_states, pooled } = pipeline.prompt_embeds(&[SUBJECT, PROMPTS[1]], Kind::Float).unwrap();
    let pooled = pooled.unwrap();
    let mut loss = Tensor::from(0f32);
    for (i, (name, found)) in [("prompt_embeds", &hidden_states), ("pooled_prompt_embeds", &pooled)].iter().enumerate()
    {
        let error = distance(found, &reference.get(name));
        assert!(error < 1e-5, "{name}: {error}");
        let weights = values(&format!("sdxl.weights.{i}"), &found.size());
        loss += (*found * weights).sum(Kind::Float);
    }
    loss.backward();

    let grad = rows.grad().squeeze_dim(0);
    let error = distance(&grad, &Tensor::cat(&[reference.get("grad.clip_l"), reference.get("grad.clip_g")], 0));
    assert!(error < 1e-5, "the token's gradient: {error}");
    for ((_, parameters), name) in encoders().zip(["clip_l", "clip_g"]) {
        let mut named: Vec<(&str, &Tensor)> = parameters.iter().filter(|(_, tensor)| tensor.grad().defined()).collect();
        named.sort_unstable_by_key(|(name, _)| *name);
        let norms: Vec<Tensor> = named.iter().map(|(_, tensor)| tensor.grad().norm()).collect();
        let projections: Vec<Tensor> = named
            .iter()
            .map(|(name, tensor)| {
                let grad = tensor.grad().flatten(0, -1);
                (&grad * values(&format!("direction.{name}"), &[grad.numel() as i64])).sum(Kind::Float)
            })
            .collect();
        for (what, found) in [("norms", norms), ("projections", projections)] {
            let error = distance(&Tensor::stack(&found, 0), &reference.get(&format!("{what}.{name}")));
            assert!(error < 1e-5, "{what} of {name}: {error}");
        }
    }
}

#[test]
fn an_image_depends_on_its_prompt_its_token_and_its_sizes_but_not_on_its_batch() {
    let mut pipeline = pipeline();
    let width = pipeline.token_width();
    pipeline.add_placeholder("<new>", &(values("row", &[2, width]) * 10.0)).unwrap();
    let settings = Settings { steps: 3, height: 64, width: 64, ..pipeline.default_settings() };
    let request = |prompt: &str| Request::new(prompt, 1);
    let of = |requests: &[Request]| pipeline.generate(requests, &settings, &mut |_| {}).unwrap();
    let both = of(&[request("a [V] dog"), request("a dog")]);
    for (i, prompt) in ["a [V] dog", "a dog"].iter().enumerate() {
        let alone = of(&[request(prompt)]);
        let worst = alone[0].as_raw().iter().zip(both[i].as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(worst <= 1, "image {i} differs by {worst}");
    }
    assert_ne!(both[0], both[1]);

    let embeds = tch::no_grad(|| pipeline.prompt_embeds(&["a dog"], Kind::Float)).unwrap();
    let (sample, timestep) = (values("sample", &[2, 4, 8, 8]) * 10.0, Tensor::from(500i64));
    let predict = |sizes: &[SizeConditioning]| {
        let text = pipeline.project(&embeds, sizes).unwrap();
        tch::no_grad(|| pipeline.unet.forward_cached(&sample, &timestep, &text, None)).unwrap()
    };
    let (whole, cropped) =
        (SizeConditioning::whole(64, 64), SizeConditioning { original: [300, 200], crop: [7, 0], target: [64, 64] });
    let (one, each) = (predict(&[whole]), predict(&[whole, cropped]));
    assert!(distance(&each.get(0), &one.get(0)) < 1e-5);
    assert!(distance(&each.get(1), &one.get(1)) > 1e-3);
    assert!(pipeline.project(&embeds, &[]).is_err());
}

#[test]
fn half_precision_decodes_in_single() {
    let folder = fixtures().join("tiny-sdxl");
    let mut pipeline = Pipeline::from_folder(&folder, (Kind::Float, Device::Cpu)).unwrap();
    let latents = values("latents", &[1, 4, 8, 8]) * 10.0;
    let requests = [Request::new("", 0)];
    let single = pipeline.decode(&requests, &latents).unwrap();
    pipeline.set_compute_dtype(Kind::Half);
    assert_eq!(pipeline.decode(&requests, &latents).unwrap(), single);
    pipeline.set_compute_dtype(Kind::BFloat16);
    assert_ne!(pipeline.decode(&requests, &latents).unwrap(), single);
}
