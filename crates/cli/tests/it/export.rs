//! `export` as a user runs it.

use std::fs;

use tch::Kind;
use weights::Archive;

use crate::common::{model, refuses, stderr, succeed, trained};

#[test]
fn the_subjects_name_is_told_and_nothing_is_written_over() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let run = trained(folder, "run", &[]);
    let at = |name: &str| folder.join(name).display().to_string();
    let export = |out: &str, more: &[&str]| -> Vec<String> {
        ["export", "--run", &run, "--out", &at(out)].iter().chain(more).map(|&word| word.to_owned()).collect()
    };
    let call = |out: &str, more: &[&str]| {
        let arguments = export(out, more);
        stderr(&succeed(&arguments.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let says = |out: &str, more: &[&str], words: &str| {
        let arguments = export(out, more);
        refuses(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };

    // The suffix says the format; the embedding's name can stand in a prompt.
    let said = call("my ball.safetensors", &["--dtype", "fp16"]);
    let file = Archive::open(&folder.join("my ball.safetensors")).unwrap();
    let tensor = file.tensor("model.diffusion_model.out.2.bias").unwrap().unwrap();
    assert_eq!(tensor.kind(), Kind::Half);
    assert_eq!(file.metadata()["modelspec.trigger_phrase"], "my-ball-embedding");
    let (_, rows) = export::load_embeddings(&folder.join("my-ball-embedding.safetensors"), &[32]).unwrap();
    assert_eq!(rows.size(), [1, 32]);
    let usage = fs::read_to_string(folder.join("my ball.txt")).unwrap();
    for words in ["\"a photo of a my-ball-embedding ball\"", "embedding:my-ball-embedding in ComfyUI"] {
        assert!(said.contains(words) && usage.contains(words), "{said}{usage}");
    }
    let said = call("exported", &[]);
    assert!(said.contains("\"a photo of a <new> ball\""), "{said}");
    assert!(fs::read_to_string(folder.join("exported/usage.txt")).unwrap().contains("<new>"));

    let contents = || {
        let files = ["my ball.safetensors", "run/unet/diffusion_pytorch_model.safetensors"];
        files.map(|file| fs::read(folder.join(file)).unwrap())
    };
    let before = contents();
    says("my ball.safetensors", &[], "my ball.safetensors: it exists already; remove it, or name another file");
    says("run/unet/diffusion_pytorch_model.safetensors", &[], "it exists already");
    says("exported", &[], "exists already and is not empty");
    fs::write(folder.join("other-embedding.safetensors"), "mine").unwrap();
    says("other.safetensors", &[], "other-embedding.safetensors: it exists already");
    assert!(!folder.join("other.safetensors").exists() && contents() == before);

    says("new", &["--dtype", "fp16"], "--dtype is for a single file");
    says("new.safetensors", &["--dtype", "tf32"], "tf32");
    says("new", &["--format", "single-file"], "must end in .safetensors");
    assert!(!folder.join("new").exists() && !folder.join("new.safetensors").exists());
}

#[test]
fn an_embedding_alone_serves_the_base_model() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let run = trained(folder, "run", &[]);
    let at = |name: &str| folder.join(name).display().to_string();
    let (file, images, model) = (at("my-ball.safetensors"), at("images"), model());
    let export = ["export", "--run", &run, "--format", "embedding", "--embedding-form", "kohya", "--out"];
    let said = stderr(&succeed(&[&export[..], &[&file]].concat()));
    assert!(said.contains("embedding:my-ball in ComfyUI"), "{said}");
    assert_eq!(Archive::open(&folder.join("my-ball.safetensors")).unwrap().tensors().unwrap().len(), 1);
    assert!(Archive::open(&folder.join("my-ball.safetensors")).unwrap().tensor("emb_params").unwrap().is_some());
    refuses(&[&export[..], &[&file]].concat(), "it exists already");
    refuses(&[&export[..], &[&at("my-ball")]].concat(), "must end in .safetensors");

    let generate = ["generate", "--model", &model, "--prompt", "a photo of my-ball", "--steps", "2", "--out", &images];
    let generate = [&generate[..], &["--height", "64", "--width", "64", "--embedding", &file, "--eta", "1"]].concat();
    refuses(&generate, "PNDMScheduler has no eta, but eta 1 was asked for");
    succeed(&[&generate[..], &["--scheduler", "ddim"]].concat());
    let entry = &runs::read_images(&folder.join("images")).unwrap()[0];
    assert_eq!((entry.eta, &entry.embeddings), (Some(1.0), &vec![folder.join("my-ball.safetensors")]));
    let texts = images::png_texts(&folder.join("images").join(&entry.file)).unwrap();
    assert!(texts[0].1.contains(", Model: tiny-sd21, Eta: 1"), "{texts:?}");
    refuses(&[&generate[..], &["--embedding", &file]].concat(), "--embedding");
}
