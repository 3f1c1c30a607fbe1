//! The promises of ARCHITECTURE.md that a program can check.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The layers from the bottom up. A crate may depend on crates of lower layers, not on its neighbours.
const LAYERS: [&[&str]; 16] = [
    &["options", "terminal", "limits", "atomic", "fingerprint", "profile", "cuda_standin"],
    &["json", "libtorch"],
    &["hub", "lease", "distributed", "weights", "scheduler", "tokenizer", "images", "scenes", "prompts", "statistics"],
    &["model_files", "photos", "remote", "requests"],
    &["golden", "layers", "optimizer", "runs", "export", "subjects"],
    &["tables"],
    &["vae", "clip", "unet", "attributes"],
    &[
        "adapters",
        "regularizer",
        "custom_diffusion",
        "neti",
        "vico",
        "heatmaps",
        "alignment",
        "sampling",
        "report",
        "dino",
    ],
    &["methods"],
    &["trainer", "evaluation", "pretrainer"],
    &["benchmarks", "judge"],
    &["operations"],
    &["studio"],
    &["cli"],
    &["tests"],
    &["xtask"],
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Each member of the workspace with the names of all its dependencies but those for tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names = |package: &serde_json::Value| {
        let dependencies = package["dependencies"].as_array().unwrap();
        let product = dependencies.iter().filter(|dependency| dependency["kind"] != "dev");
        product.map(|dependency| short(dependency["name"].as_str().unwrap())).collect()
    };
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().map(|package| (short(package["name"].as_str().unwrap()), names(package))).collect()
}

/// The name of a crate's folder and library: its package's without the prefix that all packages share.
fn short(package: &str) -> String {
    match package.strip_prefix("attndreambooth") {
        Some("") => "cli".to_owned(),
        Some(rest) => rest.trim_start_matches('-').replace('-', "_"),
        None => package.to_owned(),
    }
}

/// All files below `folder` with one of the extensions.
fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, extensions));
        } else if extensions.iter().any(|extension| path.extension().is_some_and(|e| e == *extension)) {
            found.push(path);
        }
    }
    found
}

fn sources() -> Vec<PathBuf> {
    ["crates", "xtask", "tests"].iter().flat_map(|folder| files(&root().join(folder), &["rs"])).collect()
}

#[test]
fn dependencies_point_one_way() {
    let layer = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let dependencies = dependencies();
    for (name, needs) in &dependencies {
        let own = layer(name).unwrap_or_else(|| panic!("crate {name} has no place in LAYERS and ARCHITECTURE.md"));
        for need in needs.iter().filter(|need| dependencies.contains_key(*need)) {
            assert!(layer(need).unwrap() < own, "{name} must not depend on {need}");
        }
    }
}

/// Crates that are built, and used, where there is no LibTorch.
const WITHOUT_LIBTORCH: [&str; 24] = [
    "atomic",
    "fingerprint",
    "hub",
    "images",
    "json",
    "lease",
    "limits",
    "options",
    "photos",
    "profile",
    "prompts",
    "remote",
    "report",
    "requests",
    "runs",
    "scenes",
    "statistics",
    "studio",
    "subjects",
    "tables",
    "terminal",
    "tests",
    "tokenizer",
    "xtask",
];

#[test]
fn no_path_leads_to_libtorch_from_what_does_without_it() {
    let dependencies = dependencies();
    for name in WITHOUT_LIBTORCH {
        assert!(dependencies.contains_key(name), "there is no crate {name}");
        let mut paths = vec![vec![name]];
        while let Some(path) = paths.pop() {
            let Some(needs) = path.last().and_then(|last| dependencies.get(*last)) else { continue };
            for need in needs {
                let path = [&path[..], &[need.as_str()]].concat();
                assert!(!["tch", "torch-sys", "libtorch"].contains(&need.as_str()), "{}", path.join(" -> "));
                paths.push(path);
            }
        }
    }
}

