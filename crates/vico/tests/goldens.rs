//! Masks, loss, blocks and their file beside fixtures/methods/vico and closed forms; the steps are the trainer's test.
#![allow(clippy::unwrap_used)]

use golden::{Formula, Golden, Hollow, fixtures};
use tch::{Device, Kind, Tensor};
use unet::{Config, UNet};
use vico::{ImageAttention, Positions, References, attention_loss, normalized, otsu, subject};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

fn tiny(model: &str) -> UNet {
    UNet::from_folder(&fixtures().join(model).join("unet"), F32).unwrap().0
}

/// Blocks that do something.
fn blocks(unet: &UNet) -> ImageAttention {
    let blocks = ImageAttention::new(unet, 0, Device::Cpu).unwrap();
    blocks.parameters().iter().for_each(|(name, parameter)| Formula.fill(name, parameter));
    blocks
}

/// By brute force: each threshold, each pixel, in f64.
fn brute_force(map: &[f32]) -> (f64, Vec<bool>) {
    let mut best = (0.0, 0.0);
    for candidate in (1..10u8).map(|tenth| f32::from(tenth) / 10.0) {
        let (high, low): (Vec<f64>, Vec<f64>) = {
            let (high, low): (Vec<f32>, Vec<f32>) = map.iter().partition(|value| **value >= candidate);
            (high.into_iter().map(f64::from).collect(), low.into_iter().map(f64::from).collect())
        };
        if high.is_empty() || low.is_empty() {
            continue;
        }
        let mean = |xs: &[f64]| xs.iter().sum::<f64>() / xs.len() as f64;
        let between = (high.len() * low.len()) as f64 / (map.len() * map.len()) as f64;
        let between = between * (mean(&high) - mean(&low)).powi(2);
        // Equals in f64 may differ by rounding; the first of them counts.
        if between > best.0 * (1.0 + 1e-12) {
            best = (between, f64::from(candidate));
        }
    }
    let keeps = |value: &f32| if best.1 > 0.0 { f64::from(*value) >= best.1 } else { *value > 0.0 };
    (best.1, map.iter().map(keeps).collect())
}

#[test]
fn masks_are_the_references_and_those_of_a_brute_force_search() {
    let golden = Golden::open("methods/vico/vico.safetensors");
    let maps = golden.get("maps");
    golden.assert_close("normalised", &normalized(&maps), 1e-6);
    golden.assert_close("thresholds", &otsu(&golden.get("normalised")), 1e-6);
    assert_eq!(subject(&maps).to_kind(Kind::Uint8), golden.get("kept"));

    // Many more, of some shapes of distribution and few pixels, where ties are frequent.
    for (seed, power, pixels) in [(1, 1.0, 64), (2, 4.0, 64), (3, 0.25, 16), (4, 8.0, 4), (5, 1.0, 2)] {
        let maps = libtorch::random::uniform(seed, &[200, pixels]).pow_tensor_scalar(power);
        let (normal, found, kept) = (normalized(&maps), otsu(&normalized(&maps)), subject(&maps));
        for row in 0..200 {
            let (threshold, expected) = brute_force(&Vec::<f32>::try_from(normal.get(row)).unwrap());
            assert!((found.double_value(&[row]) - threshold).abs() < 1e-6, "{seed}, {row}");
            assert_eq!(Vec::<bool>::try_from(kept.get(row)).unwrap(), expected, "{seed}, {row}");
        }
    }
}

#[test]
fn every_map_has_a_subject_even_where_nothing_stands_out() {
    let same = Tensor::full([1, 9], 0.25, F32);
    assert_eq!(subject(&same).sum(Kind::Int64).int64_value(&[]), 9);
    // One pixel alone, and maps of half precision.
    assert_eq!(subject(&Tensor::from_slice(&[0.5f32]).unsqueeze(0)).sum(Kind::Int64).int64_value(&[]), 1);
    let two = Tensor::from_slice(&[0.0f32, 0.0, 1.0, 0.0]).unsqueeze(0).to_kind(Kind::BFloat16);
    assert_eq!(Vec::<bool>::try_from(subject(&two).get(0)).unwrap(), [false, false, true, false]);
    // A mask takes part in no gradient.
    let map = libtorch::random::uniform(1, &[1, 9]).set_requires_grad(true);
    assert!(!subject(&map).requires_grad());
}

