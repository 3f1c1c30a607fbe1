//! The original code's names and shapes for the real geometries, against diffusers' converter.

use std::collections::BTreeMap;

use clip::{ClipTextModel, TextConfig};
use export::{Components, Family};
use golden::{Hollow, fixtures};
use tch::{Kind, Tensor};
use unet::UNet;
use vae::AutoencoderKl;
use weights::{Parameters, Tensors};

use crate::common;

/// The same parameters, each with its own number everywhere, counted from `first`.
fn numbered(parameters: &Parameters, first: usize) -> Tensors {
    let numbered = parameters.iter().zip(first..);
    numbered.map(|((name, t), i)| (name.to_owned(), Tensor::from(i as f32).expand(t.size(), false))).collect()
}

/// A model of the real geometry in which each parameter has its own number.
fn components(family: Family) -> Components {
    let (unet, text) = match family {
        Family::V1 => (unet::Config::sd15(), TextConfig::sd15()),
        Family::Sdxl => unreachable!("the fixture has 1.x and 2.x"),
        Family::V2 => (unet::Config::sd21_base(), TextConfig::sd21()),
    };
    let (_, unet) = weights::build(&Hollow, common::F32, |vs| UNet::new(vs, &unet)).unwrap();
    let (_, vae) = weights::build(&Hollow, common::F32, |vs| AutoencoderKl::new(vs, &vae::Config::sd15())).unwrap();
    let (_, text) = weights::build(&Hollow, common::F32, |vs| ClipTextModel::new(vs, &text)).unwrap();
    let text_encoder = numbered(&text, 2000);
    Components { family, unet: numbered(&unet, 0), vae: numbered(&vae, 1000), text_encoder, text_encoder_2: None }
}

/// Name in the original code, names in diffusers, shapes in Stable Diffusion 1.5 and 2.1.
type Row = (String, String, Option<String>, Option<String>);

#[test]
fn names_and_shapes_are_the_originals_and_come_back() {
    let rows: Vec<Row> = weights::read_config(&fixtures().join("export/names.json")).unwrap();
    for family in [Family::V1, Family::V2] {
        let original = components(family);
        let numbers: BTreeMap<&str, f64> = [&original.unet, &original.vae, &original.text_encoder]
            .into_iter()
            .flatten()
            .map(|(name, tensor)| (name.as_str(), first_value(tensor)))
            .collect();
        let ldm = components(family).into_ldm(Kind::Float).unwrap();

        let mut expected = 0;
        for (name, parts, v1, v2) in &rows {
            let Some(shape) = (if family == Family::V1 { v1 } else { v2 }) else { continue };
            expected += 1;
            let tensor = ldm.get(name).unwrap_or_else(|| panic!("no {name}"));
            let size: Vec<String> = tensor.size().iter().map(i64::to_string).collect();
            assert_eq!(size.join("x"), *shape, "{name}");
            let parts: Vec<&str> = parts.split_whitespace().collect();
            if !parts.is_empty() {
                let values: Vec<f64> = tensor.chunk(parts.len() as i64, 0).iter().map(first_value).collect();
                let numbers: Vec<f64> = parts.iter().map(|part| numbers[part]).collect();
                assert_eq!(values, numbers, "{name}");
            }
        }
        assert_eq!(ldm.len(), expected, "{family:?}");

        let back = Components::from_ldm(&ldm).unwrap();
        assert_eq!(back.family, family);
        for (back, original) in
            [(back.unet, original.unet), (back.vae, original.vae), (back.text_encoder, original.text_encoder)]
        {
            let what = |tensors: Tensors| -> Vec<_> {
                tensors.into_iter().map(|(name, t)| (name, t.size(), first_value(&t))).collect()
            };
            assert_eq!(what(back), what(original));
        }
    }
}

fn first_value(tensor: &Tensor) -> f64 {
    tensor.double_value(&vec![0; tensor.dim()])
}
