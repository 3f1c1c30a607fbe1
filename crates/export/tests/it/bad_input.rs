//! Each mistake is one sentence, and leaves nothing half-made.

use std::fs;
use std::path::Path;

use export::{Components, SingleFile, Unet, diffusers_folder, load_embeddings, save_embeddings, single_file};
use golden::fixtures;
use model_files::{BaseModel, ModelOptions};
use tch::{Kind, Tensor};

use crate::common::{self, F32, TOKEN, base, changed_unet, open, rows};

/// The message, which must be one line.
fn message<T>(result: anyhow::Result<T>) -> String {
    let message = format!("{:#}", result.err().unwrap());
    assert!(!message.contains('\n'), "{message}");
    message
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from));
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn an_embedding_of_another_family() {
    let file = fixtures().join("export/embeddings/kohya.safetensors");
    let expected = "has width 768 (Stable Diffusion 1.x), but this model's text encoder has 1024 (Stable Diffusion 2.x); \
                    use an embedding that was learned for the same family";
    assert_eq!(message(load_embeddings(&file, &[1024])), format!("{} {expected}", file.display()));

    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let found = message(diffusers_folder(
        &open(&base("tiny-sd21")),
        &out,
        &export::Replaced::default(),
        &[(TOKEN, &rows(768))],
    ));
    assert!(found.starts_with("the embedding of <dog> has width 768 (Stable Diffusion 1.x), but "), "{found}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn files_without_one_embedding() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let rows = rows(768);
    let loaded = |tensors: &[(&str, &Tensor)]| {
        weights::save(&path, tensors.iter().copied()).unwrap();
        message(load_embeddings(&path, &[768]))
    };
    let shown = folder.path().join("a.safetensors").display().to_string();
    let expected = format!("{shown} holds 2 tensors (<a>, <b>), but the embedding of a token is one; give the file ");
    assert!(loaded(&[("<a>", &rows), ("<b>", &rows)]).starts_with(&expected));
    assert!(loaded(&[("clip_g", &rows), ("clip_l", &rows)]).contains("Stable Diffusion XL (clip_l, clip_g), but this"));
    assert!(loaded(&[]).starts_with(&format!("{shown} holds 0 tensors (none), but")));
    assert!(loaded(&[("emp_params_out", &rows)]).contains("OneTrainer learned for the text encoder's output"));
    let cube = rows.unsqueeze(0);
    let expected = format!(
        "{shown} is a tensor of shape [1, 2, 768] and type Float, but embeddings are \
         floating-point numbers of shape [vectors, width]"
    );
    assert_eq!(loaded(&[("x", &cube)]), expected);
    assert!(loaded(&[("x", &rows.to_kind(Kind::Int64))]).contains("type Int64"));
    assert!(loaded(&[("x", &(&rows / 0.0))]).ends_with("holds NaN or infinite values; train it again"));
    assert!(
        message(load_embeddings(&folder.path().join("a.pt"), &[768])).contains("in docs/methods/textual-inversion.md")
    );
    let scalar = Tensor::from(1f32);
    assert!(
        message(save_embeddings(&folder.path().join("b.safetensors"), TOKEN, &scalar, &[768])).contains("shape []")
    );
    assert!(!folder.path().join("b.safetensors").exists());
}

#[test]
fn a_folder_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("precious"), "").unwrap();
    let shown = folder.path().display();
    let found = message(diffusers_folder(&open(&base("tiny-sd21")), folder.path(), &export::Replaced::default(), &[]));
    let expected = "exists already and is not empty; choose another folder, or remove that one first";
    assert_eq!(found, format!("{shown} {expected}"));
    let file = folder.path().join("precious");
    let found = message(diffusers_folder(&open(&base("tiny-sd21")), &file, &export::Replaced::default(), &[]));
    assert_eq!(found, format!("{} is a file; choose another name for the folder", file.display()));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn models_that_are_incomplete_or_of_another_family() {
    let folder = tempfile::tempdir().unwrap();
    let (out, file) = (folder.path().join("out"), folder.path().join("out.safetensors"));
    let both = |model: &Path| {
        let Ok(model) = BaseModel::open(model, &ModelOptions::default()) else {
            return message(BaseModel::open(model, &ModelOptions::default()));
        };
        let found = message(diffusers_folder(&model, &out, &export::Replaced::default(), &[]));
        assert_eq!(message(single_file(&model, &file, &export::Replaced::default(), &SingleFile::default())), found);
        assert!(!out.exists() && !file.exists());
        found
    };
    assert!(both(Path::new("/no/such/model")).starts_with("there is no model folder /no/such/model; "));

    let model = common::copy_of("tiny-sd15", folder.path());
    let shown = model.display().to_string();
    edit(&model.join("text_encoder/config.json"), "quick_gelu", "relu");
    assert!(both(&model).starts_with(&format!("the text encoder in {shown} has hidden_act \"relu\", but that of")));
    edit(&model.join("text_encoder/config.json"), "relu", "quick_gelu");
    edit(&model.join("unet/config.json"), "\"addition_embed_type\": null", "\"addition_embed_type\": \"text_time\"");
    let expected =
        format!("the model in {shown} is not of Stable Diffusion 1.x, 2.x or XL, which are all that can be exported");
    assert_eq!(both(&model), expected);
    edit(&model.join("unet/config.json"), "\"text_time\"", "null");

    fs::rename(model.join("scheduler"), folder.path().join("scheduler")).unwrap();
    fs::remove_file(model.join("vae/config.json")).unwrap();
    let expected = "is not a complete model in the diffusers layout: it has no vae/config.json, no \
                    scheduler/scheduler_config.json";
    assert_eq!(both(&model), format!("{shown} {expected}"));
}

