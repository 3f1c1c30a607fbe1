//! LoRA files of others, and ours.

use std::path::Path;

use adapters::{Adapters, Extraction, LayerChange, Lora, LoraKeys, LowRank, Networks, extract, read_oft, write_oft};
use golden::{Golden, assert_close, fixtures};
use options::{Adapter, LoraTargets};
use sampling::PipelineParameters;
use tch::{Kind, Tensor};
use weights::{Archive, Tensors};

use crate::common::{F32, Loop};

fn networks(parameters: &PipelineParameters) -> Networks<'_> {
    Networks { unet: &parameters.unet, text_encoder: &parameters.text_encoder, text_encoder_2: None }
}

fn read(path: &Path, run: &Loop) -> anyhow::Result<Lora> {
    let parameters = &run.pipeline.parameters;
    Lora::read(path, networks(parameters))
}

fn merge(lora: &Lora, run: &Loop, scale: f64) {
    let parameters = &run.pipeline.parameters;
    lora.merge(networks(parameters), scale).unwrap();
}

/// A file of others, the model and the prompt of its image.
const FILES: [(&str, &str, &str); 2] =
    [("attention_diffusers", "tiny-sd21", "attention"), ("kohya_kohya", "tiny-sd15", "kohya")];
const PROMPT: &str = "a photo of sks ball";

#[test]
fn files_of_diffusers_and_kohya_generate_their_images() {
    for (file, model, case) in FILES {
        let run = Loop::load(model);
        let before = run.image(PROMPT).latents;
        let lora = read(&fixtures().join(format!("methods/lora/{file}.safetensors")), &run).unwrap();
        merge(&lora, &run, 1.0);
        let golden = Golden::open(&format!("methods/lora/{case}.safetensors"));
        golden.assert_close("image_latents", &run.image(PROMPT).latents, 1e-4);
        merge(&lora, &run, -1.0);
        assert_close("taken away again", &run.image(PROMPT).latents, &before, 1e-4);
    }
}

#[test]
fn files_of_ours_hold_what_was_read() {
    let folder = tempfile::tempdir().unwrap();
    for (file, model, case) in FILES {
        for keys in [LoraKeys::Kohya, LoraKeys::Diffusers] {
            let run = Loop::load(model);
            let lora = read(&fixtures().join(format!("methods/lora/{file}.safetensors")), &run).unwrap();
            let path = folder.path().join(format!("{case}-{keys:?}.safetensors"));
            lora.write(&path, keys, Kind::Float, &[("ss_v2", "True")]).unwrap();
            assert_eq!(Archive::open(&path).unwrap().metadata()["ss_v2"], "True");
            let again = read(&path, &run).unwrap();
            assert_eq!(again.unet.len(), lora.unet.len());
            merge(&again, &run, 1.0);
            let golden = Golden::open(&format!("methods/lora/{case}.safetensors"));
            golden.assert_close("image_latents", &run.image(PROMPT).latents, 1e-4);
        }
    }
}

#[test]
fn learned_adapters_are_written_as_they_compute() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Loop::load("tiny-sd15");
    let adapter = Adapter::Lora { rank: 2, alpha: Some(0.5), targets: LoraTargets::Kohya };
    let adapters = Adapters::install(&mut run.pipeline.unet, &adapter, 1).unwrap();
    for (i, (_, parameter)) in adapters.parameters().iter().enumerate() {
        let values = libtorch::random::normal(i as u64, &parameter.size()) * 0.2;
        tch::no_grad(|| parameter.shallow_clone().copy_(&values));
    }
    let expected = run.image(PROMPT).latents;
    let mut lora = Lora::of(&adapters);
    lora.embeddings.insert("<new>".to_owned(), Tensor::ones([2, 32], F32));
    let path = folder.path().join("kohya.safetensors");
    lora.write(&path, LoraKeys::Kohya, Kind::Float, &[]).unwrap();
    let error = lora.write(&path, LoraKeys::Diffusers, Kind::Float, &[]).unwrap_err().to_string();
    assert!(error.contains("no place for an embedding"), "{error}");
    let fresh = Loop::load("tiny-sd15");
    let read = read(&path, &fresh).unwrap();
    assert_eq!(read.embeddings["<new>"], Tensor::ones([2, 32], F32));
    merge(&read, &fresh, 1.0);
    assert_close("image", &fresh.image(PROMPT).latents, &expected, 1e-4);
    let keys: Vec<String> = Archive::open(&path).unwrap().shapes().map(|(key, _)| key.to_owned()).collect();
    for key in ["bundle_emb.<new>.clip_l", "lora_unet_down_blocks_0_attentions_0_proj_in.alpha"] {
        assert!(keys.iter().any(|found| found == key), "{key}");
    }
}

