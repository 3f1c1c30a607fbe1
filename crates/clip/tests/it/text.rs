//! The text encoder against transformers.

use clip::{ClipTextModel, TextConfig};
use golden::{Golden, assert_close, fixtures, relative_error};
use tch::{Kind, Tensor};

use crate::common::{BOS, CPU, EOS, ids, numbers};

/// Name, what the family pads with.
const FAMILIES: [(&str, i64); 2] = [("sd21", 0), ("sd15", EOS)];

fn load(name: &str) -> ClipTextModel {
    ClipTextModel::from_folder(&fixtures().join(format!("tiny-{name}/text_encoder")), CPU).unwrap().0
}

fn cases() -> impl Iterator<Item = (Golden, ClipTextModel, Tensor)> {
    FAMILIES.into_iter().map(|(name, pad)| {
        (Golden::open(&format!("clip/text-{name}.safetensors")), load(name), ids(&[9, 75], pad, (BOS, EOS)))
    })
}

#[test]
fn hidden_states_and_pooled_equal_the_reference() {
    for (golden, model, ids) in cases() {
        let hidden = model.forward(&ids).unwrap();
        golden.assert_close("last_hidden_state", &hidden, 1e-5);
        golden.assert_close("pooled", &model.pooled(&hidden, &ids).unwrap(), 1e-5);
    }
}

#[test]
fn states_before_the_last_layers_equal_the_reference() {
    let golden = Golden::open("clip/hidden.safetensors");
    for ((_, model, ids), (name, _)) in cases().zip(FAMILIES) {
        let ids = ids.narrow(0, 0, 1);
        for skip in 0..3 {
            let hidden = model.hidden_state(&ids, skip).unwrap().narrow(1, 0, 12);
            golden.assert_close(&format!("{name}.hidden.{skip}"), &hidden, 1e-5);
            let normed = model.forward_skipping(&ids, skip).unwrap().narrow(1, 0, 12);
            golden.assert_close(&format!("{name}.clip_skip.{skip}"), &normed, 1e-5);
        }
        assert_eq!(model.forward_skipping(&ids, 0).unwrap(), model.forward(&ids).unwrap());
        assert!(model.hidden_state(&ids, 3).is_ok(), "before all layers");
        let error = model.forward_skipping(&ids, 4).unwrap_err().to_string();
        assert_eq!(error, "clip_skip is 4, but this text encoder has 3 layers");
    }
}

#[test]
fn both_families_differ_where_they_should() {
    let [sd21, sd15] = FAMILIES.map(|(name, _)| load(name));
    assert_eq!(sd21.config().hidden_act, layers::Activation::Gelu);
    assert_eq!(sd21.config().eos_token_id, 2);
    assert_eq!(sd15.config().hidden_act, layers::Activation::QuickGelu);
    assert_eq!(sd15.config().eos_token_id, EOS);
}

#[test]
fn a_replaced_embedding_and_an_added_token_equal_the_reference() {
    let learned = numbers("learned", &[32]);
    for (golden, model, ids) in cases() {
        let embeddings = model.embed(&ids).unwrap();
        embeddings.get(0).get(4).copy_(&learned);
        let hidden = model.forward_embeddings(&embeddings).unwrap();
        golden.assert_close("replaced", &hidden, 1e-5);

        let _ = ids.get(0).get(4).fill_(model.config().vocab_size);
        assert!(model.forward(&ids).is_err());
        let model = model.with_extra_tokens(&learned.unsqueeze(0)).unwrap();
        golden.assert_close("placeholder", &model.forward(&ids).unwrap().narrow(0, 0, 1), 1e-5);
    }
}

#[test]
fn gradients_of_embeddings_equal_the_reference() {
    for (golden, model, ids) in cases() {
        let embeddings = model.embed(&ids).unwrap();
        embeddings.get(0).get(4).copy_(&numbers("learned", &[32]));
        let embeddings = embeddings.set_requires_grad(true);
        model.forward_embeddings(&embeddings).unwrap().sin().sum(Kind::Float).backward();
        golden.assert_close("gradient", &embeddings.grad(), 1e-5);
    }
}

