//! Step by step what the loops in `fixtures/methods/lora` and `oft` do with peft, from the same crops, noise and
//! timesteps.

use adapters::Adapters;
use golden::{Golden, assert_close, relative_error};
use options::{Adapter, LoraTargets};
use regularizer::{AttentionRegularizer, Config};
use tch::{Kind, Reduction, Tensor};
use unet::AttentionObserver;

use crate::common::{Loop, check_change, formula, number};

const BOUND: f64 = 1e-4;

/// What a case of `fixtures/methods/lora` is, as its cases.json has it.
struct Lora {
    name: &'static str,
    model: &'static str,
    adapter: Adapter,
    prompt: &'static str,
    max_grad_norm: f64,
    regularizer: Option<(f64, f64)>,
}

fn lora(rank: u32, alpha: f64, targets: LoraTargets) -> Adapter {
    Adapter::Lora { rank, alpha: Some(alpha), targets }
}

/// W' - W of each layer with an adapter.
fn changes(adapters: &Adapters, scale: f64) -> Vec<(String, Tensor)> {
    let parameters = adapters.parameters();
    let pairs = parameters.chunks_exact(2).map(|pair| {
        let name = pair[0].0.replace(".lora_A.weight", ".weight");
        let factors = pair.iter().map(|(_, tensor)| tensor.detach().to_kind(Kind::Double)).collect::<Vec<_>>();
        (name, factors[1].matmul(&factors[0]) * scale)
    });
    pairs.collect()
}

fn follow(case: &Lora) -> (Loop, Adapters) {
    let golden = Golden::open(&format!("methods/lora/{}.safetensors", case.name));
    let mut run = Loop::load(case.model);
    if case.regularizer.is_some() {
        run.add_placeholder("ball");
    }
    let ids = run.ids(&[case.prompt]);
    assert_eq!(ids.get(0), golden.get("prompt_ids"));
    let adapters = Adapters::install(&mut run.pipeline.unet, &case.adapter, 1).unwrap();
    for (name, parameter) in adapters.parameters().iter().filter(|(name, _)| name.ends_with("lora_A.weight")) {
        let start = formula(name.strip_suffix(".weight").unwrap(), &parameter.size());
        tch::no_grad(|| parameter.shallow_clone().copy_(&start));
    }
    let text = run.encode(&ids);
    let position = run.placeholder_position(&ids);
    let mut optimizer = run.optimizer(&adapters);
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for step in 0..Loop::STEPS {
        let (noisy, timesteps, noise) = run.batch(step);
        let mut watch = case.regularizer.map(|(lambda_mean, lambda_variance)| {
            let config = Config { lambda_mean, lambda_variance, ..Config::default() };
            AttentionRegularizer::new(&config, &[position.unwrap()], &[position.unwrap() + 1]).unwrap()
        });
        let observer = watch.as_mut().map(|watch| watch as &mut dyn AttentionObserver);
        let prediction = run.pipeline.unet.forward(&noisy, &timesteps, &text, observer).unwrap();
        let mut terms = vec![prediction.mse_loss(&noise, Reduction::Mean)];
        terms.extend(watch.map(|mut watch| watch.finish().unwrap().loss));
        terms.iter().map(Tensor::shallow_clone).sum::<Tensor>().backward();
        norms.push(number(&optimizer.clip_grad_norm(case.max_grad_norm).unwrap()));
        optimizer.step(Loop::lora_rate()).unwrap();
        optimizer.zero_grad().unwrap();
        losses.extend(terms.iter().map(number));
    }
    let losses = Tensor::from_slice(&losses).view([Loop::STEPS, -1]);
    golden.assert_close("losses", &losses, BOUND);
    golden.assert_close("gradient_norms", &Tensor::from_slice(&norms), BOUND);
    let Adapter::Lora { rank, alpha: Some(alpha), .. } = case.adapter else { panic!("{:?}", case.adapter) };
    let changes = changes(&adapters, alpha / f64::from(rank));
    // A convolution's pattern is that of its four-dimensional weight: as many numbers a row.
    check_change(&golden, &changes, BOUND);
    for (name, parameter) in adapters.parameters() {
        let key = format!("whole.{}", name.strip_suffix(".weight").unwrap());
        if golden.names().any(|name| name == key) {
            golden.assert_close(&key, &parameter, BOUND);
        }
    }
    let image = run.image(case.prompt);
    golden.assert_close("image_latents", &image.latents, BOUND);
    if golden.names().any(|name| name == "image") {
        image.assert_equal(&golden.get("image"));
    }
    run.pipeline.unet.merge_adapters();
    assert_close("merged", &run.image(case.prompt).latents, &image.latents, 1e-5);
    (run, adapters)
}

#[test]
fn lora_of_attention_equals_pefts() {
    let adapter = lora(2, 2.0, LoraTargets::Attention);
    let (model, prompt) = ("tiny-sd21", "a photo of sks ball");
    let case = Lora { name: "attention", model, adapter, prompt, max_grad_norm: 0.035, regularizer: None };
    let (_, adapters) = follow(&case);
    // What it learned, as diffusers wrote it; single numbers whose gradient nearly vanishes go where rounding leads
    // them.
    let file = Golden::open("methods/lora/attention_diffusers.safetensors");
    assert_eq!(adapters.parameters().len(), file.names().count());
    for (name, parameter) in adapters.parameters() {
        let key = name.replace("lora_A", "lora.down").replace("lora_B", "lora.up");
        file.assert_close(&format!("unet.{key}"), &parameter, 2e-3);
    }
}

