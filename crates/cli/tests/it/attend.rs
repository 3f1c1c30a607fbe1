//! `attend` as a user runs it.

use std::fs;
use std::path::Path;

use tch::{Kind, Tensor};
use weights::Archive;

use crate::common::{difference, json, model, refuses, succeed, trained};

/// Shows "a [V] ball on the beach".
fn attend(out: &Path, more: &[&str]) -> serde_json::Value {
    let out_text = out.display().to_string();
    let fixed = ["attend", "--device", "cpu", "--steps", "4", "--seed", "3", "--out", &out_text];
    succeed(&[&fixed[..], &["--prompt", "a [V] ball on the beach"], more].concat());
    json(&out.join("attend.json"))
}

fn generate(out: &Path, prompt: &str, more: &[&str]) {
    let out = out.display().to_string();
    let fixed = ["generate", "--device", "cpu", "--steps", "4", "--seed", "3", "--out", &out, "--prompt", prompt];
    succeed(&[&fixed[..], more].concat());
}

fn maps(out: &Path) -> weights::Tensors {
    Archive::open(&out.join("maps.safetensors")).unwrap().tensors().unwrap()
}

#[test]
fn each_phase_has_a_row_of_its_own_model() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let run = trained(folder, "run", &[]);
    let out = folder.join("phases");
    let record = attend(&out, &["--run", &run, "--phases"]);

    let rows = record["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["base", "embedding", "cross_attention", "unet"]);
    let words: Vec<&str> = record["words"].as_array().unwrap().iter().map(|w| w["word"].as_str().unwrap()).collect();
    assert_eq!(words, ["a", "[V]", "ball", "on", "the", "beach"]);
    let positions = record["tokens"].as_array().unwrap().len();
    let maps = maps(&out);
    for row in rows {
        let shown = row["overlays"].as_array().unwrap();
        assert_eq!(shown.len(), words.len());
        for file in shown.iter().map(|overlay| &overlay["file"]).chain([&row["picture"]]) {
            assert!(image::open(out.join(file.as_str().unwrap())).is_ok(), "{file}");
        }
        let map = &maps[row["name"].as_str().unwrap()];
        assert_eq!(map.size(), [positions as i64, 16, 16]);
        // [V] is one token, and what is written of it is the mean over the passes, one more than steps with PNDM.
        assert_eq!(row["passes"], 5);
        let mean = map.get(record["words"][1]["positions"]["start"].as_i64().unwrap()).mean(Kind::Double) / 5.0;
        assert!((shown[1]["mean"].as_f64().unwrap() - mean.double_value(&[])).abs() < 1e-6);
    }
    assert!(out.join("grid.png").exists());
    assert_ne!(fs::read(out.join("base.png")).unwrap(), fs::read(out.join("unet.png")).unwrap());
    for pair in names.windows(2) {
        assert!(golden::relative_error(&maps[pair[0]], &maps[pair[1]]) > 1e-4, "{pair:?}");
    }

    // At first [V] is the category's word, and at last the model is what `generate` takes.
    generate(&folder.join("start"), "a ball ball on the beach", &["--model", &model()]);
    assert!(difference(&out.join("base.png"), &folder.join("start/0000-seed3.png")) <= 1);
    generate(&folder.join("end"), "a [V] ball on the beach", &["--run", &run]);
    assert!(difference(&out.join("unet.png"), &folder.join("end/0000-seed3.png")) <= 1);

    // What came after the second phase is what a run without the third ends with.
    let short = trained(folder, "short", &["--set", "phases.unet.steps=0"]);
    let two = folder.join("two");
    attend(&two, &["--run", &short]);
    assert_eq!(self::maps(&two)["unet"], maps["cross_attention"]);
    let rows = attend(&two, &["--run", &short, "--phases"])["rows"].as_array().unwrap().len();
    assert_eq!(rows, 3);

    // A run that has lost it says so.
    fs::remove_dir_all(folder.join("run/phases")).unwrap();
    refuses(
        &["attend", "--run", &run, "--phases", "--prompt", "a [V] ball", "--steps", "1"],
        "phases/cross_attention/cross_attention.safetensors",
    );

    let with = |more: &[&'static str]| -> Vec<String> {
        ["attend", "--device", "cpu", "--run", &run].iter().chain(more).map(|&text| text.to_owned()).collect()
    };
    let says = |more: &[&'static str], words: &str| {
        refuses(&with(more).iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    says(&["--prompt", "a ball"], "does not name the run's subject; write [V] where it stands, as in \"a [V] ball\"");
    says(&["--prompt", "a [V] ball", "--word", "dog"], "no word \"dog\"; its words are a, [V], ball");
    says(&["--prompt", "a [V]", "--factors", "3"], "[3] times smaller than the latents of 16x16, only {1, 2, 4, 8}");
    says(&["--prompt", "a [V]", "--factors", "0"], "factors has 0");
    says(&["--prompt", "a [V]", "--scheduler", "heun"], "heun");
    fs::remove_file(folder.join("run/learned_embeds.safetensors")).unwrap();
    says(&["--prompt", "a [V]"], "is not finished");
}

#[test]
fn a_model_without_a_run_is_shown_too() {
    let temporary = tempfile::tempdir().unwrap();
    let out = temporary.path().join("out");
    let (model, out_text) = (model(), out.display().to_string());
    let fixed = ["attend", "--device", "cpu", "--model", &model, "--steps", "2", "--out", &out_text, "--prompt"];
    let more = ["Two dogs, on the Beach.", "--word", "dogs", "--word", "beach", "--normalize", "--colors", "common"];
    // What a call before has shown goes, and nothing else does.
    succeed(&[&fixed[..], &["Two dogs, on the Beach."]].concat());
    assert!(out.join("model-03-on.png").exists());
    fs::write(out.join("model-09-mine.png"), "").unwrap();
    succeed(&[&fixed[..], &more].concat());
    fs::remove_file(out.join("model-09-mine.png")).unwrap();
    let mut files: Vec<String> =
        fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    let expected = [
        ".attndreambooth",
        "attend.json",
        "grid.png",
        "maps.safetensors",
        "model-01-dogs.png",
        "model-02-Beach.png",
        "model.png",
    ];
    assert_eq!(files, expected);
    // One image beside those of two words.
    assert_eq!(image::image_dimensions(out.join("grid.png")).unwrap().0, 3 * (128 + 8) + 8);
    let archive = Archive::open(&out.join("maps.safetensors")).unwrap();
    let tokens: Vec<String> = serde_json::from_str(&archive.metadata()["tokens"]).unwrap();
    let sum: Tensor = archive.tensor("model").unwrap().unwrap();
    assert_eq!(sum.size()[0], tokens.len() as i64);
    let words = sum.narrow(0, 1, sum.size()[0] - 2).sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
    golden::assert_close("normalised", &words, &words.ones_like(), 1e-4);

    fs::remove_dir_all(&out).unwrap();
    let says = |prompt: &str, more: &[&str], words: &str| {
        refuses(&[&fixed[..], &[prompt], more].concat(), words);
        assert!(!out.exists(), "{words}");
    };
    says("a [V] dog", &[], "has learned no subject");
    says("", &[], "has no word to show");
    says(&"cat ".repeat(90), &[], "too long");
    says("a dog", &["--phases"], "--run");
    says("a dog", &["--factors", "3"], "[3] times smaller");
    refuses(&["attend", "--prompt", "a dog"], "--run");
    refuses(&["attend", "--prompt", "a dog", "--model", &model, "--steps", "0"], "0 steps");
    refuses(&["attend", "--run", "/no/run", "--prompt", "a [V]"], "/no/run is not the folder of a training run");
}
