//! Adapters in a U-Net: what they count, where gradients arrive, what is refused.

use std::collections::BTreeMap;

use adapters::Adapters;
use golden::{Golden, Hollow, assert_close, fixtures};
use options::{Adapter, LoraTargets};
use tch::{Device, Kind, Tensor};
use unet::{Config, UNet};
use weights::{Parameters, Tensors};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

fn lora(rank: u32, targets: LoraTargets) -> Adapter {
    Adapter::Lora { rank, alpha: None, targets }
}

fn tiny(model: &str) -> (UNet, Parameters) {
    UNet::from_folder(&fixtures().join(model).join("unet"), F32).unwrap()
}

/// Gives adapters values that change something.
fn stir(adapters: &Adapters) {
    for (i, (name, parameter)) in adapters.parameters().iter().enumerate() {
        if !name.contains("lora_A") {
            let values = libtorch::random::normal(i as u64, &parameter.size()) * 0.1;
            tch::no_grad(|| parameter.shallow_clone().copy_(&values));
        }
    }
}

fn predict(model: &str, unet: &UNet) -> Tensor {
    let golden = Golden::open(&format!("unet/{model}.safetensors"));
    let [sample, timesteps, text] = ["sample", "timesteps", "encoder_hidden_states"].map(|name| golden.get(name));
    unet.forward(&sample, &timesteps, &text, None).unwrap()
}

#[test]
fn as_many_numbers_are_trained_as_peft_counts() {
    let text = std::fs::read_to_string(fixtures().join("methods/counts.json")).unwrap();
    let counts: BTreeMap<String, BTreeMap<String, usize>> = serde_json::from_str(&text).unwrap();
    for (name, config) in [("sd21", Config::sd21_base()), ("sd15", Config::sd15())] {
        let count = |adapter: &Adapter| {
            let (mut unet, _) = weights::build(&Hollow, F32, |vs| UNet::new(vs, &config)).unwrap();
            let adapters = Adapters::install(&mut unet, adapter, 0).unwrap();
            let raw = adapters.parameters().into_iter().map(|(_, tensor)| {
                // Of b (b - 1) / 2, b is the next above the root of twice as many.
                let b = (2.0 * tensor.size()[1] as f64).sqrt().ceil() as usize;
                tensor.size()[0] as usize * b * b
            });
            let raw: usize = raw.sum();
            (adapters.count(), raw)
        };
        let expected = |key: &str| counts[name][key];
        assert_eq!(count(&Adapter::oft()), (expected("oft"), expected("oft_raw")));
        assert_eq!(count(&lora(4, LoraTargets::Attention)).0, expected("lora, attention, 4"));
        assert_eq!(count(&lora(32, LoraTargets::Kohya)).0, expected("lora, kohya, 32"));
        assert_eq!(count(&lora(64, LoraTargets::Kohya)).0, expected("lora, kohya, 64"));
    }
}

#[test]
fn nothing_changes_until_it_is_trained_and_removing_brings_the_model_back() {
    for model in ["tiny-sd21", "tiny-sd15"] {
        for adapter in [lora(2, LoraTargets::Kohya), Adapter::oft()] {
            let (mut unet, _) = tiny(model);
            let before = predict(model, &unet);
            let adapters = Adapters::install(&mut unet, &adapter, 0).unwrap();
            assert_close("untrained", &predict(model, &unet), &before, 1e-6);
            stir(&adapters);
            assert!(golden::relative_error(&predict(model, &unet), &before) > 1e-3);
            unet.remove_adapters();
            assert_eq!(predict(model, &unet), before);
        }
    }
}

#[test]
fn merged_weights_compute_the_same_and_keep_their_dtype() {
    for model in ["tiny-sd21", "tiny-sd15"] {
        for adapter in [lora(3, LoraTargets::Kohya), Adapter::coft()] {
            let (mut unet, parameters) = tiny(model);
            // Packed copies of the base model's weights must not outlive them.
            let _frozen = parameters.frozen(u64::MAX);
            let _without = tch::no_grad_guard();
            let adapters = Adapters::install(&mut unet, &adapter, 0).unwrap();
            stir(&adapters);
            let adapted = predict(model, &unet);
            unet.merge_adapters();
            assert_close("merged", &predict(model, &unet), &adapted, 1e-5);
            let folder = fixtures().join(model).join("unet");
            let (mut half, parameters) = UNet::from_folder(&folder, (Kind::BFloat16, Device::Cpu)).unwrap();
            let adapters = Adapters::install(&mut half, &adapter, 0).unwrap();
            assert!(adapters.parameters().iter().all(|(_, parameter)| parameter.kind() == Kind::Float));
            half.merge_adapters();
            assert!(parameters.iter().all(|(_, parameter)| parameter.kind() == Kind::BFloat16));
        }
    }
}

