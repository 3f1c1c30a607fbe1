//! Other architectures and latent sizes against diffusers, with procedural weights.

use std::collections::BTreeMap;

use golden::{Formula, Golden, fixtures};
use tch::{Device, Kind, Tensor};
use unet::{AttentionMaps, Config, UNet};
use weights::{Init, Source};

const TO: (Kind, Device) = (Kind::Float, Device::Cpu);

/// The numbers of `uniform` in `fixtures/unet/generate.py`.
fn uniform(name: &str, shape: &[i64]) -> Tensor {
    let values = Formula.fetch(name, &[shape.iter().product()], Init::Const(0.0), TO).unwrap();
    (values * (10.0 * 3f64.sqrt())).reshape(shape)
}

#[test]
fn all_variants_equal_diffusers() {
    let configs: BTreeMap<String, Config> = weights::read_config(&fixtures().join("unet/variants.json")).unwrap();
    let golden = Golden::open("unet/variants.safetensors");
    assert_eq!(golden.names().count(), 2 * configs.len());
    for (name, config) in configs {
        let (unet, _) = weights::build(&Formula, TO, |vs| UNet::new(vs, &config)).unwrap();
        let mut shape = golden.get(&format!("{name}.output")).size();
        shape[1] = config.in_channels;
        let sample = uniform(&format!("{name}.sample"), &shape);
        let timesteps = Tensor::from_slice(&[3.25_f32, 946.421]);
        let text = uniform(&format!("{name}.encoder_hidden_states"), &[2, 7, config.cross_attention_dim]);

        let output = unet.forward(&sample, &timesteps, &text, None).unwrap();
        golden.assert_close(&format!("{name}.output"), &output, 1e-5);
        let mut maps = AttentionMaps::new(0..7);
        let _ = unet.forward(&sample, &timesteps, &text, Some(&mut maps)).unwrap();
        let mean = |map: &unet::AttentionMap| map.probabilities.mean_dim([0i64, 2, 3].as_slice(), false, Kind::Float);
        let means: Vec<Tensor> = maps.maps.iter().map(mean).collect();
        golden.assert_close(&format!("{name}.means"), &Tensor::stack(&means, 0), 1e-5);
    }
}
