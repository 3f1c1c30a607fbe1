//! A repository of the Hugging Face hub as a model: which of its files the program reads, with their hashes.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;

use crate::environment::Environment;
use crate::manifest::{Licence, Model, ModelFile, Source};
use crate::progress::Reporter;
use crate::transfer::{self, Failure, Partial, Request};

/// The hub's answer about a revision of a repository.
#[derive(Debug, Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
    #[serde(default, rename = "cardData")]
    card: Card,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

/// Git LFS knows a file by its hash.
#[derive(Debug, Deserialize)]
struct Lfs {
    sha256: String,
}

#[derive(Debug, Default, Deserialize)]
struct Card {
    license: Option<serde_json::Value>,
    license_name: Option<String>,
}

/// Asks the hub for the files of `repo` at `revision`; the model called `name` is what there is of it now, by its commit.
pub(crate) fn look_up(
    name: &str,
    repo: &str,
    revision: &str,
    environment: &Environment,
    wait: Duration,
) -> Result<Model> {
    ensure!(!environment.offline, "{repo} is not on this machine, and HF_HUB_OFFLINE forbids the network");
    let address =
        format!("{}/api/models/{repo}/revision/{}?blobs=true", environment.endpoint, revision.replace('/', "%2F"));
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("listing");
    let mut partial = Partial::open(&path)?;
    let request =
        Request { address: &address, token: environment.token.as_deref(), size: None, hash_is_known: false, wait };
    let reporter = Reporter { file: repo, events: mpsc::channel().0, stopped: &AtomicBool::new(false) };
    transfer::transfer(&transfer::agent(), &request, &mut partial, &reporter).map_err(|failure| match failure {
        Failure::Source(reason) => anyhow!("{} does not give {repo}: {reason}", environment.endpoint),
        Failure::Here(error) => error,
    })?;
    let listing: Listing =
        json::read(&partial.path, "a listing of files").with_context(|| format!("{address} cannot be used"))?;
    model(name, repo, listing, environment)
}

fn model(name: &str, repo: &str, listing: Listing, environment: &Environment) -> Result<Model> {
    let names: Vec<&str> = listing.siblings.iter().map(|file| &*file.rfilename).collect();
    let read = select(&names).with_context(|| format!("{repo} cannot be used"))?;
    let files = listing.siblings.iter().filter(|file| read.contains(&&*file.rfilename)).map(|file| ModelFile {
        path: file.rfilename.clone(),
        size: file.size,
        sha256: file.lfs.as_ref().map(|lfs| lfs.sha256.clone()),
        sources: Vec::new(),
    });
    let licence = listing.card.license_name.or_else(|| listing.card.license?.as_str().map(str::to_owned));
    let model = Model {
        name: name.to_owned(),
        title: repo.to_owned(),
        licence: Licence {
            name: licence.unwrap_or_else(|| "licence not stated".to_owned()),
            url: format!("{}/{repo}", environment.endpoint),
        },
        sources: vec![Source::Hub { repo: repo.to_owned(), revision: listing.sha.clone() }],
        files: files.collect(),
    };
    model.check()?;
    Ok(model)
}

/// Which of a repository's files are read: those of a Stable Diffusion model in the diffusers layout, those of a CLIP, or
/// the one checkpoint there is.
fn select<'a>(names: &[&'a str]) -> Result<Vec<&'a str>> {
    const COMPONENTS: [&str; 3] = ["unet", "vae", "text_encoder"];
    let within = |folder: &str| -> Vec<(&'a str, &'a str)> {
        let file = |name: &&'a str| Some((*name, name.strip_prefix(folder)?.strip_prefix('/')?));
        names.iter().filter_map(file).filter(|(_, file)| !file.contains('/')).collect()
    };
    let root: Vec<(&str, &str)> = names.iter().filter(|name| !name.contains('/')).map(|name| (*name, *name)).collect();
    let is_config = |file: &str| file.ends_with(".json") && !file.ends_with(".index.json") || file == "merges.txt";
    let mut read = Vec::new();
    if COMPONENTS.iter().all(|component| names.contains(&&*format!("{component}/config.json"))) {
        for component in COMPONENTS {
            read.push(weights(&within(component)).with_context(|| format!("its {component}"))?);
        }
        let configs = COMPONENTS.into_iter().chain(["scheduler", "tokenizer"]).flat_map(within);
        read.push(configs.filter(|(_, file)| is_config(file)).map(|(name, _)| name).collect());
        read.push(names.iter().filter(|name| **name == "model_index.json").copied().collect());
    } else if names.contains(&"config.json") {
        read.push(weights(&root)?);
        read.push(root.iter().map(|(name, _)| *name).filter(|name| is_config(name)).collect());
    } else {
        let checkpoints: Vec<&str> =
            root.iter().map(|(name, _)| *name).filter(|name| name.ends_with(".safetensors")).collect();
        let [checkpoint] = &checkpoints[..] else {
            bail!(
                "it is neither a model in the diffusers layout (unet/, vae/, text_encoder/, ...) nor a CLIP (config.json and \
                 model.safetensors), and it has {} checkpoints as safetensors: download the one you need and name its file",
                checkpoints.len()
            );
        };
        read.push(vec![*checkpoint]);
    }
    Ok(read.concat())
}

