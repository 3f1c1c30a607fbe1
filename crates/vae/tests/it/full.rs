//! The VAE of Stable Diffusion 1.5 and 2.1 at its full size, with weights by formula, against diffusers 0.42.1.

use golden::{Golden, assert_close};
use tch::Kind;
use vae::Config;

use crate::common::{numbers, procedural};

#[test]
fn equals_diffusers() {
    let golden = Golden::open("vae/full.safetensors");
    let (vae, parameters) = procedural(&Config::sd21());
    assert_eq!(parameters.count(), 83_653_863);
    let images = numbers("full images", &[1, 3, 64, 64]);
    let latents = numbers("full latents", &[1, 4, 8, 8]);
    let posterior = vae.encode(&images).unwrap();
    golden.assert_close("mean", posterior.mean(), 1e-4);
    golden.assert_close("logvar", posterior.logvar(), 1e-4);
    let decoded = vae.decode(&latents).unwrap();
    golden.assert_close("images [::3]", &decoded.slice(2, 0, 64, 3).slice(3, 0, 64, 3), 1e-4);

    // bf16 activations with the same f32 parameters. Measured: 1.5 % of the largest value (encode), 2.4 % (decode).
    let half = vae.encode(&images.to_kind(Kind::BFloat16)).unwrap();
    assert_close("encode in bf16", &half.moments(), &posterior.moments(), 0.03);
    let half = vae.decode(&latents.to_kind(Kind::BFloat16)).unwrap();
    assert_close("decode in bf16", &half, &decoded, 0.03);
}