/// One layer's tensors under these keys.
fn write(path: &Path, tensors: &[(&str, Tensor)]) {
    weights::save(path, tensors.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
}

#[test]
fn all_spellings_mean_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let run = Loop::load("tiny-sd21");
    let [down, up] = [(1, [2, 32]), (2, [16, 2])].map(|(seed, size)| libtorch::random::normal(seed, &size));
    let layer = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k";
    let kohya = layer.replace('.', "_");
    let processor = layer.replace("attn2.to_k", "attn2.processor.to_k");
    for (down_key, up_key) in [
        (format!("lora_unet_{kohya}.lora_down.weight"), format!("lora_unet_{kohya}.lora_up.weight")),
        (format!("lora_unet_{kohya}.lora_A.weight"), format!("lora_unet_{kohya}.lora_B.weight")),
        (format!("unet.{layer}.lora.down.weight"), format!("unet.{layer}.lora.up.weight")),
        (format!("unet.{layer}.lora_A.weight"), format!("unet.{layer}.lora_B.weight")),
        (format!("{processor}_lora.down.weight"), format!("{processor}_lora.up.weight")),
        (format!("base_model.model.{layer}.lora_A.weight"), format!("base_model.model.{layer}.lora_B.weight")),
    ] {
        let path = folder.path().join("lora.safetensors");
        write(&path, &[(&down_key, down.shallow_clone()), (&up_key, up.shallow_clone())]);
        let lora = read(&path, &run).unwrap();
        let change = lora.unet[layer].low_rank.as_ref().unwrap();
        assert_close(&down_key, &change.product(), &up.matmul(&down), 1e-6);
    }
    // The text encoder's, full deltas, and an alpha of half the rank.
    let of_text = || {
        let all = run.pipeline.parameters.text_encoder.iter();
        let mut found = all.filter(|(name, _)| name.ends_with("encoder.layers.0.self_attn.q_proj.weight"));
        found.next().unwrap().1.shallow_clone()
    };
    let width = of_text().size()[0];
    let path = folder.path().join("te.safetensors");
    let [down, up] = [(1, [2, width]), (2, [width, 2])].map(|(seed, size)| libtorch::random::normal(seed, &size));
    let te = "lora_te_text_model_encoder_layers_0_self_attn_q_proj";
    let norm = "lora_unet_mid_block_attentions_0_transformer_blocks_0_norm1";
    write(
        &path,
        &[
            (&format!("{te}.lora_down.weight"), down.shallow_clone()),
            (&format!("{te}.lora_up.weight"), up.shallow_clone()),
            (&format!("{te}.alpha"), Tensor::from(1f32)),
            (&format!("{norm}.diff"), Tensor::ones([16], F32)),
            (&format!("{norm}.diff_b"), Tensor::ones([16], F32) * 2.0),
        ],
    );
    let parameters = &run.pipeline.parameters;
    let norm = "mid_block.attentions.0.transformer_blocks.0.norm1";
    let [weight, bias] = ["weight", "bias"].map(|part| parameters.unet.get(&format!("{norm}.{part}")).unwrap().copy());
    let q = of_text().copy();
    merge(&read(&path, &run).unwrap(), &run, 0.5);
    let of_unet = |part: &str| parameters.unet.get(&format!("{norm}.{part}")).unwrap();
    assert_close("diff", of_unet("weight"), &(weight + 0.5), 1e-6);
    assert_close("diff_b", of_unet("bias"), &(bias + 1.0), 1e-6);
    let expected = q + up.matmul(&down) * 0.25;
    assert_close("text", &of_text(), &expected, 1e-6);
}

