//! Against torch's numbers, on a text encoder's own table; and properties.
#![allow(clippy::unwrap_used)]

use alignment::{Neighbourhood, Shift};
use clip::ClipTextModel;
use golden::{Golden, assert_close, fixtures};
use tch::{Device, Kind, Tensor};

fn golden() -> Golden {
    Golden::open("alignment/tokens.safetensors")
}

fn table() -> Tensor {
    let folder = fixtures().join("tiny-sd21/text_encoder");
    let (model, _) = ClipTextModel::from_folder(&folder, (Kind::Float, Device::Cpu)).unwrap();
    model.token_embeddings().shallow_clone()
}

#[test]
fn the_nearest_tokens_are_torchs() {
    let golden = golden();
    let nearest = Neighbourhood::of(&golden.get("learned"), &table()).unwrap().nearest(10);
    let ids = Vec::<i64>::try_from(golden.get("ids")).unwrap();
    assert_eq!(nearest.iter().map(|token| token.id).collect::<Vec<_>>(), ids);
    let cosines: Vec<f64> = nearest.iter().map(|token| token.cosine).collect();
    golden.assert_close("cosines", &Tensor::from_slice(&cosines), 1e-6);
    assert_eq!(nearest.iter().map(|token| token.rank).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
}

#[test]
fn the_shift_is_torchs() {
    let golden = golden();
    let Shift { cosine, start_norm, norm, distance } =
        Shift::between(&golden.get("start"), &golden.get("learned")).unwrap();
    golden.assert_close("shift", &Tensor::from_slice(&[cosine, start_norm, norm, distance]), 1e-6);
}

#[test]
fn a_token_is_nearest_to_itself_and_has_its_own_rank() {
    let table = table();
    for id in [0, 7, 1199] {
        let neighbourhood = Neighbourhood::of(&(table.get(id) * 3.0), &table).unwrap();
        let itself = neighbourhood.token(id).unwrap();
        assert_eq!((itself.rank, neighbourhood.nearest(1)[0].id), (1, id));
        assert!((itself.cosine - 1.0).abs() < 1e-6);
    }
    let neighbourhood = Neighbourhood::of(&golden().get("learned"), &table).unwrap();
    for token in neighbourhood.nearest(1200) {
        assert_eq!(neighbourhood.token(token.id).unwrap(), token);
    }
}

#[test]
fn half_precision_tables_are_read_in_f32() {
    let (learned, halves) = (golden().get("learned"), table().to_kind(Kind::BFloat16));
    let cosines = |table: &Tensor| {
        let nearest = Neighbourhood::of(&learned, table).unwrap().nearest(20);
        Tensor::from_slice(&nearest.iter().map(|token| token.cosine).collect::<Vec<_>>())
    };
    assert_close("bf16", &cosines(&halves), &cosines(&halves.to_kind(Kind::Float)), 0.0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let says = |result: anyhow::Result<()>, words: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let (vector, table) = (golden().get("learned"), table());
    let short = vector.narrow(0, 0, 5);
    says(Shift::between(&vector, &short).map(|_| ()), "[32] and [5]");
    says(Shift::between(&vector, &(&vector * f64::NAN)).map(|_| ()), "NaN");
    says(Neighbourhood::of(&short, &table).map(|_| ()), "shape [5]");
    says(Neighbourhood::of(&vector, &table).unwrap().token(1200).map(|_| ()), "token 1200");
}

#[test]
fn a_row_of_zeros_is_near_nothing() {
    let table = table();
    let _ = table.get(3).zero_();
    let token = Neighbourhood::of(&golden().get("learned"), &table).unwrap().token(3).unwrap();
    assert_eq!(token.cosine, 0.0);
}
