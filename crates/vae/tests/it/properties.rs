//! What must hold whatever the weights are.

use golden::{Golden, assert_close, fixtures};
use tch::Tensor;
use vae::{AutoencoderKl, Config, Posterior, Tiling};
use weights::{Archive, Tensors};

use crate::common::{CPU, numbers, tiny};

/// LibTorch's convolutions add in another order for another batch size.
const ROUNDING: f64 = 1e-5;

#[test]
fn a_batch_is_its_images_one_by_one() {
    let (vae, _) = tiny("tiny-sd21");
    let images = numbers("batch", &[3, 3, 24, 40]);
    let latents = numbers("latent batch", &[3, 4, 5, 3]);
    let (encoded, decoded) = (vae.encode(&images).unwrap().moments(), vae.decode(&latents).unwrap());
    for i in 0..3 {
        let single = vae.encode(&images.narrow(0, i, 1)).unwrap().moments();
        assert_close("encode", &single, &encoded.narrow(0, i, 1), ROUNDING);
        assert_close("decode", &vae.decode(&latents.narrow(0, i, 1)).unwrap(), &decoded.narrow(0, i, 1), ROUNDING);
    }
    let slices = Tiling { slice_batch: true, tile_size: None };
    assert_close("slices", &vae.encode_tiled(&images, &slices).unwrap().moments(), &encoded, ROUNDING);
    assert_close("slices", &vae.decode_tiled(&latents, &slices).unwrap(), &decoded, ROUNDING);
}

#[test]
fn images_no_larger_than_a_tile_stay_whole() {
    let (vae, _) = tiny("tiny-sd21");
    let tiling = Tiling { slice_batch: false, tile_size: Some(64) };
    let latents = numbers("one tile", &[1, 4, 8, 8]);
    assert_eq!(vae.decode_tiled(&latents, &tiling).unwrap(), vae.decode(&latents).unwrap());
    let images = numbers("one image tile", &[1, 3, 64, 64]);
    assert_eq!(vae.encode_tiled(&images, &tiling).unwrap().moments(), vae.encode(&images).unwrap().moments());
}

/// Slicing and tiling together, of images of any size: the shape is right, and each image is what it is alone.
#[test]
fn tiles_and_slices_combine() {
    let (vae, _) = tiny("tiny-sd21");
    let tiling = Tiling { slice_batch: true, tile_size: Some(32) };
    for (height, width) in [(1, 5), (5, 1), (4, 7), (13, 6), (3, 3)] {
        let latents = numbers("any size", &[2, 4, height, width]);
        let decoded = vae.decode_tiled(&latents, &tiling).unwrap();
        assert_eq!(decoded.size(), [2, 3, 8 * height, 8 * width]);
        let alone = vae.decode_tiled(&latents.narrow(0, 1, 1), &tiling).unwrap();
        assert_eq!(decoded.narrow(0, 1, 1), alone);
        assert_eq!(vae.encode_tiled(&decoded, &tiling).unwrap().mean().size(), latents.size());
    }
}

#[test]
fn gradients_flow_through_tiles() {
    let (vae, _) = tiny("tiny-sd21");
    let tiling = Tiling { slice_batch: true, tile_size: Some(32) };
    let latents = numbers("tiled gradient", &[2, 4, 5, 7]).set_requires_grad(true);
    vae.decode_tiled(&latents, &tiling).unwrap().square().sum(tch::Kind::Float).backward();
    let gradient = latents.grad();
    assert!(bool::try_from(gradient.isfinite().all()).unwrap());
    assert!(bool::try_from(gradient.ne(0.0).all()).unwrap(), "every latent matters");
}

/// diffusers' distribution of moments far beyond both ends of what is allowed.
#[test]
fn a_posterior_of_extreme_moments() {
    let golden = Golden::open("vae/posterior.safetensors");
    let posterior = Posterior::from_moments(&(numbers("moments", &[2, 8, 5, 3]) * 60.0)).unwrap();
    golden.assert_close("mean", posterior.mean(), 1e-6);
    golden.assert_close("logvar", posterior.logvar(), 1e-6);
    golden.assert_close("std", &posterior.std(), 1e-6);
    golden.assert_close("kl", &posterior.kl(), 1e-6);
    golden.assert_close("sample", &posterior.sample(&numbers("noise", &[2, 4, 5, 3])).unwrap(), 1e-6);
    assert_eq!(Posterior::from_moments(&posterior.moments()).unwrap().moments(), posterior.moments());
}

