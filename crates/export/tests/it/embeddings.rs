//! Embeddings in files, as Python writes them and reads them.

use export::{load_embeddings, save_embeddings};
use golden::fixtures;
use options::EmbeddingForm;
use tch::Kind;

use crate::common::{self, TOKEN, formula};

#[test]
fn a_file_is_the_one_that_python_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("learned_embeds.safetensors");
    save_embeddings(&path, TOKEN, &common::rows(768), &[768]).unwrap();
    let expected = std::fs::read(fixtures().join("export/embeddings/diffusers.safetensors")).unwrap();
    assert!(std::fs::read(&path).unwrap() == expected);
    assert_eq!(load_embeddings(&path, &[768]).unwrap(), (TOKEN.to_owned(), common::rows(768)));
}

/// kohya's and OneTrainer's files are found by their tensor's name; written and read again they are the same.
#[test]
fn each_form_is_read_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my-dog.safetensors");
    for (form, key, token) in [
        (EmbeddingForm::Diffusers, TOKEN, TOKEN),
        (EmbeddingForm::Kohya, "emb_params", "my-dog"),
        (EmbeddingForm::OneTrainer, "emp_params", "my-dog"),
    ] {
        save_embeddings(&path, form.key(TOKEN), &common::rows(768), &[768]).unwrap();
        let names: Vec<String> = weights::Archive::open(&path).unwrap().tensors().unwrap().into_keys().collect();
        assert_eq!(names, [key]);
        assert_eq!(load_embeddings(&path, &[768]).unwrap(), (token.to_owned(), common::rows(768)));
    }
}

#[test]
fn other_programs_files_are_read() {
    let load = |name: &str, width: i64| {
        load_embeddings(&fixtures().join(format!("export/embeddings/{name}.safetensors")), &[width]).unwrap()
    };
    let rows = common::rows(768);
    assert_eq!(load("diffusers", 768), (TOKEN.to_owned(), rows.shallow_clone()));
    assert_eq!(load("kohya", 768), ("kohya".to_owned(), rows.shallow_clone()));
    let (token, halved) = load("onetrainer", 768);
    assert_eq!(token, "onetrainer");
    assert_eq!((halved.kind(), &halved), (Kind::Float, &rows.to_kind(Kind::Half).to_kind(Kind::Float)));
    assert_eq!(load("other", 1024), ("a1111".to_owned(), formula("embedding", &[1024]).unsqueeze(0)));
}