#[test]
fn a_component_that_the_index_promises() {
    let folder = tempfile::tempdir().unwrap();
    let model = common::copy_of("tiny-sd15", folder.path());
    fs::remove_dir_all(model.join("tokenizer")).unwrap();
    let out = folder.path().join("out");
    let found = message(diffusers_folder(&open(&model), &out, &export::Replaced::default(), &[]));
    let expected = "names the component tokenizer, but there is no such folder; fetch the model again";
    assert_eq!(found, format!("{} {expected}", model.join("model_index.json").display()));
    assert!(!out.exists());
}

#[test]
fn a_unet_of_another_model() {
    let folder = tempfile::tempdir().unwrap();
    let (out, file) = (folder.path().join("out"), folder.path().join("out.safetensors"));
    let model = base("tiny-sd21");
    let other = base("tiny-sd15").join("unet");
    let mut lacking = changed_unet(&model);
    lacking.remove("conv_in.bias");
    let mut extended = changed_unet(&model);
    extended.insert("add_embedding.linear_1.bias".to_owned(), Tensor::zeros([1], F32));
    for (unet, wrong) in [
        (Unet::Folder(&other), "down_blocks.0.attentions.0.proj_in.weight has shape [8, 8, 1, 1] instead of [8, 8]"),
        (Unet::Tensors(&lacking), "conv_in.bias is missing"),
        (Unet::Tensors(&extended), "add_embedding.linear_1.bias is not part of it"),
    ] {
        let found = message(diffusers_folder(&open(&model), &out, &export::Replaced::unet(unet), &[]));
        assert_eq!(
            found,
            format!(
                "the U-Net to export does not belong to the model in {}: {wrong}; give the model that it was trained from",
                model.display()
            )
        );
        assert_eq!(
            message(single_file(&open(&model), &file, &export::Replaced::unet(unet), &SingleFile::default())),
            found
        );
    }
    let found = message(diffusers_folder(
        &open(&model),
        &out,
        &export::Replaced::unet(Unet::Folder(Path::new("/no/run"))),
        &[],
    ));
    assert_eq!(found, "/no/run is not a U-Net: it has no config.json");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn tokens_that_cannot_be_added() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let export = |model: &Path, token: &str| {
        message(diffusers_folder(&open(model), &out, &export::Replaced::default(), &[(token, &rows(32))]))
    };
    assert!(export(&base("tiny-sd21"), "a").contains("the placeholder \"a\" already is the token"));
    assert!(export(&base("tiny-sd21"), "my dog").contains("give it a name without white space"));

    let model = common::copy_of("tiny-sd21", folder.path());
    let weights = model.join("text_encoder/model.safetensors");
    let mut tensors = common::read(&model.join("text_encoder"));
    let table = tensors.get_mut("embeddings.token_embedding.weight").unwrap();
    *table = table.narrow(0, 0, 1100);
    weights::save(&weights, &tensors).unwrap();
    let found = export(&model, TOKEN);
    assert!(
        found.ends_with("has 1200 tokens, but the text encoder 1100: a new token would get a wrong embedding"),
        "{found}"
    );
    assert!(!out.exists());
}