#[test]
fn tokens_may_be_added_one_after_the_other() {
    for (_, mut model, ids) in cases() {
        let (rows, first) = (numbers("learned", &[3, 32]), model.config().vocab_size);
        ids.get(0).narrow(0, 3, 3).copy_(&Tensor::from_slice(&[first + 2, first, first + 1]));
        model.set_extra_tokens(&rows).unwrap();
        let together = model.forward(&ids).unwrap();
        model.set_extra_tokens(&rows.narrow(0, 0, 1)).unwrap();
        assert!(model.forward(&ids).is_err());
        assert!(model.add_extra_tokens(&rows.narrow(1, 0, 31)).is_err());
        model.add_extra_tokens(&rows.narrow(0, 1, 2)).unwrap();
        assert_eq!(model.forward(&ids).unwrap(), together);
    }
}

#[test]
fn an_added_token_receives_the_gradient_of_its_place() {
    for (golden, model, ids) in cases() {
        let row = numbers("learned", &[1, 32]).set_requires_grad(true);
        let placeholder = model.config().vocab_size;
        let model = model.with_extra_tokens(&row).unwrap();
        let _ = ids.get(0).get(4).fill_(placeholder);
        model.forward(&ids).unwrap().sin().sum(Kind::Float).backward();
        assert_close("added row", &row.grad().get(0), &golden.get("gradient").get(0).get(4), 1e-5);
        assert!(!model.token_embeddings().requires_grad());
    }
}

#[test]
fn a_batch_equals_its_texts_alone() {
    for (_, model, ids) in cases() {
        let together = model.forward(&ids).unwrap();
        for row in 0..2 {
            let alone = model.forward(&ids.narrow(0, row, 1)).unwrap();
            assert_close("alone", &alone, &together.narrow(0, row, 1), 1e-5);
        }
    }
}

#[test]
fn a_token_sees_only_those_before_it() {
    let (_, model, ids) = cases().next().unwrap();
    let before = model.forward(&ids).unwrap();
    let _ = ids.narrow(1, 20, 1).fill_(3);
    let after = model.forward(&ids).unwrap();
    assert_eq!(before.narrow(1, 0, 20), after.narrow(1, 0, 20));
    assert!(relative_error(&after.narrow(1, 20, 57), &before.narrow(1, 20, 57)) > 0.01);
    let short = model.forward(&ids.narrow(1, 0, 30)).unwrap();
    assert_close("short", &short, &after.narrow(1, 0, 30), 1e-5);
}

#[test]
fn ids_may_be_32_bits_and_the_end_may_come_early() {
    for (_, model, ids) in cases() {
        let hidden = model.forward(&ids).unwrap();
        assert_eq!(model.forward(&ids.to_kind(Kind::Int)).unwrap(), hidden);
        let pooled = model.pooled(&hidden, &ids).unwrap();
        assert_eq!(pooled.get(0), hidden.get(0).get(10));
        assert_eq!(pooled.get(1), hidden.get(1).get(76));
    }
}

#[test]
fn added_tokens_are_never_the_end() {
    let (_, model, ids) = cases().next().unwrap();
    assert_eq!(model.config().eos_token_id, 2, "the rule of the largest id");
    let model = model.with_extra_tokens(&numbers("learned", &[1, 32])).unwrap();
    let _ = ids.get(0).get(4).fill_(1200);
    let hidden = model.forward(&ids).unwrap();
    assert_eq!(model.pooled(&hidden, &ids).unwrap().get(0), hidden.get(0).get(10));
}