#[test]
fn the_loss_is_that_of_its_formula_and_moves_the_token_alone() {
    // a / max a = (1, .5), e / max e = (.5, 1): a mean square of .25; of equal maps nothing is lost.
    let map = |values: [f32; 4]| Tensor::from_slice(&values).reshape([1, 2, 2]).set_requires_grad(true);
    let (other, same) = (map([0.8, 0.4, 0.1, 0.2]), map([0.8, 0.4, 0.2, 0.1]));
    assert!((attention_loss(&other).double_value(&[]) - 0.25).abs() < 1e-6);
    assert!(attention_loss(&same).double_value(&[]).abs() < 1e-12);
    attention_loss(&other).backward();
    let gradient = other.grad();
    assert_eq!(gradient.select(1, 1).abs().sum(Kind::Float).double_value(&[]), 0.0);
    // d/da₁ of mean((a₁ / a₀ - 1)²) / 2 at a = (.8, .4), and the other by the quotient rule.
    let slope = (0.5 - 1.0) / 0.8;
    let constant_part = -slope * 0.5;
    assert!((gradient.double_value(&[0, 0, 1]) - slope).abs() < 1e-6);
    assert!((gradient.double_value(&[0, 0, 0]) - constant_part).abs() < 1e-6);
    // What has underflown is no NaN.
    let nothing = Tensor::zeros([1, 2, 2], F32);
    assert_eq!(attention_loss(&nothing).double_value(&[]), 0.0);
}

/// fixtures/methods/counts.json, which has the embedding too.
#[test]
fn as_many_numbers_are_trained_as_are_said() {
    let path = fixtures().join("methods/counts.json");
    let counts: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (model, width, config) in [("sd21", 1024, Config::sd21_base()), ("sd15", 768, Config::sd15())] {
        let (unet, _) = weights::build(&Hollow, F32, |vs| UNet::new(vs, &config)).unwrap();
        let blocks = ImageAttention::new(&unet, 0, Device::Cpu).unwrap();
        let count: usize = blocks.parameters().iter().map(|(_, parameter)| parameter.numel()).sum();
        assert_eq!((counts[model]["vico"].clone(), count), ((count + width).into(), 51_248_960), "{model}");
    }
}

/// One batch by samples, and all together.
#[test]
fn a_sample_does_not_depend_on_what_shares_its_batch() {
    tch::set_num_threads(1);
    let unet = tiny("tiny-sd21");
    let blocks = blocks(&unet);
    let normal = |seed, shape: &[i64]| libtorch::random::normal(seed, shape);
    let (noisy, reference) = (normal(1, &[3, 4, 16, 16]), normal(2, &[3, 4, 16, 16]));
    let (text, timesteps) = (normal(3, &[3, 77, 32]), Tensor::from_slice(&[10i64, 500, 990]));
    let positions = [(5, 8), (2, 9), (7, 7)].map(|(token, end)| Positions { token, end });
    let of = |first: i64, count: i64| -> (Tensor, References) {
        let part = |xs: &Tensor| xs.narrow(0, first, count);
        let text = unet.project(&part(&text)).unwrap();
        let positions = &positions[first as usize..(first + count) as usize];
        let references = blocks.look(&unet, &part(&reference), &part(&timesteps), &text, positions).unwrap();
        let prediction = blocks.predict(&unet, &part(&noisy), &part(&timesteps), &text, &references, None).unwrap();
        (prediction, references)
    };
    let _guard = tch::no_grad_guard();
    let (together, references) = of(0, 3);
    let mut loss = 0.0;
    for sample in 0..3 {
        let (alone, own) = of(sample, 1);
        golden::assert_close(&format!("sample {sample}"), &alone.get(0), &together.get(sample), 1e-5);
        assert_eq!(own.masks(0).unwrap(), references.masks(sample).unwrap());
        loss += own.attention_loss().double_value(&[]) / 3.0;
    }
    assert!((loss / references.attention_loss().double_value(&[]) - 1.0).abs() < 1e-5);
    // Those of an order are those, and one prompt for all is that prompt for each.
    let swapped = references.gathered(&Tensor::from_slice(&[2i64, 0]));
    assert_eq!(swapped.masks(0).unwrap(), references.masks(2).unwrap());
    assert!(swapped.masks(2).unwrap_err().to_string().contains("no reference 2 in a batch of 2"));
}