#[test]
fn single_files_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, kind: Kind, unet: Option<Unet>| {
        let format = SingleFile { kind, ..SingleFile::default() };
        message(single_file(
            &open(&base("tiny-sd21")),
            &folder.path().join(name),
            &export::Replaced { unet, ..export::Replaced::default() },
            &format,
        ))
    };
    let found = write("model.ckpt", Kind::Float, None);
    assert!(found.ends_with("model.ckpt must end in .safetensors, by which loaders know the format"), "{found}");
    let found = write("model.safetensors", Kind::Int8, None);
    assert_eq!(found, "a checkpoint's tensors may be f32, f16 or bf16, not Int8");
    let mut unet = changed_unet(&base("tiny-sd21"));
    let _ = unet.get_mut("conv_out.bias").unwrap().fill_(1e6);
    assert_eq!(
        write("model.safetensors", Kind::Half, Some(Unet::Tensors(&unet))),
        "cannot convert model.diffusion_model.out.2.bias: its values do not fit into f16, which ends at 65504; choose \
         bf16 or f32"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Such as a folder that was exported before.
#[test]
fn a_model_with_a_token_of_its_own_fits_into_no_single_file() {
    let folder = tempfile::tempdir().unwrap();
    let (out, file) = (folder.path().join("out"), folder.path().join("out.safetensors"));
    diffusers_folder(&open(&base("tiny-sd21")), &out, &export::Replaced::default(), &[(TOKEN, &rows(32))]).unwrap();
    let found = message(single_file(&open(&out), &file, &export::Replaced::default(), &SingleFile::default()));
    let expected = "has tokens of its own (<dog>, <dog>_1), for which a single file has no place; give the model that it \
                    was made from, with its U-Net, and the embedding in a file of its own";
    assert_eq!(found, format!("the model in {} {expected}", out.display()));
    assert!(!file.exists());
}

#[test]
fn checkpoints_that_are_not_whole_or_of_another_kind() {
    let ldm = || {
        Components::of_model(&open(&base("tiny-sd21")), &export::Replaced::default())
            .unwrap()
            .into_ldm(Kind::Float)
            .unwrap()
    };
    let mut tensors = ldm();
    tensors.retain(|name, _| !name.starts_with("first_stage_model."));
    assert_eq!(
        message(Components::from_ldm(&tensors)),
        "there is no tensor first_stage_model.*, so this is not a whole checkpoint of Stable Diffusion 1.x, 2.x or XL"
    );
    let mut tensors = ldm();
    tensors.insert("model.diffusion_model.class_emb.0.0.bias".to_owned(), Tensor::zeros([1], F32));
    assert_eq!(
        message(Components::from_ldm(&tensors)),
        "the U-Net has a tensor class_emb.0.0.bias, which is in no Stable Diffusion 1.x, 2.x or XL"
    );
    let name = "cond_stage_model.model.transformer.resblocks.1.attn.in_proj_bias";
    let mut tensors = ldm();
    tensors.insert(name.to_owned(), Tensor::zeros([95], F32));
    assert_eq!(
        message(Components::from_ldm(&tensors)),
        "the text encoder's transformer.resblocks.1.attn.in_proj_bias has 95 rows, which are not three equal parts"
    );
    tensors.remove(name);
    assert_eq!(
        message(Components::from_ldm(&tensors)),
        "the text encoder has no transformer.resblocks.1.attn.in_proj_bias, so it is not that of Stable Diffusion 2.x or SDXL"
    );
}