/// As some programs make a table's number of rows round.
#[test]
fn the_rows_of_a_padded_table_give_way_to_added_tokens() {
    let (_, mut padded, ids) = cases().next().unwrap();
    let (_, plain, _) = cases().next().unwrap();
    let tokens = plain.config().vocab_size - 10;
    let ids = ids.clamp_max(tokens - 1);
    padded.set_tokens(tokens).unwrap();
    assert_eq!(padded.token_embeddings().size(), [tokens, 32]);
    assert_eq!(padded.forward(&ids).unwrap(), plain.forward(&ids).unwrap());

    let row = numbers("learned", &[1, 32]);
    let embeddings = plain.embed(&ids).unwrap();
    embeddings.get(0).get(4).copy_(&row.get(0));
    let _ = ids.get(0).get(4).fill_(tokens);
    let error = padded.forward(&ids).unwrap_err().to_string();
    assert!(
        error.contains(&format!("token id {tokens} is not in this text encoder's vocabulary of {tokens}")),
        "{error}"
    );
    padded.set_extra_tokens(&row).unwrap();
    let hidden = padded.forward(&ids).unwrap();
    assert_close("added", &hidden, &plain.forward_embeddings(&embeddings).unwrap(), 1e-6);
    // The added token is no end of the text, though its id is the largest.
    let ends = ids.get(0).narrow(0, 5, 72).max();
    assert!(i64::try_from(ends).unwrap() < tokens);
    assert_ne!(padded.pooled(&hidden, &ids).unwrap().get(0), hidden.get(0).get(4));
    for wrong in [0, plain.config().vocab_size + 1] {
        let error = padded.set_tokens(wrong).unwrap_err().to_string();
        assert!(error.contains(&format!("the tokenizer has {wrong} tokens")), "{error}");
    }
}

/// bf16 has 8 significant bits, 2⁻⁹ = 0.002 a rounding; three layers of them stay below 0.03.
#[test]
fn bf16_is_close_to_f32() {
    for (golden, model, ids) in cases() {
        let embeddings = model.embed(&ids).unwrap().to_kind(Kind::BFloat16);
        let hidden = model.forward_embeddings(&embeddings).unwrap();
        assert_eq!(hidden.kind(), Kind::BFloat16);
        golden.assert_close("last_hidden_state", &hidden, 0.03);
    }
}

#[test]
fn the_known_models_are_described_by_their_published_configs() {
    // The relevant keys of text_encoder/config.json of Stable Diffusion 2.1-base and 1.5.
    let sd21 = r#"{"_name_or_path": "", "architectures": ["CLIPTextModel"], "bos_token_id": 0, "eos_token_id": 2,
        "hidden_act": "gelu", "hidden_size": 1024, "initializer_factor": 1.0, "intermediate_size": 4096,
        "layer_norm_eps": 1e-05, "max_position_embeddings": 77, "model_type": "clip_text_model",
        "num_attention_heads": 16, "num_hidden_layers": 23, "pad_token_id": 1, "projection_dim": 512,
        "torch_dtype": "float32", "vocab_size": 49408}"#;
    let sd21: TextConfig = serde_json::from_str(sd21).unwrap();
    assert_eq!(sd21, TextConfig { eos_token_id: 2, ..TextConfig::sd21() });
    let sd15 = r#"{"architectures": ["CLIPTextModel"], "bos_token_id": 0, "eos_token_id": 2, "hidden_act": "quick_gelu",
        "hidden_size": 768, "intermediate_size": 3072, "layer_norm_eps": 1e-05, "max_position_embeddings": 77,
        "model_type": "clip_text_model", "num_attention_heads": 12, "num_hidden_layers": 12, "projection_dim": 768,
        "vocab_size": 49408}"#;
    let sd15: TextConfig = serde_json::from_str(sd15).unwrap();
    assert_eq!(sd15, TextConfig { eos_token_id: 2, ..TextConfig::sd15() });
    let written = serde_json::to_value(&sd15).unwrap();
    assert_eq!(written["model_type"], "clip_text_model");
    assert_eq!(serde_json::from_value::<TextConfig>(written).unwrap(), sd15);
}
