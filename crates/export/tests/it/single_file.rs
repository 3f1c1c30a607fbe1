//! Single files of the tiny models, and back.

use std::fs;
use std::path::Path;

use export::{Components, Family, SingleFile, Unet};
use tch::{Kind, Tensor};
use weights::{Archive, Tensors};

use crate::common::{self, BASES, assert_same, base, changed_unet, open, read};

fn tensors(file: &Path) -> Tensors {
    Archive::open(file).unwrap().tensors().unwrap()
}

/// The names that [`Components`] promises, made from a folder's: of transformers 5, or before diffusers 0.15.
fn promised(text_encoder: Tensors, vae: Tensors) -> (Tensors, Tensors) {
    let text_encoder = text_encoder.into_iter().filter(|(name, _)| !name.ends_with("position_ids"));
    let text_encoder = text_encoder.map(|(name, t)| (format!("text_model.{}", name.replace("text_model.", "")), t));
    let renamed = [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];
    let vae =
        vae.into_iter().map(|(name, t)| (renamed.iter().fold(name, |name, (old, new)| name.replace(old, new)), t));
    (text_encoder.collect(), vae.collect())
}

#[test]
fn a_folder_comes_back_from_its_single_file_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    for (name, family) in BASES.into_iter().zip([Family::V1, Family::V2]) {
        let (base, file) = (base(name), folder.path().join(format!("{name}.safetensors")));
        let unet = changed_unet(&base);
        export::single_file(&open(&base), &file, &export::Replaced::unet(Unet::Tensors(&unet)), &SingleFile::default())
            .unwrap();
        let back = Components::from_ldm(&tensors(&file)).unwrap();
        assert_eq!(back.family, family);
        let (text_encoder, vae) = promised(read(&base.join("text_encoder")), read(&base.join("vae")));
        assert_same("unet", &back.unet, &unet);
        assert_same("vae", &back.vae, &vae);
        assert_same("text_encoder", &back.text_encoder, &text_encoder);
    }
}

#[test]
fn half_precision_rounds_every_tensor_once() {
    let folder = tempfile::tempdir().unwrap();
    let base = base("tiny-sd21");
    let write = |kind: Kind| {
        let file = folder.path().join(format!("{kind:?}.safetensors"));
        export::single_file(
            &open(&base),
            &file,
            &export::Replaced::default(),
            &SingleFile { kind, ..SingleFile::default() },
        )
        .unwrap();
        tensors(&file)
    };
    let full = write(Kind::Float);
    for kind in [Kind::Half, Kind::BFloat16] {
        let rounded: Tensors = full.iter().map(|(name, tensor)| (name.clone(), tensor.to_kind(kind))).collect();
        assert_same(&format!("{kind:?}"), &write(kind), &rounded);
    }
}

#[test]
fn the_same_model_makes_the_same_bytes_and_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for (name, architecture) in BASES.into_iter().zip(["stable-diffusion-v1", "stable-diffusion-v2-512"]) {
        let format = SingleFile { title: "A dog", metadata: &[("modelspec.license", "MIT")], ..SingleFile::default() };
        let write = |file: &str| {
            let file = folder.path().join(format!("{name}-{file}"));
            export::single_file(&open(&base(name)), &file, &export::Replaced::default(), &format).unwrap();
            fs::read(file).unwrap()
        };
        assert!(write("1.safetensors") == write("2.safetensors"));
        let archive = Archive::open(&folder.path().join(format!("{name}-1.safetensors"))).unwrap();
        let mut metadata: Vec<(&str, &str)> =
            archive.metadata().iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        metadata.sort_unstable();
        let expected = [
            ("format", "pt"),
            ("modelspec.architecture", architecture),
            ("modelspec.implementation", "sgm"),
            ("modelspec.license", "MIT"),
            ("modelspec.prediction_type", "epsilon"),
            ("modelspec.resolution", "128x128"),
            ("modelspec.sai_model_spec", "1.0.0"),
            ("modelspec.title", "A dog"),
        ];
        assert_eq!(metadata, expected);
    }
}

#[test]
fn nothing_is_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let base = common::copy_of("tiny-sd21", folder.path());
    let unet = base.join("unet/diffusion_pytorch_model.safetensors");
    let before = fs::read(&unet).unwrap();
    let error = export::single_file(&open(&base), &unet, &export::Replaced::default(), &SingleFile::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("unet/diffusion_pytorch_model.safetensors: it exists already; remove it, or name"),
        "{error}"
    );
    assert!(fs::read(&unet).unwrap() == before);
}

#[test]
fn velocity_prediction_is_said_in_the_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let base = common::copy_of("tiny-sd21", folder.path());
    let config = base.join("scheduler/scheduler_config.json");
    let text = fs::read_to_string(&config).unwrap().replace("\"epsilon\"", "\"v_prediction\"");
    fs::write(&config, text).unwrap();
    let file = folder.path().join("v.safetensors");
    export::single_file(&open(&base), &file, &export::Replaced::default(), &SingleFile::default()).unwrap();
    let archive = Archive::open(&file).unwrap();
    assert_eq!(archive.metadata()["modelspec.architecture"], "stable-diffusion-v2-768-v");
    assert_eq!(archive.metadata()["modelspec.prediction_type"], "v");
}

/// diffusers' own script writes Stable Diffusion 2.x without what that does not use; the original files have more.
#[test]
fn files_of_other_programs_are_read() {
    let components = || Components::of_model(&open(&base("tiny-sd21")), &export::Replaced::default()).unwrap();
    let ldm = components().into_ldm(Kind::Float).unwrap();
    let prefix = "cond_stage_model.model.";
    assert!(ldm.contains_key(&format!("{prefix}transformer.resblocks.3.ln_1.weight")), "one more than the folder");

    let unused = ["text_projection", "logit_scale", "transformer.resblocks.3."];
    let is_unused = |name: &str| unused.iter().any(|unused| name.starts_with(&format!("{prefix}{unused}")));
    let kept = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.shallow_clone());
    let stripped: Tensors = ldm.iter().filter(|(name, _)| !is_unused(name)).map(kept).collect();
    assert_eq!(ldm.len() - stripped.len(), 12 + 2);

    let mut original: Tensors = ldm.iter().map(kept).collect();
    for name in ["alphas_cumprod", "model_ema.decay", "cond_stage_model.model.attn_mask"] {
        original.insert(name.to_owned(), Tensor::zeros([2], common::F32));
    }
    for file in [stripped, original] {
        let back = Components::from_ldm(&file).unwrap();
        assert_same("unet", &back.unet, &components().unet);
        assert_same("text_encoder", &back.text_encoder, &components().text_encoder);
    }
}
