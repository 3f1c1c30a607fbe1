//! Heat maps against DAAM's aggregation in Python.

use std::collections::BTreeMap;
use std::fs;

use golden::{Formula, Golden, fixtures};
use heatmaps::{Config, HeatMapRecorder, HeatMaps};
use sampling::{Pipeline, Request, Settings};
use scheduler::SchedulerKind;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use unet::UNet;
use weights::{Init, Source};

const TIMESTEPS: [i64; 4] = [981, 621, 261, 20];
const POSITIONS: usize = 6;

/// A value of fixtures/heatmaps/cases.json.
#[derive(Deserialize)]
struct Case {
    latents: (i64, i64),
    #[serde(flatten)]
    config: Config,
}

fn cases() -> BTreeMap<String, Case> {
    serde_json::from_str(&fs::read_to_string(fixtures().join("heatmaps/cases.json")).unwrap()).unwrap()
}

/// Numbers of mean 0 and variance 1, as `uniform` in generate.py.
fn uniform(name: &str, shape: &[i64]) -> Tensor {
    let to = (Kind::Float, Device::Cpu);
    let values = Formula.fetch(name, &[shape.iter().product()], Init::Const(0.0), to).unwrap();
    (values * (10.0 * 3f64.sqrt())).reshape(shape)
}

/// What generate.py did: a guided pass of one image at each timestep.
fn record(case: &Case, kind: Kind) -> HeatMaps {
    let (unet, _) = UNet::from_folder(&fixtures().join("tiny-sd21/unet"), (kind, Device::Cpu)).unwrap();
    let text = uniform("text", &[2, 77, 32]).to_kind(kind) * 3.0;
    let (height, width) = case.latents;
    let mut recorder = HeatMapRecorder::new(case.config.clone(), POSITIONS, case.latents, 1).unwrap();
    for timestep in TIMESTEPS {
        let latents = uniform(&format!("latents.{timestep}"), &[1, 4, height, width]).to_kind(kind);
        let latents = Tensor::cat(&[&latents, &latents], 0);
        let _noise = unet.forward(&latents, &Tensor::from(timestep), &text, Some(&mut recorder)).unwrap();
    }
    recorder.finish().unwrap()
}

#[test]
fn maps_equal_daams() {
    let golden = Golden::open("heatmaps/maps.safetensors");
    for (kind, tolerance) in [(Kind::Double, 2e-7), (Kind::Float, 1e-5)] {
        for (name, case) in cases() {
            let maps = record(&case, kind);
            assert_eq!(maps.passes, 4);
            golden.assert_close(&name, &maps.maps.squeeze_dim(0), tolerance);
        }
    }
}

#[test]
fn each_setting_makes_another_map() {
    let golden = Golden::open("heatmaps/maps.safetensors");
    let square = ["daam", "normalized", "everything"].map(|name| golden.get(name));
    let wide = ["wide", "only_factor_2"].map(|name| golden.get(name));
    for [a, b] in [[&square[0], &square[1]], [&square[0], &square[2]], [&square[1], &square[2]], [&wide[0], &wide[1]]] {
        assert!(golden::relative_error(a, b) > 1e-3);
    }
}

#[test]
fn a_prompt_that_is_sampled_has_daams_maps() {
    let pipeline = Pipeline::from_folder(&fixtures().join("tiny-sd21"), (Kind::Float, Device::Cpu)).unwrap();
    let prompt = "an oil painting of two dogs on the beach";
    let scheduler = Some(SchedulerKind::DpmSolverPlusPlus);
    let settings = Settings { steps: 8, height: 128, width: 96, scheduler, ..pipeline.default_settings() };
    let positions = pipeline.tokenizer.encode(prompt).unwrap().len;
    let mut recorder = HeatMapRecorder::new(Config::default(), positions, (16, 12), 1).unwrap();
    let request = [Request::new(prompt, 11)];
    let watched = pipeline.denoise_observed(&request, &settings, &mut recorder, &mut |_| {}).unwrap();
    let maps = recorder.finish().unwrap();
    assert_eq!(maps.passes, 8);
    Golden::open("heatmaps/pipeline.safetensors").assert_close("maps", &maps.maps.squeeze_dim(0), 1e-5);

    let unwatched = pipeline.denoise(&request, &settings, &mut |_| {}).unwrap();
    golden::assert_close("watching changes nothing", &watched, &unwatched, 1e-4);
}
