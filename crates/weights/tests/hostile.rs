//! Whatever bytes a file has: tensors or a sentence, never a panic.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use weights::Archive;

/// A header's values as somebody may write them, near what is right and far from it.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..17_u64, Just(u64::MAX), Just(1 << 63), Just(1 << 40), any::<u64>()]
}

fn tensor() -> impl Strategy<Value = String> {
    let dtype = prop_oneof![Just("F32"), Just("BF16"), Just("BOOL"), Just("F8_E4M3"), Just("f32"), Just("I64")];
    (dtype, proptest::collection::vec(number(), 0..4), number(), number()).prop_map(|(dtype, shape, start, end)| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#)
    })
}

fn read(bytes: &[u8]) {
    let file = tempfile::Builder::new().suffix(".safetensors").tempfile().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    match Archive::open(file.path()) {
        // What a header promises is there, or it is refused.
        Ok(archive) => drop(archive.tensors()),
        Err(error) => assert!(error.to_string().contains(&file.path().display().to_string()), "{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read(&bytes);
    }

    #[test]
    fn any_header(tensors in proptest::collection::vec(tensor(), 0..3), length in prop_oneof![3 => Just(None), 1 => number().prop_map(Some)], body in 0..40_usize) {
        let tensors: Vec<String> = tensors.iter().enumerate().map(|(i, tensor)| format!("\"{i}\":{tensor}")).collect();
        let header = format!("{{{}}}", tensors.join(","));
        let mut bytes = length.unwrap_or(header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + body, 7);
        read(&bytes);
    }

    #[test]
    fn a_file_with_a_few_wrong_bytes(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let tensor = tch::Tensor::arange(6, (tch::Kind::Float, tch::Device::Cpu)).reshape([2, 3]);
        let file = tempfile::Builder::new().suffix(".safetensors").tempfile().unwrap();
        weights::save(file.path(), [("a", &tensor)]).unwrap();
        let mut bytes = std::fs::read(file.path()).unwrap();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        read(&bytes);
    }
}