#[test]
fn packed_weights_are_used_and_never_stale() {
    use layers::Linear;
    use weights::Random;

    let (mut linear, parameters) =
        weights::build(&Random { seed: 1 }, F32, |vs| Ok(Linear::new(vs, 1024, 1024))).unwrap();
    let xs = libtorch::random::normal(2, &[2, 7, 1024]);
    let _without = tch::no_grad_guard();
    let frozen = parameters.frozen(u64::MAX);
    let before = linear.forward(&xs);
    assert_eq!(frozen.packed(), 1);
    #[derive(Debug)]
    struct Twice;
    impl layers::LinearAdapter for Twice {
        fn merged(&self, weight: &Tensor) -> Tensor {
            weight * 2.0
        }
    }
    *linear.adapter().1 = Some(Box::new(Twice));
    let bias = parameters.get("bias").unwrap();
    assert_close("adapted", &linear.forward(&xs), &((&before - bias) * 2.0 + bias), 1e-5);
    *linear.adapter().1 = None;
    assert_close("without", &linear.forward(&xs), &before, 1e-6);
}

#[test]
fn gradients_arrive_in_a_checkpointed_pass_and_are_the_same() {
    for model in ["tiny-sd21", "tiny-sd15"] {
        for adapter in [lora(2, LoraTargets::Kohya), Adapter::oft()] {
            let gradients = |checkpointing: bool| -> Vec<Tensor> {
                let (mut unet, parameters) = tiny(model);
                parameters.train(|_| false);
                unet.set_gradient_checkpointing(checkpointing);
                let adapters = Adapters::install(&mut unet, &adapter, 0).unwrap();
                stir(&adapters);
                predict(model, &unet).square().mean(Kind::Float).backward();
                assert!(parameters.iter().all(|(_, parameter)| !parameter.grad().defined()));
                adapters.parameters().iter().map(|(_, parameter)| parameter.grad()).collect()
            };
            let expected = gradients(false);
            assert!(expected.iter().all(Tensor::defined));
            assert_eq!(gradients(true), expected);
        }
    }
}

#[test]
fn half_precision_is_near() {
    let (mut unet, _) = tiny("tiny-sd21");
    for adapter in [lora(2, LoraTargets::Kohya), Adapter::oft()] {
        let adapters = Adapters::install(&mut unet, &adapter, 0).unwrap();
        stir(&adapters);
        let expected = predict("tiny-sd21", &unet);
        let golden = Golden::open("unet/tiny-sd21.safetensors");
        let [sample, text] = ["sample", "encoder_hidden_states"].map(|name| golden.get(name).to_kind(Kind::BFloat16));
        let half = unet.forward(&sample, &golden.get("timesteps"), &text, None).unwrap();
        assert_eq!(half.kind(), Kind::BFloat16);
        assert_close("bf16", &half.to_kind(Kind::Float), &expected, 0.05);
        unet.remove_adapters();
    }
}

#[test]
fn the_seed_decides_where_they_start() {
    let start = |seed| {
        let (mut unet, _) = tiny("tiny-sd21");
        let adapters = Adapters::install(&mut unet, &lora(2, LoraTargets::Attention), seed).unwrap();
        adapters.parameters()
    };
    assert_eq!(start(1), start(1));
    for ((name, one), (_, other)) in start(1).iter().zip(&start(2)) {
        if name.ends_with("lora_A.weight") {
            assert_ne!(one, other);
            let bound = 1.0 / (one.size()[1] as f64).sqrt();
            let largest = one.abs().max().double_value(&[]);
            assert!(largest <= bound && largest > bound / 2.0, "{name}: {largest} of {bound}");
        } else {
            assert!(one.abs().max().double_value(&[]) == 0.0, "{name}");
        }
    }
}

