//! Losses and gradients against a literal reading of the authors' code in Python, and against finite differences.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;

use golden::{Formula, Golden, assert_close, fixtures};
use regularizer::{AttentionRegularizer, Category, Config};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use unet::{AttentionObserver, CrossAttentionLayer, UNet};
use weights::{Init, Source};

/// fixtures/regularizer/cases.json
#[derive(Deserialize)]
struct Cases {
    maps: BTreeMap<String, Case>,
    unet: BTreeMap<String, Case>,
}

#[derive(Deserialize)]
struct Case {
    placeholder: Vec<i64>,
    category: Vec<i64>,
    #[serde(default)]
    category_tokens: Category,
    #[serde(default)]
    mode: regularizer::Mode,
    #[serde(default)]
    batch: regularizer::Batch,
    lambda_mean: f64,
    lambda_variance: f64,
}

impl Case {
    fn regularizer(&self) -> AttentionRegularizer {
        let &Self { mode, batch, category_tokens: category, lambda_mean, lambda_variance, .. } = self;
        let config = Config { mode, batch, category, lambda_mean, lambda_variance };
        AttentionRegularizer::new(&config, &self.placeholder, &self.category).unwrap()
    }

    /// The loss of whole maps [batch, all tokens, heads, pixels], shown as the U-Net does.
    fn loss(&self, maps: &[Tensor]) -> Tensor {
        let mut regularizer = self.regularizer();
        let tokens = Tensor::from_slice(regularizer.tokens());
        for (index, map) in maps.iter().enumerate() {
            let (name, size) = (format!("layer {index}"), map.size());
            let layer = CrossAttentionLayer { name: &name, index, heads: size[2], height: 1, width: size[3] };
            regularizer.observe(&layer, &map.index_select(1, &tokens));
        }
        regularizer.finish().unwrap().loss
    }
}

fn cases() -> Cases {
    serde_json::from_str(&fs::read_to_string(fixtures().join("regularizer/cases.json")).unwrap()).unwrap()
}

fn leaves(golden: &Golden, kind: Kind) -> Vec<Tensor> {
    (0..4).map(|i| golden.get(&format!("map.{i}")).to_kind(kind).copy().set_requires_grad(true)).collect()
}

#[test]
fn losses_and_gradients_equal_pythons() {
    let golden = Golden::open("regularizer/maps.safetensors");
    for (kind, tolerance) in [(Kind::Double, 1e-7), (Kind::Float, 1e-6)] {
        for (name, case) in cases().maps {
            let maps = leaves(&golden, kind);
            let loss = case.loss(&maps);
            golden.assert_close(&format!("{name}.loss"), &loss, tolerance);
            loss.backward();
            for (i, map) in maps.iter().enumerate() {
                golden.assert_close(&format!("{name}.gradient.{i}"), &map.grad(), tolerance);
            }
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let golden = Golden::open("regularizer/maps.safetensors");
    for (name, case) in cases().maps {
        let maps = leaves(&golden, Kind::Double);
        case.loss(&maps).backward();
        let direction: Vec<Tensor> = maps.iter().map(|map| map.grad() / map.grad().norm()).collect();
        let moved = |by: f64| {
            let maps: Vec<Tensor> = maps.iter().zip(&direction).map(|(map, d)| map.detach() + d * by).collect();
            case.loss(&maps).double_value(&[])
        };
        let h = 1e-4;
        // Of the fourth order; the loss is a polynomial of the fourth degree, so this is exact but for rounding.
        let measured = (8.0 * (moved(h) - moved(-h)) - (moved(2.0 * h) - moved(-2.0 * h))) / (12.0 * h);
        let expected: f64 = maps.iter().map(|map| map.grad().norm().double_value(&[])).sum();
        assert!((measured / expected - 1.0).abs() < 1e-8, "{name}: {measured} but {expected}");
    }
}

/// Numbers of mean 0 and variance 1, as `uniform` in generate.py.
fn uniform(name: &str, shape: &[i64]) -> Tensor {
    let count = shape.iter().product();
    let to = (Kind::Float, Device::Cpu);
    (Formula.fetch(name, &[count], Init::Const(0.0), to).unwrap() * (10.0 * 3f64.sqrt())).reshape(shape)
}

#[test]
fn a_unet_is_regularised_as_by_diffusers() {
    let golden = Golden::open("regularizer/unet.safetensors");
    let folder = fixtures().join("tiny-sd21/unet");
    for (name, case) in cases().unet {
        let (unet, parameters) = UNet::from_folder(&folder, (Kind::Double, Device::Cpu)).unwrap();
        parameters.train(|_| true);
        let latents = uniform("latents", &[2, 4, 16, 16]).to_kind(Kind::Double);
        let text = uniform("text", &[2, 77, 32]).to_kind(Kind::Double).set_requires_grad(true);
        let mut regularizer = case.regularizer();
        let _noise = unet.forward(&latents, &Tensor::from_slice(&[981i64, 20]), &text, Some(&mut regularizer)).unwrap();
        let regularization = regularizer.finish().unwrap();
        golden.assert_close(&format!("{name}.loss"), &regularization.loss, 1e-6);

        regularization.loss.backward();
        golden.assert_close(&format!("{name}.text"), &text.grad(), 1e-6);
        let prefix = format!("{name}.");
        let compared =
            golden.names().filter_map(|name| name.strip_prefix(&prefix)).filter(|name| name.contains("attn2"));
        let mut count = 0;
        for parameter in compared {
            golden.assert_close(&format!("{prefix}{parameter}"), &parameters.get(parameter).unwrap().grad(), 1e-6);
            count += 1;
        }
        assert_eq!(count, 3);

        let layers: Vec<String> = regularization.summary().unwrap().into_iter().map(|layer| layer.name).collect();
        assert_eq!(layers, unet.cross_attention_layers());
        assert_eq!(layers.len(), 16);
    }
}

/// What is computed in f32 of bf16 maps is that of the same numbers in f32.
#[test]
fn half_precision_maps_lose_nothing_more() {
    let golden = Golden::open("regularizer/maps.safetensors");
    for (name, case) in cases().maps {
        let halves: Vec<Tensor> = leaves(&golden, Kind::BFloat16);
        let loss = case.loss(&halves);
        assert_eq!(loss.kind(), Kind::Float);
        let same: Vec<Tensor> = halves.iter().map(|map| map.detach().to_kind(Kind::Float)).collect();
        assert_close(&name, &loss, &case.loss(&same), 0.0);
        loss.backward();
        assert_eq!(halves[0].grad().kind(), Kind::BFloat16);
    }
}
