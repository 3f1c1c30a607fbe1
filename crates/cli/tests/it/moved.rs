//! A run is its contents: its model, its photos and itself may be moved, but not changed.

use std::fs;
use std::path::Path;

use golden::{copy_folder, fixtures};

use crate::common::{
    assert_same_result, contents, json, photos, program, refuses, stderr, succeed, text, train, trained, wait_for_steps,
};

/// Two steps a phase, so that a run is short.
const SHORT: &str = "--set phases.embedding.steps=2 --set phases.cross_attention.steps=2 --set phases.unet.steps=2 --checkpoint-every 1 \
                     --validate-every 0";

fn short() -> Vec<&'static str> {
    SHORT.split_whitespace().collect()
}

#[test]
fn a_run_goes_on_wherever_its_model_its_photos_and_itself_are() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let at = |name: &str| folder.join(name);
    let [model, moved_model] = ["model", "renamed"].map(at);
    copy_folder(&fixtures().join("tiny-sd21"), &model);
    let prior = ["--prior-images", "2", "--set", "prior.steps=1", "--set", "phases.unet.steps=12"];
    let given =
        |model: &Path, out: &str| train(folder, out, &[&short()[..], &prior, &["--model", &text(model)]].concat());
    let mut child = given(&model, "begun").spawn().unwrap();
    wait_for_steps(&mut child, &at("begun/log.jsonl"), 5);
    child.kill().unwrap();
    child.wait().unwrap();

    fs::rename(&model, &moved_model).unwrap();
    fs::rename(at("begun"), at("moved")).unwrap();
    // Other names in another order.
    fs::create_dir(at("photographs")).unwrap();
    for (old, new) in [("0.png", "z.png"), ("1.png", "a.png"), ("2.png", "m.png")] {
        fs::rename(at("photos").join(old), at("photographs").join(new)).unwrap();
    }
    let (run, model, concept) = (text(&at("moved")), text(&moved_model), text(&at("photographs")));
    let resume = ["train", "--device", "cpu", "--resume", "--out", &run];
    refuses(&resume, "--model names their present place");
    refuses(&[&resume[..], &["--model", &model]].concat(), "--concept names their present place");
    let resumed = program(&[&resume[..], &["--model", &model, "--concept", &concept]].concat());
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(!stderr(&resumed).contains("prior images"), "they were there: {}", stderr(&resumed));
    let config = &json(&at("moved/config.json"))["config"];
    assert_eq!((&config["model"], &config["concept"]), (&model.clone().into(), &concept.clone().into()));

    // As one that was never interrupted, on the photos named and ordered as they were.
    photos(&at("photos"));
    let whole = given(&moved_model, "whole").output().unwrap();
    assert!(whole.status.success(), "{}", stderr(&whole));
    assert_same_result(folder, "whole", "moved");
    let drawn = |run: &str| contents(&at(run).join("prior")).into_values().collect::<Vec<_>>();
    assert!(drawn("whole") == drawn("moved"));
}