#[test]
fn lora_of_kohyas_targets_equals_pefts() {
    let adapter = lora(1, 0.5, LoraTargets::Kohya);
    let (model, prompt) = ("tiny-sd15", "a photo of sks ball");
    let case = Lora { name: "kohya", model, adapter, prompt, max_grad_norm: 0.06, regularizer: None };
    let (_, adapters) = follow(&case);
    let file = Golden::open("methods/lora/kohya_kohya.safetensors");
    assert_eq!(adapters.parameters().len() * 3, file.names().count() * 2);
    for (name, parameter) in adapters.parameters() {
        let (layer, part) = name.rsplit_once(".lora_").unwrap();
        let part = if part == "A.weight" { "lora_down" } else { "lora_up" };
        let expected = file.get(&format!("lora_unet_{}.{part}.weight", layer.replace('.', "_")));
        assert_close(&name, &parameter, &expected.flatten(1, -1), 2e-3);
    }
}

#[test]
fn attndreambooths_loss_with_an_adapter_equals_the_python_loop() {
    let adapter = lora(2, 2.0, LoraTargets::Attention);
    let (name, model, prompt) = ("attndreambooth", "tiny-sd21", "a photo of a <new> ball");
    let regularizer = Some((2e4, 5e4));
    follow(&Lora { name, model, adapter, prompt, max_grad_norm: f64::INFINITY, regularizer });
}

fn follow_rotation(name: &str, model: &str, constraint: Option<f64>) {
    let golden = Golden::open(&format!("methods/oft/{name}.safetensors"));
    let mut run = Loop::load(model);
    run.add_placeholder("photo");
    let ids = run.ids(&["a photo of <new> ball", "a photo of a ball"]);
    assert_eq!(ids, golden.get("prompt_ids"));
    let adapters = Adapters::install(&mut run.pipeline.unet, &Adapter::Oft { blocks: 4, constraint }, 1).unwrap();
    let text = run.encode(&ids).repeat_interleave_self_int(2, 0, None);
    let mut optimizer = run.optimizer(&adapters);
    let (mut losses, mut norms, mut projected) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..Loop::STEPS {
        let parameters = adapters.parameters();
        let before: Vec<Tensor> = parameters.iter().map(|(_, tensor)| tensor.detach().copy()).collect();
        adapters.project().unwrap();
        let shortened = parameters.iter().zip(&before).map(|((_, after), before)| {
            // By more than rounding.
            let length = |xs: &Tensor| xs.detach().norm_scalaropt_dim(2, [1i64].as_slice(), false);
            length(after).lt_tensor(&(length(before) * (1.0 - 1e-6))).sum(Kind::Int64).int64_value(&[])
        });
        projected.push(shortened.sum::<i64>());
        let (noisy, timesteps, noise) = run.batch(step);
        let prediction = run.pipeline.unet.forward(&noisy, &timesteps, &text, None).unwrap();
        let terms = [0, 2].map(|at| prediction.narrow(0, at, 2).mse_loss(&noise.narrow(0, at, 2), Reduction::Mean));
        (&terms[0] + &terms[1]).backward();
        norms.push(number(&optimizer.clip_grad_norm(0.08).unwrap()));
        optimizer.step(2e-2).unwrap();
        optimizer.zero_grad().unwrap();
        losses.extend(terms.iter().map(number));
    }
    adapters.project().unwrap();
    golden.assert_close("losses", &Tensor::from_slice(&losses).view([-1, 2]), BOUND);
    golden.assert_close("gradient_norms", &Tensor::from_slice(&norms), BOUND);
    if constraint.is_some() {
        assert_eq!(Tensor::from_slice(&projected), golden.get("projected"));
    }
    let image = run.image("a photo of <new> ball");
    golden.assert_close("image_latents", &image.latents, BOUND);
    image.assert_equal(&golden.get("image"));
    if model == "tiny-sd21" {
        let file = Golden::open(&format!("methods/oft/{name}/adapter_model.safetensors"));
        for (name, parameter) in adapters.parameters() {
            file.assert_close(&format!("base_model.model.{name}"), &parameter, 2e-3);
        }
    }
    let weights = &run.pipeline.parameters.unet;
    let before: Vec<(String, Tensor)> = weights.iter().map(|(name, weight)| (name.to_owned(), weight.copy())).collect();
    run.pipeline.unet.merge_adapters();
    let weights = &run.pipeline.parameters.unet;
    let changed = before.iter().filter_map(|(name, before)| {
        let change = weights.get(name).unwrap().to_kind(Kind::Double) - before.to_kind(Kind::Double);
        change.abs().max().is_nonzero().then(|| (name.clone(), change))
    });
    check_change(&golden, &changed.collect::<Vec<_>>(), BOUND);
    for key in golden.names().filter(|name| name.starts_with("merged.")) {
        golden.assert_close(key, weights.get(&key["merged.".len()..]).unwrap(), BOUND);
    }
    let again = relative_error(&run.image("a photo of <new> ball").latents, &image.latents);
    assert!(again < 1e-4, "merged weights generate another image: {again}");
}

#[test]
fn oft_equals_pefts() {
    follow_rotation("oft", "tiny-sd21", None);
    follow_rotation("sd15", "tiny-sd15", None);
}

#[test]
fn coft_equals_pefts() {
    follow_rotation("coft", "tiny-sd21", Some(8e-3));
}
