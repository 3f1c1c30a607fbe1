//! The original code's names and shapes for the real geometries, against diffusers' converter.

use std::collections::BTreeMap;

use clip::{ClipTextModel, ClipTextModelWithProjection, TextConfig};
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
        Family::V2 => (unet::Config::sd21_base(), TextConfig::sd21()),
        Family::Sdxl => (unet::Config::sdxl_base(), TextConfig::sd15()),
    };
    let (_, unet) = weights::build(&Hollow, common::F32, |vs| UNet::new(vs, &unet)).unwrap();
    let (_, vae) = weights::build(&Hollow, common::F32, |vs| AutoencoderKl::new(vs, &vae::Config::sd15())).unwrap();
    let (_, text) = weights::build(&Hollow, common::F32, |vs| ClipTextModel::new(vs, &text)).unwrap();
    let second = (family == Family::Sdxl).then(|| {
        let config = TextConfig::sdxl_second();
        let (_, second) =
            weights::build(&Hollow, common::F32, |vs| ClipTextModelWithProjection::new(vs, &config)).unwrap();
        numbered(&second, 5000)
    });
    let text_encoder = numbered(&text, 4000);
    Components { family, unet: numbered(&unet, 0), vae: numbered(&vae, 3000), text_encoder, text_encoder_2: second }
}

/// Of each tensor of a family's single file the names in diffusers and the shape, by its name: as diffusers' own converter has it.
fn originals(family: Family) -> BTreeMap<String, (String, String)> {
    if family == Family::Sdxl {
        let rows: Vec<(String, String, String)> =
            weights::read_config(&fixtures().join("export/names-sdxl.json")).unwrap();
        return rows.into_iter().map(|(name, parts, shape)| (name, (parts, shape))).collect();
    }
    let rows: Vec<Row> = weights::read_config(&fixtures().join("export/names.json")).unwrap();
    let of_family = |(name, parts, v1, v2): Row| {
        let shape = if family == Family::V1 { v1 } else { v2 };
        Some((name, (parts, shape?)))
    };
    rows.into_iter().filter_map(of_family).collect()
}

/// Name in the original code, names in diffusers, shapes in Stable Diffusion 1.5 and 2.1.
type Row = (String, String, Option<String>, Option<String>);

#[test]
fn names_and_shapes_are_the_originals_and_come_back() {
    for family in [Family::V1, Family::V2, Family::Sdxl] {
        let original = components(family);
        let numbers = |tensors: &[&Tensors]| -> BTreeMap<String, f64> {
            tensors.iter().copied().flatten().map(|(name, tensor)| (name.clone(), first_value(tensor))).collect()
        };
        let first = numbers(&[&original.unet, &original.vae, &original.text_encoder]);
        let second = numbers(&original.text_encoder_2.iter().collect::<Vec<_>>());
        let ldm = components(family).into_ldm(Kind::Float).unwrap();

        let rows = originals(family);
        for (name, (parts, shape)) in &rows {
            let numbers = if name.starts_with("conditioner.embedders.1.") { &second } else { &first };
            let tensor = ldm.get(name).unwrap_or_else(|| panic!("no {name}"));
            let size: Vec<String> = tensor.size().iter().map(i64::to_string).collect();
            assert_eq!(size.join("x"), *shape, "{name}");
            let parts: Vec<&str> = parts.split_whitespace().collect();
            if !parts.is_empty() {
                let values: Vec<f64> = tensor.chunk(parts.len() as i64, 0).iter().map(first_value).collect();
                let numbers: Vec<f64> = parts.iter().map(|part| numbers[*part]).collect();
                assert_eq!(values, numbers, "{name}");
            }
        }
        assert_eq!(ldm.len(), rows.len(), "{family:?}");

        let back = Components::from_ldm(&ldm).unwrap();
        assert_eq!(back.family, family);
        for (back, original) in [
            (back.unet, original.unet),
            (back.vae, original.vae),
            (back.text_encoder, original.text_encoder),
            (back.text_encoder_2.unwrap_or_default(), original.text_encoder_2.unwrap_or_default()),
        ] {
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
