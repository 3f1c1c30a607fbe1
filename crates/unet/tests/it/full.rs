//! The real geometries against diffusers, with procedural weights: 3.5 GB each, one at a time.

use golden::{Formula, Golden, assert_close};
use tch::{Device, Kind, Tensor};
use unet::{AttentionMaps, Config, UNet};
use weights::{Init, Source};

const TO: (Kind, Device) = (Kind::Float, Device::Cpu);
const TOLERANCE: f64 = 1e-4;

/// The numbers of `uniform` in `fixtures/unet/generate.py`.
fn uniform(name: &str, shape: &[i64]) -> Tensor {
    let values = Formula.fetch(name, &[shape.iter().product()], Init::Const(0.0), TO).unwrap();
    (values * (10.0 * 3f64.sqrt())).reshape(shape)
}

/// Both in one test, so that they are never in memory together.
#[test]
fn full_models_equal_diffusers() {
    check("sd21_base", &Config::sd21_base(), 865_910_724, 50_352_320);
    check("sd15", &Config::sd15(), 859_520_964, 43_962_560);
}

fn check(name: &str, config: &Config, numbers: usize, in_cross_attention: usize) {
    let golden = Golden::open("unet/full.safetensors");
    let (unet, parameters) = weights::build(&Formula, TO, |vs| UNet::new(vs, config)).unwrap();
    assert_eq!(parameters.count(), numbers);
    assert_eq!(parameters.iter().count(), 686);
    let cross_attention = parameters.iter().filter(|(name, _)| name.contains("attn2"));
    assert_eq!(cross_attention.map(|(_, tensor)| tensor.numel()).sum::<usize>(), in_cross_attention);
    assert_eq!(unet.cross_attention_layers().len(), 16);

    let sample = uniform("full.sample", &[1, 4, 8, 8]).set_requires_grad(true);
    let text = uniform("full.encoder_hidden_states", &[1, 77, config.cross_attention_dim]).set_requires_grad(true);
    let output = unet.forward(&sample, &Tensor::from_slice(&[501_i64]), &text, None).unwrap();
    golden.assert_close(&format!("{name}.output"), &output, TOLERANCE);
    (&output * uniform("full.direction", &[1, 4, 8, 8])).sum(Kind::Float).backward();
    golden.assert_close(&format!("{name}.d_sample"), &sample.grad(), TOLERANCE);
    let d_text = text.grad().reshape([-1]).slice(0, None, None, 61);
    golden.assert_close(&format!("{name}.d_encoder_hidden_states"), &d_text, TOLERANCE);

    let _no_grad = tch::no_grad_guard();
    let sample = uniform("full.sample", &[1, 4, 16, 16]);
    let timesteps = Tensor::from_slice(&[21_i64]);
    let mut maps = AttentionMaps::new([5, 6]);
    let output = unet.forward(&sample, &timesteps, &text, Some(&mut maps)).unwrap();
    golden.assert_close(&format!("{name}.output_16"), &output, TOLERANCE);
    let of_all = |statistic: fn(&Tensor) -> Tensor| {
        let of_layers: Vec<Tensor> = maps.maps.iter().map(|map| statistic(&map.probabilities.flatten(2, 3))).collect();
        Tensor::stack(&of_layers, 0)
    };
    let means = of_all(|maps| maps.mean_dim(2i64, false, Kind::Float));
    golden.assert_close(&format!("{name}.means"), &means, TOLERANCE);
    let variances = of_all(|maps| maps.var_dim(2i64, true, false));
    golden.assert_close(&format!("{name}.variances"), &variances, TOLERANCE);

    // The same master weights, computed with in bf16; measured: 1.6 % and 1.8 %.
    let (sample, text) = (sample.to_kind(Kind::BFloat16), text.to_kind(Kind::BFloat16));
    let half = unet.forward(&sample, &timesteps, &text, None).unwrap();
    assert_eq!(half.kind(), Kind::BFloat16);
    assert_close(&format!("{name} in bf16"), &half.to_kind(Kind::Float), &output, 0.03);
}

/// Weights that take no memory: SDXL's take 10 GB.
#[derive(Debug)]
struct Shapes;

impl Source for Shapes {
    fn describe(&self) -> String {
        "shapes".to_owned()
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    fn contains(&self, _: &str) -> bool {
        true
    }

    fn fetch(&self, _: &str, shape: &[i64], _: Init, to: (Kind, Device)) -> Result<Tensor, weights::Problem> {
        Ok(Tensor::zeros([1], to).expand(shape, false))
    }
}

/// The published file has 10,270,077,736 bytes: four for each of these numbers, and its header.
#[test]
fn sdxl_has_as_many_parameters_as_the_published_one() {
    let (unet, parameters) = weights::build(&Shapes, TO, |vs| UNet::new(vs, &Config::sdxl_base())).unwrap();
    assert_eq!((parameters.count(), parameters.iter().count()), (2_567_463_684, 1680));
    assert_eq!(unet.cross_attention_layers().len(), 70);
    assert_eq!(unet.config().pooled_text_dim(), Some(1280));
}