#[test]
fn what_was_learned_is_used_with_its_own_model_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let [model, moved] = ["model", "elsewhere/renamed"].map(|name| folder.join(name));
    copy_folder(&fixtures().join("tiny-sd21"), &model);
    let run = trained(folder, "run", &["--model", &text(&model)]);
    let [out, clip] = [text(&folder.join("out")), text(&fixtures().join("tiny-clip"))];
    let prompts = text(&folder.join("prompts.txt"));
    fs::write(&prompts, "a {} on the beach\n").unwrap();
    let place = text(&moved);
    let commands: [&[&str]; 5] = [
        &["generate", "--prompt", "a [V] ball", "--steps", "1", "--device", "cpu", "--out", &out],
        &["attend", "--prompt", "a [V] ball", "--steps", "1", "--device", "cpu"],
        &["inspect", "--images", "1", "--steps", "1", "--device", "cpu"],
        &["export", "--out", &format!("{out}/exported")],
        &[
            "evaluate",
            "--steps",
            "1",
            "--images",
            "1",
            "--base",
            "--device",
            "cpu",
            "--clip",
            &clip,
            "--prompts",
            &prompts,
        ],
    ];
    let call = |command: &[&str], more: &[&str], refused: Option<&str>| {
        let arguments = [command, &["--run", &run], more].concat();
        match refused {
            Some(words) => refuses(&arguments, words),
            None => drop(succeed(&arguments)),
        }
    };
    // Once where it was, so that the images of the evaluation are there already and must fit later.
    call(commands[4], &[], None);
    fs::create_dir(folder.join("elsewhere")).unwrap();
    fs::rename(&model, &moved).unwrap();
    for command in commands {
        call(command, &[], Some("--model says where it is now"));
        call(command, &["--model", &place], None);
    }
    let evaluated = program(&[commands[4], &["--run", &run, "--model", &place]].concat());
    assert!(evaluated.status.success() && !stderr(&evaluated).contains("generating"), "{}", stderr(&evaluated));

    // Back, but not as it was.
    fs::rename(&moved, &model).unwrap();
    let vae = model.join("vae/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&vae).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&vae, &bytes).unwrap();
    let words = "run: vae/diffusion_pytorch_model.safetensors has other contents; name that model with --model";
    for command in commands {
        call(command, &[], Some(words));
        call(command, &["--model", &text(&model)], Some(words));
    }
    call(commands[0], &["--model", &text(&fixtures().join("tiny-sd15"))], Some("has other contents"));

    // Scores are of the run's own photos, unless others are asked for.
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&vae, &bytes).unwrap();
    fs::remove_file(folder.join("photos/1.png")).unwrap();
    call(commands[4], &[], Some("1.png is missing or has other contents"));
    call(commands[4], &["--concept", &text(&folder.join("photos"))], None);
}

#[test]
fn nothing_that_a_run_depends_on_may_change_before_it_goes_on() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let model = folder.join("model");
    copy_folder(&fixtures().join("tiny-sd21"), &model);
    let run = trained(folder, "run", &["--model", &text(&model)]);
    let resume = ["train", "--device", "cpu", "--resume", "--out", &run];
    let before = contents(Path::new(&run));
    for file in [
        "vae/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
        "tokenizer/merges.txt",
    ] {
        let path = model.join(file);
        let bytes = fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        match file.ends_with("safetensors") {
            true => *changed.last_mut().unwrap() ^= 1,
            false => changed.push(b'\n'),
        }
        fs::write(&path, changed).unwrap();
        refuses(&resume, &format!("{file} has other contents"));
        fs::write(&path, bytes).unwrap();
    }
    fs::write(model.join("tokenizer/added_tokens.json"), "{}").unwrap();
    refuses(&resume, "tokenizer/added_tokens.json was not there");
    fs::remove_file(model.join("tokenizer/added_tokens.json")).unwrap();
    let photo = folder.join("photos/2.png");
    image::RgbImage::new(80, 80).save(folder.join("photos/3.png")).unwrap();
    refuses(&resume, "3.png was not there");
    fs::rename(folder.join("photos/3.png"), &photo).unwrap();
    refuses(&resume, "2.png is missing or has other contents; name the folder of those with --concept");
    photos(&folder.join("photos"));
    assert!(contents(Path::new(&run)) == before);

    // Its configuration serves a new run, which may have another model.
    let other = text(&fixtures().join("tiny-sd15"));
    let again = text(&folder.join("again"));
    let own = format!("{run}/config.json");
    succeed(&["train", "--device", "cpu", "--config", &own, "--model", &other, "--out", &again]);
    let record = |run: &str| json(&Path::new(run).join("config.json"));
    assert_eq!(record(&again)["base_model"]["name"], "tiny-sd15");
    assert_ne!(record(&again)["base_model"]["sha256"], record(&run)["base_model"]["sha256"]);

    // Another version may mean anything.
    let write = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut record = record(&run);
        change(&mut record);
        fs::write(&own, record.to_string()).unwrap();
    };
    let generate =
        ["generate", "--device", "cpu", "--steps", "1", "--prompt", "a [V] ball", "--out", &again, "--run", &run];
    for format in ["2", "99"] {
        write(&|record| record["versions"]["format"] = format.into());
        for command in [&resume[..], &generate] {
            let words =
                format!("has format {format}, written by version 0.1.0, but this version, 0.1.0, reads format 3: use");
            refuses(command, &words);
        }
    }
}