/// The file of weights of a component, whole or in parts; a variant such as fp16 only where there is no other.
fn weights<'a>(files: &[(&'a str, &'a str)]) -> Result<Vec<&'a str>> {
    const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];
    for variant in ["", ".fp32", ".fp16", ".bf16", ".non_ema"] {
        for stem in STEMS {
            let named =
                |end: &str| files.iter().find(|(_, file)| *file == format!("{stem}{end}")).map(|(name, _)| *name);
            if let Some(whole) = named(&format!("{variant}.safetensors")) {
                return Ok(vec![whole]);
            }
            if let Some(index) = named(&format!(".safetensors.index{variant}.json")) {
                let is_part = |file: &str| {
                    let middle = file.strip_prefix(stem).and_then(|file| file.strip_suffix(".safetensors"));
                    middle.and_then(|middle| middle.strip_prefix(variant)).is_some_and(|part| part.contains("-of-"))
                };
                let parts = files.iter().filter(|(_, file)| is_part(file)).map(|(name, _)| *name);
                return Ok(parts.chain([index]).collect());
            }
        }
    }
    bail!("there are no weights as safetensors, the only format that is read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_repository_only_what_is_read_is_downloaded() {
        let diffusers = [
            ".gitattributes",
            "README.md",
            "model_index.json",
            "v1-5.ckpt",
            "v1-5.safetensors",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "unet/diffusion_pytorch_model.bin",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.fp16.safetensors",
            "text_encoder/config.json",
            "text_encoder/model-00001-of-00002.safetensors",
            "text_encoder/model-00002-of-00002.safetensors",
            "text_encoder/model.safetensors.index.json",
            "scheduler/scheduler_config.json",
            "tokenizer/vocab.json",
            "tokenizer/merges.txt",
            "safety_checker/config.json",
            "safety_checker/model.safetensors",
        ];
        let mut read = select(&diffusers).unwrap();
        read.sort_unstable();
        assert_eq!(
            read,
            [
                "model_index.json",
                "scheduler/scheduler_config.json",
                "text_encoder/config.json",
                "text_encoder/model-00001-of-00002.safetensors",
                "text_encoder/model-00002-of-00002.safetensors",
                "text_encoder/model.safetensors.index.json",
                "tokenizer/merges.txt",
                "tokenizer/vocab.json",
                "unet/config.json",
                "unet/diffusion_pytorch_model.safetensors",
                "vae/config.json",
                "vae/diffusion_pytorch_model.fp16.safetensors",
            ]
        );
        let clip = ["config.json", "model.safetensors", "flax_model.msgpack", "merges.txt", "vocab.json", "README.md"];
        let mut read = select(&clip).unwrap();
        read.sort_unstable();
        assert_eq!(read, ["config.json", "merges.txt", "model.safetensors", "vocab.json"]);
        assert_eq!(select(&["README.md", "dreamy.safetensors"]).unwrap(), ["dreamy.safetensors"]);
        for (files, words) in [
            (&["a.safetensors", "b.safetensors"][..], "2 checkpoints"),
            (&["config.json", "pytorch_model.bin"], "no weights as safetensors"),
            (&["README.md"], "0 checkpoints"),
        ] {
            assert!(format!("{:#}", select(files).unwrap_err()).contains(words));
        }
    }
}