#[test]
fn logvar_is_clamped_at_both_ends() {
    // A model whose encoder adds nothing to the moments' biases.
    let mut tensors = tiny_tensors();
    let quant = |tensors: &mut Tensors, bias: &[f32]| {
        tensors.insert("quant_conv.weight".to_owned(), Tensor::zeros([8, 8, 1, 1], CPU));
        tensors.insert("quant_conv.bias".to_owned(), Tensor::from_slice(bias));
    };
    quant(&mut tensors, &[0.5, -0.5, 0.0, 2.0, 1e4, -1e4, 20.5, -29.5]);
    let (vae, _) = build(&tensors);
    let images = numbers("any image", &[1, 3, 8, 8]);
    let posterior = vae.encode(&images).unwrap();
    let values = |t: &Tensor| Vec::<f32>::try_from(t.reshape([-1])).unwrap();
    assert_eq!(values(posterior.mean()), [0.5, -0.5, 0.0, 2.0]);
    assert_eq!(values(posterior.logvar()), [20.0, -30.0, 20.0, -29.5]);
    let std: Vec<f64> = values(&posterior.std()).into_iter().map(f64::from).collect();
    for (std, logvar) in std.iter().zip([20.0_f64, -30.0, 20.0, -29.5]) {
        assert!((std / (logvar / 2.0).exp() - 1.0).abs() < 1e-6);
    }
    // ½ Σ (mean² + var − 1 − ln var)
    let terms = [(0.5_f64, 20.0_f64), (-0.5, -30.0), (0.0, 20.0), (2.0, -29.5)];
    let expected: f64 = terms.iter().map(|(mean, logvar)| 0.5 * (mean * mean + logvar.exp() - 1.0 - logvar)).sum();
    assert!((f64::try_from(posterior.kl()).unwrap() / expected - 1.0).abs() < 1e-6);
}

#[test]
fn scaling_is_undone() {
    let (vae, _) = tiny("tiny-sd21");
    let latents = numbers("scaled", &[1, 4, 3, 3]);
    let scaled = vae.scale_latents(&latents);
    assert_close("scaled", &scaled, &(&latents * 0.18215), 1e-7);
    assert_close("unscaled", &vae.unscale_latents(&scaled), &latents, 1e-6);
}

/// What is saved has the new names and is the same model.
#[test]
fn saving_and_loading_again() {
    let (vae, parameters) = tiny("tiny-sd15");
    let folder = tempfile::tempdir().unwrap();
    parameters.save(&folder.path().join("diffusion_pytorch_model.safetensors")).unwrap();
    std::fs::write(folder.path().join("config.json"), serde_json::to_string(vae.config()).unwrap()).unwrap();
    let (again, _) = AutoencoderKl::from_folder(folder.path(), CPU).unwrap();
    assert_eq!(again.config(), vae.config());
    let latents = numbers("latents", &[2, 4, 4, 3]);
    assert_eq!(again.decode(&latents).unwrap(), vae.decode(&latents).unwrap());
    let archive = Archive::open_folder(folder.path()).unwrap();
    assert!(archive.shapes().any(|(name, _)| name == "decoder.mid_block.attentions.0.to_out.0.bias"));
}

#[test]
fn configs_are_read_with_diffusers_defaults() {
    let empty: Config = serde_json::from_str("{}").unwrap();
    assert_eq!(empty, Config::default());
    empty.validate().unwrap();
    // What the published SD 2.1 VAE says; scaling_factor is absent there.
    let text = r#"{"_class_name": "AutoencoderKL", "_diffusers_version": "0.8.0", "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
        "in_channels": 3, "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3,
        "sample_size": 768,
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]}"#;
    let published: Config = serde_json::from_str(text).unwrap();
    assert_eq!(published, Config::sd21());
    assert_eq!(published.downscale_factor(), 8);
    assert_eq!(Config { sample_size: 768, ..Config::sd15() }, Config::sd21());
}

fn tiny_tensors() -> Tensors {
    Archive::open_folder(&fixtures().join("tiny-sd21/vae")).unwrap().tensors().unwrap()
}

fn build(tensors: &Tensors) -> (AutoencoderKl, weights::Parameters) {
    let config = tiny("tiny-sd21").0.config().clone();
    weights::build(tensors, CPU, |vs| AutoencoderKl::new(vs, &config)).unwrap()
}