#[test]
fn files_that_cannot_be_used_are_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let run = Loop::load("tiny-sd21");
    let path = folder.path().join("lora.safetensors");
    let refuse = |tensors: &[(&str, Tensor)], words: &str| {
        write(&path, tensors);
        let error = format!("{:#}", read(&path, &run).unwrap_err());
        assert!(error.contains(words) && error.starts_with(path.to_str().unwrap()), "{error}");
    };
    let matrix = |rows: i64, columns: i64| Tensor::ones([rows, columns], F32);
    let sdxl = "it is a LoRA for SDXL, but this model is Stable Diffusion 1.x or 2.x";
    for key in
        ["lora_unet_input_blocks_4_1_proj_in", "lora_te1_text_model_encoder_layers_0_mlp_fc1", "lora_te2_text_model_x"]
    {
        refuse(&[(&format!("{key}.lora_down.weight"), matrix(2, 8))], sdxl);
    }
    let flux = "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight";
    refuse(&[(flux, matrix(2, 8))], "it is a LoRA for Flux, Stable Diffusion 3 or the like");
    let k = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k";
    let [down, up] = ["down", "up"].map(|part| format!("{k}.lora_{part}.weight"));
    refuse(
        &[(&down, matrix(2, 64)), (&up, matrix(16, 2))],
        "it is of a model of another width, for its mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight has the \
         shape [16, 64], and this model's [16, 32]",
    );
    refuse(&[(&down, matrix(2, 32))], "there is lora_down, but no lora_up");
    refuse(&[(&down, matrix(2, 32)), (&up, matrix(16, 3))], "whose product is no matrix");
    refuse(&[(&down, matrix(2, 32)), (&format!("{k}.alpha"), matrix(2, 2))], "alpha is one number");
    refuse(&[(&format!("{k}.dora_scale"), matrix(2, 32))], "it is a DoRA");
    refuse(&[(&format!("{k}.hada_w1_a"), matrix(2, 32))], "it is a LyCORIS or OFT network");
    refuse(
        &[("other.lora_down.weight", matrix(2, 32))],
        "has other.lora_down.weight, which changes nothing in this model",
    );
    refuse(&[("model.weight", matrix(2, 32))], "has model.weight, which changes nothing in this model");
    refuse(&[], "is empty");
    let mut large = Lora::default();
    let low_rank = Some(LowRank { down: matrix(1, 32) * 1e6, up: matrix(16, 1), alpha: 1.0 });
    large.unet.insert("x".to_owned(), LayerChange { low_rank, ..LayerChange::default() });
    let error = large.write(&path, LoraKeys::Kohya, Kind::Half, &[]).unwrap_err().to_string();
    assert!(error.contains("does not fit into fp16"), "{error}");
}