/// With gradient checkpointing, the reference's features enter as inputs: the same gradients, of all that is learned and of the text.
#[test]
fn gradient_checkpointing_changes_nothing() {
    tch::set_num_threads(1);
    let gradients = |checkpointing: bool| -> Vec<Tensor> {
        let mut unet = tiny("tiny-sd21");
        unet.set_gradient_checkpointing(checkpointing);
        let blocks = blocks(&unet);
        let parameters: Vec<Tensor> =
            blocks.parameters().iter().map(|(_, parameter)| parameter.set_requires_grad(true)).collect();
        let normal = |seed, shape: &[i64]| libtorch::random::normal(seed, shape);
        let text = normal(3, &[1, 77, 32]).set_requires_grad(true);
        let (projected, timesteps) = (unet.project(&text).unwrap(), Tensor::from_slice(&[10i64, 700]));
        let positions = [Positions { token: 5, end: 8 }];
        let references = blocks.look(&unet, &normal(2, &[2, 4, 16, 16]), &timesteps, &projected, &positions).unwrap();
        let noisy = normal(1, &[2, 4, 16, 16]);
        let prediction = blocks.predict(&unet, &noisy, &timesteps, &projected, &references, None).unwrap();
        (prediction.square().mean(Kind::Float) + references.attention_loss()).backward();
        parameters.iter().chain([&text]).map(Tensor::grad).collect()
    };
    for (number, (with, without)) in gradients(true).iter().zip(gradients(false)).enumerate() {
        assert!(without.abs().max().double_value(&[]) > 0.0, "parameter {number} has no gradient");
        assert_eq!(*with, without, "parameter {number}");
    }
}

#[test]
fn a_file_has_all_that_was_learned_under_the_official_names() {
    let folder = tempfile::tempdir().unwrap();
    let (path, again) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    let unet = tiny("tiny-sd21");
    let (blocks, rows) = (blocks(&unet), libtorch::random::normal(1, &[1, 32]));
    vico::write(&path, &unet, &blocks, ("<new>", &rows)).unwrap();
    let names: Vec<String> = weights::Archive::open(&path).unwrap().tensors().unwrap().into_keys().collect();
    for block in [4, 6, 8, 10] {
        let name = format!("diffusion_model.output_blocks.{block}.1.image_cross_attention.");
        let last =
            ["attn1.to_q.weight", "attn2.to_out.0.bias", "ff.net.0.proj.weight", "ff.net.2.bias", "norm3.weight"];
        assert!(last.iter().all(|last| names.contains(&format!("{name}{last}"))), "{names:?}");
        assert_eq!(names.iter().filter(|found| found.starts_with(&name)).count(), 20);
    }
    assert_eq!(names.len(), 81);
    let (read, token, found) = vico::read(&path, &unet, 32, Device::Cpu).unwrap();
    assert_eq!((token.as_str(), &found), ("<new>", &rows));
    assert_eq!(read.parameters(), blocks.parameters());
    vico::write(&again, &unet, &read, ("<new>", &rows)).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap());
}

#[test]
fn a_file_that_does_not_fit_is_refused_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vico.safetensors");
    let unet = tiny("tiny-sd21");
    let says = |width, words: &str| {
        let error = format!("{:#}", vico::read(&path, &unet, width, Device::Cpu).unwrap_err());
        assert!(error.contains(words) && error.contains("vico.safetensors") && !error.contains('\n'), "{error}");
    };
    says(32, "cannot read");
    let (blocks, rows) = (blocks(&unet), Tensor::zeros([1, 32], F32));
    vico::write(&path, &unet, &blocks, ("<new>", &rows)).unwrap();
    says(768, "an embedding of shape [1, 32], but this model's have the width 768");
    let mut tensors = weights::Archive::open(&path).unwrap().tensors().unwrap();
    let name = "diffusion_model.output_blocks.6.1.image_cross_attention.norm1.weight";
    let removed = tensors.remove(name).unwrap();
    weights::save(&path, &tensors).unwrap();
    says(
        32,
        "has 1 tensors that do not fit this model's blocks (up_blocks.2.attentions.0.image_cross_attention.norm1.weight: missing)",
    );
    tensors.insert(name.to_owned(), Tensor::ones([320], F32));
    weights::save(&path, &tensors).unwrap();
    says(32, "features at up_blocks.2.attentions.0 have the width 320, but this model's have 16");
    tensors.insert(name.to_owned(), removed.full_like(f64::NAN));
    weights::save(&path, &tensors).unwrap();
    says(32, "up_blocks.2.attentions.0.image_cross_attention.norm1.weight");
    tensors.insert(name.to_owned(), removed);
    tensors.insert("string_to_param.<other>".to_owned(), rows.copy());
    weights::save(&path, &tensors).unwrap();
    says(32, "the embeddings of 2 tokens");
    tensors.insert("conv_in.weight".to_owned(), rows.copy());
    weights::save(&path, &tensors).unwrap();
    says(32, "has the tensor conv_in.weight, which is no block's of ViCo");
    weights::save(&path, [("<new>", rows)]).unwrap();
    says(32, "holds no blocks of ViCo");
    let pickle = vico::read(&folder.path().join("cross_attention-399.pt"), &unet, 32, Device::Cpu);
    assert!(pickle.unwrap_err().to_string().contains("convert it with the script in docs/methods/vico.md"));
}