#[test]
fn what_is_for_tests_is_never_part_of_the_product() {
    for (name, needs) in dependencies() {
        for only in ["golden", "cuda_standin"] {
            assert!(!needs.contains(only), "{name} may use {only} in tests only");
        }
    }
}

/// The judge knows the subjects that a base model has never seen: whatever learns, generates or stops by it would be told the answer.
#[test]
fn only_scoring_knows_the_judge() {
    let dependencies = dependencies();
    let users = |of: &str| -> Vec<&str> {
        dependencies.iter().filter(|(_, needs)| needs.contains(of)).map(|(name, _)| name.as_str()).collect()
    };
    assert_eq!(users("attributes"), ["evaluation", "judge", "operations"]);
    assert_eq!(users("judge"), ["operations"]);
    let operations = root().join("crates/operations/src");
    let scores = ["check_judge.rs", "evaluate.rs", "lib.rs"].map(|file| operations.join(file));
    for path in sources().iter().filter(|path| path.starts_with(&operations) && !scores.contains(path)) {
        let text = fs::read_to_string(path).unwrap();
        let word = ["judge::", "attributes::"].into_iter().find(|word| text.contains(word));
        assert!(word.is_none(), "{} uses {}", path.display(), word.unwrap_or_default());
    }
}

#[test]
fn everything_unsafe_is_in_the_seam() {
    let seam = root().join("crates/libtorch");
    for path in sources().iter().filter(|path| !path.starts_with(&seam)) {
        let text = fs::read_to_string(path).unwrap();
        // Spelt in two halves so as not to find itself.
        let word = concat!("unsafe", " {");
        assert!(!text.contains(word), "{} has an unsafe block", path.display());
    }
}

#[test]
fn every_crate_is_on_the_map() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for name in dependencies().keys() {
        assert!(map.contains(&format!("`{name}`")), "ARCHITECTURE.md does not mention `{name}`");
    }
}

#[test]
fn fixtures_are_small_and_every_golden_has_its_generator() {
    let fixtures = root().join("fixtures");
    let all = files(&fixtures, &["safetensors", "json", "txt", "py", "png", "jpg", "webp", "md"]);
    // The miniature is a model that people use, trained by `cargo xtask pretrain-miniature`; it has a size of its own.
    let (miniature, all): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|path| path.starts_with(fixtures.join("miniature")));
    let bytes = |paths: &[PathBuf]| paths.iter().map(|path| path.metadata().unwrap().len()).sum::<u64>();
    // Nobody needs its judge to use it.
    let judge = fixtures.join("miniature/judge");
    let (judging, miniature): (Vec<_>, Vec<_>) = miniature.into_iter().partition(|path| path.starts_with(&judge));
    assert!(bytes(&miniature) <= 24 << 20, "the miniature has {} bytes", bytes(&miniature));
    let (asked, judging): (Vec<_>, Vec<_>) =
        judging.into_iter().partition(|path| path.starts_with(judge.join("examination")));
    assert!(bytes(&judging) <= 6_000_000, "its judge has {} bytes", bytes(&judging));
    assert!(bytes(&asked) <= 4_000_000, "its judge's examination has {} bytes", bytes(&asked));
    assert!(bytes(&all) < 15_000_000, "the other fixtures have {} bytes", bytes(&all));
    for path in all.iter().filter(|path| path.extension().is_some_and(|e| e == "safetensors")) {
        let model = path.strip_prefix(&fixtures).unwrap().to_str().unwrap().starts_with("tiny-");
        // In its folder or one above; what several generators read, `common.py` writes.
        let mut folders = path.ancestors().skip(1).take_while(|folder| *folder != fixtures);
        let generated =
            model || folders.any(|folder| ["generate.py", "common.py"].iter().any(|name| folder.join(name).exists()));
        assert!(generated, "{} has no generate.py beside it", path.display());
    }
}
