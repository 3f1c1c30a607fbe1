//! Custom Diffusion's file, as diffusers' `save_attn_procs` writes it.

use export::{load_custom_diffusion, save_custom_diffusion};
use golden::fixtures;
use tch::{Device, Kind, Tensor};
use unet::UNet;
use weights::Archive;

#[test]
fn the_file_is_diffusers_both_ways() {
    let theirs = fixtures().join("methods/custom_diffusion/reference_weights.safetensors");
    let (_, parameters) = UNet::from_folder(&fixtures().join("tiny-sd21/unet"), (Kind::Float, Device::Cpu)).unwrap();
    let trained = |name: &str| name.contains("attn2.to_k") || name.contains("attn2.to_v");
    let expected: Vec<(&str, Vec<i64>)> =
        parameters.iter().filter(|(name, _)| trained(name)).map(|(name, tensor)| (name, tensor.size())).collect();
    let loaded = load_custom_diffusion(&theirs, expected.clone()).unwrap();
    assert_eq!(loaded.len(), expected.len());
    assert!(loaded.iter().any(|(name, tensor)| !tensor.equal(parameters.get(name).unwrap())), "something was learned");

    let folder = tempfile::tempdir().unwrap();
    let [ours, plain] = ["ours", "plain"].map(|name| folder.path().join(format!("{name}.safetensors")));
    save_custom_diffusion(&ours, loaded.iter().map(|(name, tensor)| (name.as_str(), tensor))).unwrap();
    assert_eq!(Archive::open(&ours).unwrap().tensors().unwrap(), Archive::open(&theirs).unwrap().tensors().unwrap());
    weights::save(&plain, loaded.iter()).unwrap();
    assert_eq!(load_custom_diffusion(&plain, expected.clone()).unwrap(), loaded);

    let says = |expected: Vec<(&str, Vec<i64>)>, words: &str| {
        let error = load_custom_diffusion(&theirs, expected).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("reference_weights"), "{error}");
    };
    let mut wider = expected.clone();
    wider[0].1 = vec![64, 768];
    says(wider, "but this model's have [64, 768]");
    says(
        [expected.clone(), vec![("mid_block.other.attn2.to_k.weight", vec![1])]].concat(),
        "no weights for mid_block.other",
    );
    says(expected[1..].to_vec(), "no weight of this model's text keys or values");
    let error = save_custom_diffusion(&ours, [("conv_in.bias", &Tensor::from(1.0))]).unwrap_err().to_string();
    assert!(error.starts_with("conv_in.bias is no weight"), "{error}");
}
