//! The real geometries against transformers, with weights by the formula. One model at a time is in memory.

use std::sync::{Mutex, MutexGuard, PoisonError};

use clip::{ClipConfig, ClipModel, ClipTextModel, TextConfig};
use golden::{Formula, Golden, assert_close};
use tch::{Kind, Tensor};

use crate::common::{CPU, ids, numbers};

const ENDS: (i64, i64) = (49406, 49407);

fn alone() -> MutexGuard<'static, ()> {
    static MEMORY: Mutex<()> = Mutex::new(());
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn golden() -> Golden {
    Golden::open("clip/full.safetensors")
}

fn sliced(hidden: &Tensor) -> Tensor {
    hidden.slice(1, None, None, 11).slice(2, None, None, 16)
}

/// `bf16` bounds the error that bf16 makes, here and below about twice what was measured.
fn text_encoder(name: &str, config: &TextConfig, pad: i64, bf16: f64) {
    let _alone = alone();
    let (model, _) = weights::build(&Formula, CPU, |vs| ClipTextModel::new(vs, config)).unwrap();
    let ids = ids(&[12], pad, ENDS);
    let embeddings = model.embed(&ids).unwrap().set_requires_grad(true);
    let hidden = model.forward_embeddings(&embeddings).unwrap();
    golden().assert_close(&format!("{name}.last_hidden_state"), &sliced(&hidden), 1e-4);
    golden().assert_close(&format!("{name}.pooled"), &model.pooled(&hidden, &ids).unwrap(), 1e-4);
    hidden.sin().sum(Kind::Float).backward();
    golden().assert_close(&format!("{name}.gradient"), &sliced(&embeddings.grad()), 1e-4);

    let half = embeddings.detach().to_kind(Kind::BFloat16);
    let half = tch::no_grad(|| model.forward_embeddings(&half)).unwrap();
    assert_close(&format!("{name} in bf16"), &half, &hidden, bf16);
}

#[test]
fn stable_diffusion_2_1s_text_encoder() {
    text_encoder("sd21", &TextConfig::sd21(), 0, 0.06);
}

#[test]
fn stable_diffusion_1_5s_text_encoder() {
    text_encoder("sd15", &TextConfig::sd15(), ENDS.1, 0.03);
}

fn both_towers(name: &str, config: &ClipConfig, bf16: f64) {
    let _alone = alone();
    let (model, _) = weights::build(&Formula, CPU, |vs| ClipModel::new(vs, config)).unwrap();
    let pixels = ["pixel_values", "other"].map(|name| numbers(name, &[3, 224, 224]));
    let pixels = Tensor::stack(&pixels, 0);
    let images = model.image_features(&pixels).unwrap();
    let texts = model.text_features(&ids(&[5, 12], ENDS.1, ENDS)).unwrap();
    golden().assert_close(&format!("{name}.image_features"), &images, 1e-4);
    golden().assert_close(&format!("{name}.text_features"), &texts, 1e-4);
    let logits = model.logits_per_image(&images, &texts).unwrap();
    golden().assert_close(&format!("{name}.logits_per_image"), &logits, 1e-4);
    let half = model.image_features(&pixels.narrow(0, 0, 1).to_kind(Kind::BFloat16)).unwrap();
    assert_close(&format!("{name} in bf16"), &half, &images.narrow(0, 0, 1), bf16);
}

#[test]
fn vit_b32() {
    both_towers("vit_b32", &ClipConfig::vit_b32(), 0.02);
}

#[test]
fn open_clip_h14() {
    both_towers("open_clip_h14", &ClipConfig::open_clip_h14(), 0.035);
}