#[test]
fn what_was_learned_is_loaded_into_another_model() {
    for adapter in [lora(2, LoraTargets::Kohya), Adapter::oft()] {
        let [(mut one, _), (mut other, _)] = [tiny("tiny-sd21"), tiny("tiny-sd21")];
        let learned = Adapters::install(&mut one, &adapter, 0).unwrap();
        stir(&learned);
        let tensors: Tensors = learned.parameters().into_iter().collect();
        let loaded = Adapters::install(&mut other, &adapter, 1).unwrap();
        loaded.load(&tensors).unwrap();
        assert_eq!(predict("tiny-sd21", &other), predict("tiny-sd21", &one));
    }
}

#[test]
fn what_does_not_fit_is_refused_with_both_sides() {
    let refuse = |adapter: &Adapter, words: &str| {
        let (mut unet, _) = tiny("tiny-sd21");
        let before = predict("tiny-sd21", &unet);
        let error = format!("{:#}", Adapters::install(&mut unet, adapter, 0).unwrap_err());
        assert!(error.contains(words), "{error}");
        assert_eq!(predict("tiny-sd21", &unet), before);
    };
    refuse(
        &lora(12, LoraTargets::Attention),
        "the rank 12 is larger than the layer down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q, which maps 8 \
         numbers to 8: use 8 at most",
    );
    refuse(&Adapter::Oft { blocks: 3, constraint: None }, "reads 8 numbers, which cannot be split into 3 equal blocks");
    refuse(&Adapter::Oft { blocks: 8, constraint: None }, "equal blocks of two or more");
    refuse(&lora(0, LoraTargets::Attention), "the adapter's rank is 0, but must be one or more");

    let (mut unet, _) = tiny("tiny-sd21");
    let adapters = Adapters::install(&mut unet, &Adapter::oft(), 0).unwrap();
    let error = Adapters::install(&mut unet, &lora(1, LoraTargets::Kohya), 0).unwrap_err().to_string();
    assert!(error.contains("attn1.to_q has an adapter already: merge or remove that one first"), "{error}");
    let name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.oft_R.weight";
    let mut tensors: Tensors = adapters.parameters().into_iter().collect();
    let right = tensors.insert(name.to_owned(), Tensor::zeros([4, 66], F32)).unwrap();
    let error = adapters.load(&tensors).unwrap_err().to_string();
    let words = format!("the adapters' {name} has shape [4, 66], but that of this U-Net has {:?}", right.size());
    assert!(error.contains(&words), "{error}");
    tensors.remove(name);
    let error = adapters.load(&tensors).unwrap_err().to_string();
    assert_eq!(error, format!("the adapters have no {name}, which this U-Net needs"));
    tensors.insert(name.to_owned(), right);
    tensors.insert("other".to_owned(), Tensor::zeros([1], F32));
    let error = adapters.load(&tensors).unwrap_err().to_string();
    assert_eq!(error, "the adapters have other, which this U-Net has no place for");
}

/// diffusers' `scale` of a LoRA: W + scale · alpha / r · B A, whose part beside W is linear in it.
#[test]
fn a_scale_multiplies_what_lora_changes() {
    let merged = |scale: Option<f64>| {
        let (mut unet, parameters) = tiny("tiny-sd21");
        let adapters = Adapters::install(&mut unet, &lora(2, LoraTargets::Attention), 0).unwrap();
        stir(&adapters);
        if let Some(scale) = scale {
            adapters.scale(scale).unwrap();
        }
        unet.merge_adapters();
        let name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q.weight";
        let (_, weight) = parameters.iter().find(|(found, _)| *found == name).unwrap();
        weight.copy()
    };
    let (none, whole, half, reversed) = (merged(Some(0.0)), merged(None), merged(Some(0.5)), merged(Some(-1.0)));
    let (_, parameters) = tiny("tiny-sd21");
    let name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q.weight";
    let base = parameters.iter().find(|(found, _)| *found == name).unwrap().1.copy();
    assert_eq!(none, base, "bit by bit");
    assert_eq!(merged(Some(1.0)), whole, "likewise");
    assert_close("half", &half, &(&base + (&whole - &base) * 0.5), 1e-6);
    assert_close("reversed", &reversed, &(&base - (&whole - &base)), 1e-6);
    assert!((&whole - &base).abs().max().double_value(&[]) > 1e-3);

    let (mut unet, _) = tiny("tiny-sd21");
    let rotations = Adapters::install(&mut unet, &Adapter::oft(), 0).unwrap();
    assert!(rotations.scale(0.5).unwrap_err().to_string().contains("none of LoRA"));
}
