//! SDXL's real geometry against diffusers, transformers and peft, with procedural weights: fixtures/pipelines/generate_sdxl_full.py.
//! By hand: `cargo test --release --test sdxl_full -- --ignored`.
#![allow(clippy::unwrap_used)]

use adapters::Adapters;
use clip::{ClipTextModel, ClipTextModelWithProjection, TextConfig};
use golden::{Formula, Golden};
use options::{Adapter, LoraTargets};
use tch::{Device, Kind, Tensor};
use unet::{AddedConditions, AttentionMaps, Config, UNet};
use weights::{Init, Source};

const TO: (Kind, Device) = (Kind::Float, Device::Cpu);
const TOLERANCE: f64 = 1e-4;

fn golden() -> Golden {
    Golden::open("pipelines/sdxl-full.safetensors")
}

/// The numbers of `uniform` in `fixtures/unet/generate.py`.
fn uniform(name: &str, shape: &[i64]) -> Tensor {
    let values = Formula.fetch(name, &[shape.iter().product()], Init::Const(0.0), TO).unwrap();
    (values * (10.0 * 3f64.sqrt())).reshape(shape)
}

#[test]
#[ignore = "takes 11 GB of memory and some minutes"]
fn the_unet_equals_diffusers_with_gradients_of_its_inputs_and_of_a_lora() {
    let golden = golden();
    let config = Config::sdxl_base();
    let (mut unet, parameters) = weights::build(&Formula, TO, |vs| UNet::new(vs, &config)).unwrap();
    assert_eq!((parameters.count(), unet.cross_attention_layers().len()), (2_567_463_684, 70));
    parameters.train(|_| false);
    let text = uniform("full.encoder_hidden_states", &[1, 77, 2048]).set_requires_grad(true);
    let pooled = uniform("full.text_embeds", &[1, 1280]).set_requires_grad(true);
    let time_ids = Tensor::from_slice(&[1024f32, 768.0, 0.0, 16.0, 512.0, 512.0]).reshape([1, 6]);
    let added = AddedConditions { text_embeds: pooled.shallow_clone(), time_ids };
    tch::no_grad(|| {
        let mut maps = AttentionMaps::new([5, 6]);
        let keys = unet.project_with(&text, &added).unwrap();
        let sample = uniform("full.sample", &[1, 4, 16, 16]);
        let _ = unet.forward_cached(&sample, &Tensor::from_slice(&[21_i64]), &keys, Some(&mut maps)).unwrap();
        let of_all = |statistic: fn(&Tensor) -> Tensor| {
            let of_layers = maps.maps.iter().map(|map| statistic(&map.probabilities.flatten(2, 3)));
            Tensor::stack(&of_layers.collect::<Vec<_>>(), 0)
        };
        golden.assert_close("means", &of_all(|maps| maps.mean_dim(2i64, false, Kind::Float)), TOLERANCE);
        golden.assert_close("variances", &of_all(|maps| maps.var_dim(2i64, true, false)), TOLERANCE);
    });

    let lora = Adapter::Lora { rank: 2, alpha: Some(2.0), targets: LoraTargets::Attention };
    let adapters = Adapters::install(&mut unet, &lora, 0).unwrap();
    let mut factors = Vec::new();
    for (name, factor) in adapters.parameters() {
        let (layer, part) = name.strip_suffix(".weight").unwrap().rsplit_once(".lora_").unwrap();
        let key = format!("lora.{layer}.{part}");
        if golden.names().any(|known| known == key) {
            let values = Formula.fetch(&format!("{layer}.lora_{part}"), &factor.size(), Init::Const(0.0), TO).unwrap();
            tch::no_grad(|| factor.shallow_clone().copy_(&(values * if part == "A" { 1.0 } else { 0.1 })));
            factors.push((key, factor));
        } else if part == "B" {
            // Of all others nothing is changed.
            let _ = tch::no_grad(|| factor.shallow_clone().zero_());
        }
    }
    assert_eq!(factors.len(), 8);
    let sample = uniform("full.sample", &[1, 4, 8, 8]).set_requires_grad(true);
    let keys = unet.project_with(&text, &added).unwrap();
    let output = unet.forward_cached(&sample, &Tensor::from_slice(&[501_i64]), &keys, None).unwrap();
    golden.assert_close("output", &output, TOLERANCE);
    (&output * uniform("full.direction", &[1, 4, 8, 8])).sum(Kind::Float).backward();
    golden.assert_close("d_sample", &sample.grad(), TOLERANCE);
    golden.assert_close("d_text", &text.grad().reshape([-1]).slice(0, None, None, 61), TOLERANCE);
    golden.assert_close("d_text_embeds", &pooled.grad(), TOLERANCE);
    factors.iter().for_each(|(key, factor)| golden.assert_close(key, &factor.grad(), TOLERANCE));
}

#[test]
#[ignore = "takes 4 GB of memory"]
fn the_text_encoders_equal_transformers_with_gradients_of_their_embeddings() {
    let (golden, words) = (golden(), (0..12).map(|i| (37 * i + 11) % 49406));
    let ids = |pad: i64| {
        let text: Vec<i64> = [49406].into_iter().chain(words.clone()).chain([49407]).collect();
        Tensor::from_slice(&[text, vec![pad; 77]].concat()[..77]).unsqueeze(0)
    };
    let (first, parameters) = weights::build(&Formula, TO, |vs| ClipTextModel::new(vs, &TextConfig::sd15())).unwrap();
    parameters.train(|_| false);
    let config = TextConfig::sdxl_second();
    let (second, parameters) =
        weights::build(&Formula, TO, |vs| ClipTextModelWithProjection::new(vs, &config)).unwrap();
    parameters.train(|_| false);
    let of_first = first.embed(&ids(49407)).unwrap().set_requires_grad(true);
    let of_second = second.text_model().embed(&ids(0)).unwrap().set_requires_grad(true);
    let states = second.text_model().encode(&of_second, 1).unwrap();
    let last = second.text_model().forward_rest(&states, 1).unwrap();
    let pooled = second.features_of(&last, &ids(0)).unwrap();
    let states = Tensor::cat(&[first.encode(&of_first, 1).unwrap(), states], -1);
    let thinned = |tensor: &Tensor| tensor.slice(1, None, None, 11).slice(2, None, None, 16);
    golden.assert_close("hidden_states", &thinned(&states), TOLERANCE);
    golden.assert_close("pooled", &pooled, TOLERANCE);
    (states.sin().sum(Kind::Float) + pooled.sin().sum(Kind::Float)).backward();
    let gradients = Tensor::cat(&[of_first.grad(), of_second.grad()], -1);
    golden.assert_close("d_embeddings", &thinned(&gradients), TOLERANCE);
}
