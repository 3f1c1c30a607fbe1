//! What holds of any attention.

use golden::assert_close;
use heatmaps::{Config, HeatMapRecorder};
use tch::{Device, Kind, Tensor};
use unet::{AttentionObserver, CrossAttentionLayer};

const LATENTS: (i64, i64) = (16, 24);
const POSITIONS: usize = 5;
/// Heads and factor of each layer.
const LAYERS: [(i64, i64); 4] = [(2, 1), (4, 2), (8, 4), (8, 8)];

/// Random probabilities [batch, positions, heads, pixels] of each layer.
fn attention(seed: u64, batch: i64) -> Vec<Tensor> {
    let scores = |(i, (heads, factor)): (usize, &(i64, i64))| {
        let shape = [batch, POSITIONS as i64, *heads, LATENTS.0 / factor * (LATENTS.1 / factor)];
        libtorch::random::normal(seed + 100 * i as u64, &shape).softmax(1, Kind::Float)
    };
    LAYERS.iter().enumerate().map(scores).collect()
}

fn show(recorder: &mut HeatMapRecorder, maps: &[Tensor]) {
    for (index, (map, (heads, factor))) in maps.iter().zip(LAYERS).enumerate() {
        let (height, width) = (LATENTS.0 / factor, LATENTS.1 / factor);
        recorder.observe(&CrossAttentionLayer { name: "down_blocks", index, heads, height, width }, map);
    }
}

fn recorder(images: usize) -> HeatMapRecorder {
    HeatMapRecorder::new(Config::default(), POSITIONS, LATENTS, images).unwrap()
}

fn maps(images: usize, passes: &[Vec<Tensor>]) -> Tensor {
    let mut recorder = recorder(images);
    passes.iter().for_each(|pass| show(&mut recorder, pass));
    let maps = recorder.finish().unwrap();
    assert_eq!(maps.passes as usize, passes.len());
    maps.maps
}

#[test]
fn even_attention_stays_even() {
    let even: Vec<Tensor> = attention(0, 1).iter().map(|map| map.full_like(0.125)).collect();
    let sum = maps(1, &[even.iter().map(Tensor::shallow_clone).collect(), even]);
    assert_close("two passes", &sum, &sum.full_like(0.25), 1e-6);
}

#[test]
fn passes_add_up() {
    let (a, b) = (attention(1, 1), attention(2, 1));
    let together: Vec<Tensor> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    assert_close("sum", &maps(1, &[a, b]), &maps(1, &[together]), 1e-6);
}

#[test]
fn of_a_guided_batch_only_the_prompts_half_counts() {
    let whole = attention(3, 4);
    let half: Vec<Tensor> = whole.iter().map(|map| map.narrow(0, 2, 2)).collect();
    let each = [2, 3].map(|i| maps(1, &[whole.iter().map(|map| map.narrow(0, i, 1)).collect()]));
    let batch = maps(2, &[whole]);
    assert_close("half", &batch, &maps(2, &[half]), 0.0);
    assert_close("single", &batch, &Tensor::cat(&each, 0), 1e-6);
}

#[test]
fn a_word_of_several_tokens_has_their_mean() {
    let mut recorder = recorder(2);
    show(&mut recorder, &attention(4, 2));
    let maps = recorder.finish().unwrap();
    assert_eq!(maps.word(2..3).unwrap(), maps.maps.select(1, 2));
    let mean = (maps.maps.select(1, 1) + maps.maps.select(1, 2) + maps.maps.select(1, 3)) / 3.0;
    assert_close("mean", &maps.word(1..4).unwrap(), &mean, 1e-6);
    for positions in [3..6, 2..2] {
        assert!(maps.word(positions).unwrap_err().to_string().contains("0..5"));
    }
}

#[test]
fn normalised_maps_of_words_sum_to_one() {
    let config = Config { normalize: true, ..Config::default() };
    let mut recorder = HeatMapRecorder::new(config, POSITIONS, LATENTS, 1).unwrap();
    show(&mut recorder, &attention(5, 1));
    let words = recorder.finish().unwrap().maps.narrow(1, 1, POSITIONS as i64 - 2);
    let sum = words.sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    assert_close("sum", &sum, &sum.ones_like(), 1e-4);
}

#[test]
fn half_precision_attention_is_summed_in_f32() {
    let passes: Vec<Vec<Tensor>> = (0..64).map(|seed| attention(seed, 1)).collect();
    let to = |kind| passes.iter().map(|pass| pass.iter().map(|map| map.to_kind(kind)).collect()).collect::<Vec<_>>();
    let halves: Vec<Vec<Tensor>> = to(Kind::BFloat16);
    let same: Vec<Vec<Tensor>> =
        halves.iter().map(|pass| pass.iter().map(|map| map.to_kind(Kind::Float)).collect()).collect();
    assert_close("bf16", &maps(1, &halves), &maps(1, &same), 0.0);
}

#[test]
fn no_graph_and_no_map_is_kept() {
    let mut recorder = recorder(1);
    let attention: Vec<Tensor> = attention(6, 2).into_iter().map(|map| map.set_requires_grad(true)).collect();
    let shown: Vec<Tensor> = attention.iter().map(|map| map * 1.0).collect();
    show(&mut recorder, &shown);
    let before = recorder.finish().unwrap().maps;
    assert!(!before.requires_grad());
    // What was shown may be overwritten.
    let _guard = tch::no_grad_guard();
    shown.iter().for_each(|map| drop(map.shallow_clone().zero_()));
    assert_eq!(recorder.finish().unwrap().maps, before);
}

#[test]
fn what_cannot_be_is_said() {
    let says = |error: anyhow::Error, words: &str| assert!(error.to_string().contains(words), "{error}");
    let new = |config: Config, positions, latents, images| {
        HeatMapRecorder::new(config, positions, latents, images).unwrap_err()
    };
    says(new(Config::default(), 1, LATENTS, 1), "1 position(s)");
    says(new(Config::default(), 5, (0, 4), 1), "(0, 4)");
    says(new(Config::default(), 5, LATENTS, 0), "at least one image");
    says(new(Config { factors: vec![], ..Config::default() }, 5, LATENTS, 1), "factors is empty");

    let config = Config { factors: vec![3, 16], ..Config::default() };
    let mut recorder = HeatMapRecorder::new(config, POSITIONS, LATENTS, 1).unwrap();
    show(&mut recorder, &attention(7, 1));
    says(recorder.finish().unwrap_err(), "[3, 16] times smaller than the latents of 16x24, only {1, 2, 4, 8}");
}

/// On the GPU, or its stand-in: `a_cuda_device_passes_these_tests` runs it there.
#[test]
fn gpu_maps_are_the_cpus() {
    if libtorch::cuda_unavailable().is_some() {
        return;
    }
    let passes = [attention(8, 2), attention(9, 2)];
    let on = |device: Device| {
        passes.iter().map(|pass| pass.iter().map(|map| map.to_device(device)).collect()).collect::<Vec<_>>()
    };
    assert_close("cuda", &maps(1, &on(Device::Cuda(0))).to_device(Device::Cpu), &maps(1, &on(Device::Cpu)), 1e-5);
}

#[test]
fn a_cuda_device_passes_these_tests() {
    cuda_standin::test_again("properties::a_cuda_device_passes_these_tests", libtorch::cuda_unavailable());
}