#[test]
fn pefts_folder_of_oft_generates_its_image_and_ours_is_the_same() {
    let prompt = "a photo of <new> ball";
    let folder = tempfile::tempdir().unwrap();
    for name in ["oft", "coft"] {
        let golden = Golden::open(&format!("methods/oft/{name}.safetensors"));
        let mut ours = fixtures().join("methods/oft").join(name);
        for _ in 0..2 {
            let mut run = Loop::load("tiny-sd21");
            run.add_placeholder("photo");
            let (adapter, tensors) = read_oft(&ours).unwrap();
            let adapters = Adapters::install(&mut run.pipeline.unet, &adapter, 0).unwrap();
            adapters.load(&tensors).unwrap();
            golden.assert_close("image_latents", &run.image(prompt).latents, 1e-4);
            ours = folder.path().join(name);
            if !ours.exists() {
                write_oft(&ours, &adapters).unwrap();
            }
        }
    }
    let config = |text: &str| {
        let path = folder.path().join("oft/adapter_config.json");
        std::fs::write(path, text).unwrap();
        read_oft(&folder.path().join("oft")).unwrap_err().to_string()
    };
    let neumann = config(r#"{"peft_type": "OFT", "r": 4, "use_cayley_neumann": true}"#);
    assert!(neumann.contains("approximates rotations and turns the other way"), "{neumann}");
    let blocks = config(r#"{"peft_type": "OFT", "r": 0, "oft_block_size": 8}"#);
    assert!(blocks.contains("with blocks of 8 numbers, but only a number of blocks is read"), "{blocks}");
    let lora = config(r#"{"peft_type": "LORA", "r": 4}"#);
    assert!(lora.contains("holds an adapter of the type LORA, but only OFT is read"), "{lora}");
}

#[test]
fn an_extracted_lora_of_full_rank_is_the_learned_model() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| Archive::open_folder(path).unwrap();
    for model in ["tiny-sd21", "tiny-sd15"] {
        let learned = Loop::load(model);
        for (i, (name, parameter)) in learned.pipeline.parameters.unet.iter().enumerate() {
            let size = parameter.size();
            let change =
                libtorch::random::normal(i as u64, &size) * 0.3 / (size[1..].iter().product::<i64>() as f64).sqrt();
            if !name.starts_with("time_embedding") {
                let _ = tch::no_grad(|| parameter.shallow_clone().g_add_(&change));
            }
        }
        let unet = folder.path().join(model);
        learned.pipeline.parameters.unet.save(&unet.with_extension("safetensors")).unwrap();
        let changed = Archive::open(&unet.with_extension("safetensors")).unwrap().tensors().unwrap();
        let base = open(&fixtures().join(model).join("unet"));
        let all = Extraction { rank: 16, convolutions: true, full_rest: true, clamp_quantile: None };
        let mut seen = (0, 0);
        let extracted = extract(&base, &changed, &all, &mut |done, total| seen = (done, total)).unwrap();
        assert!(seen.0 == seen.1 && seen.0 > 600);
        assert!(extracted.left_out < 1e-6 && extracted.left_out_of_layers < 1e-6, "{extracted:?}");
        let path = folder.path().join("lora.safetensors");
        extracted.lora.write(&path, LoraKeys::Kohya, Kind::Float, &[]).unwrap();
        let run = Loop::load(model);
        merge(&read(&path, &run).unwrap(), &run, 1.0);
        let (found, expected) = (run.image(PROMPT), learned.image(PROMPT));
        assert_close("image", &found.latents, &expected.latents, 1e-4);
        found.assert_equal(&expected.pixels());

        // What is left out is more for less.
        let share = |extraction: Extraction| {
            let extracted = extract(&base, &changed, &extraction, &mut |_, _| ()).unwrap();
            (extracted.left_out, extracted.left_out_of_layers)
        };
        let low = Extraction { rank: 2, convolutions: false, full_rest: false, clamp_quantile: None };
        let (left_out, of_layers) = share(low);
        assert!(0.0 < of_layers && of_layers < left_out && left_out < 1.0, "{of_layers} {left_out}");
        assert!(share(Extraction { rank: 4, ..low }).0 < left_out);
        assert!(share(Extraction { convolutions: true, ..low }).0 < left_out);
        assert!(share(Extraction { full_rest: true, ..low }).0 < left_out);
        assert!(share(Extraction { clamp_quantile: Some(0.99), ..low }).0 > left_out);
        let says = |extraction: Extraction, learned: &Tensors, words: &str| {
            let error = extract(&base, learned, &extraction, &mut |_, _| ()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        says(
            Extraction { rank: 17, ..low },
            &changed,
            "the rank 17 cannot be: the largest layers have 16, so use 1 to 16",
        );
        says(low, &base.tensors().unwrap(), "the two U-Nets are the same");
    }
    let [one, other] = ["tiny-sd21", "tiny-sd15"].map(|model| open(&fixtures().join(model).join("unet")));
    let low = Extraction { rank: 2, convolutions: false, full_rest: false, clamp_quantile: None };
    let error = extract(&one, &other.tensors().unwrap(), &low, &mut |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("is not the same in both"), "{error}");
}
