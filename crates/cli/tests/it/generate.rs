//! `generate` as a user runs it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use golden::{Golden, fixtures};

fn command(arguments: &[&str], out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attndreambooth"));
    command.args(["generate", "--device", "cpu", "--out"]).arg(out).args(arguments).stderr(Stdio::piped());
    command
}

fn generate(arguments: &[&str], out: &Path) -> Output {
    command(arguments, out).output().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn log(folder: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(folder.join("generate.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn model() -> String {
    fixtures().join("tiny-sd21").display().to_string()
}

#[test]
fn prompts_become_images_a_grid_and_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/out");
    let model = model();
    let arguments = "--steps 2 --height 64 --width 48 --images 2 --seed 7 --batch-size 3 --scheduler euler --check";
    let arguments: Vec<&str> = arguments
        .split(' ')
        .chain(["--model", &model, "--prompt", "a cat", "--prompt", "", "--negative-prompt", "blurry"])
        .collect();
    let result = generate(&arguments, &out);
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));

    let first =
        ["0000-seed7.png", "0001-seed8.png", "0002-seed7.png", "0003-seed8.png", "generate.jsonl", "grid-0000.png"];
    assert_eq!(names(&out), first);
    let texts = images::png_texts(&out.join("0001-seed8.png")).unwrap();
    let expected = "a cat\nNegative prompt: blurry\nSteps: 2, Sampler: EulerDiscreteScheduler, CFG scale: 7.5, Seed: 8, \
                    Size: 48x64, Model: tiny-sd21";
    assert_eq!(texts[0], ("parameters".to_owned(), expected.to_owned()));
    for file in first.iter().filter(|file| file.ends_with(".png")) {
        let texts = images::png_texts(&out.join(file)).unwrap();
        let (_, xmp) = texts.iter().find(|(keyword, _)| keyword == "XML:com.adobe.xmp").unwrap();
        assert!(xmp.contains("http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"), "{file}");
    }
    let entries = log(&out);
    assert_eq!(entries.len(), 4);
    assert_eq!((&entries[3]["file"], &entries[3]["seed"]), (&"0003-seed8.png".into(), &8.into()));
    assert_eq!((&entries[1]["prompt"], &entries[1]["negative_prompt"]), (&"a cat".into(), &"blurry".into()));
    assert_eq!(
        (&entries[0]["steps"], &entries[0]["width"], &entries[0]["height"]),
        (&2.into(), &48.into(), &64.into())
    );
    assert_eq!((&entries[0]["model"], &entries[0]["run"]), (&model.into(), &serde_json::Value::Null));
    assert_eq!(entries[0]["versions"]["libtorch"], "2.11.0");

    // Once more, with one image: numbering goes on, and what was there stays as it was.
    let contents = |names: &[&str]| names.iter().map(|name| fs::read(out.join(name)).unwrap()).collect::<Vec<_>>();
    let (before, lines) = (contents(&first), fs::read_to_string(out.join("generate.jsonl")).unwrap());
    let model = self::model();
    let one = ["--model", &model, "--steps", "1", "--height", "64", "--width", "64", "--prompt", "a dog"];
    let result = generate(&[&one[..], &["--no-digital-source-type", "--seed", "-1"]].concat(), &out);
    let said = String::from_utf8(result.stderr).unwrap();
    assert!(result.status.success(), "{said}");
    let seed = said.split_once("note: the seed is ").unwrap().1.lines().next().unwrap();
    let image = format!("0004-seed{seed}.png");
    assert_eq!(names(&out).len(), 7, "an image alone has no grid");
    let texts = images::png_texts(&out.join(&image)).unwrap();
    assert!(texts.len() == 1 && texts[0].1.contains(&format!("Seed: {seed},")), "{texts:?}");
    let entries = log(&out);
    assert_eq!((&entries[4]["file"], &entries[4]["seed"]), (&image.into(), &seed.parse::<u64>().unwrap().into()));
    assert!(fs::read_to_string(out.join("generate.jsonl")).unwrap().starts_with(&lines));
    let pngs = |all: Vec<Vec<u8>>| all.into_iter().filter(|bytes| bytes.starts_with(b"\x89PNG")).collect::<Vec<_>>();
    assert!(pngs(contents(&first)) == pngs(before));
}

#[test]
fn many_images_are_in_several_grids() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let arguments = ["--model", &model, "--prompt", "a cat", "--images", "70", "--batch-size", "35", "--steps", "1"];
    let result = generate(&[&arguments[..], &["--height", "16", "--width", "16"]].concat(), folder.path());
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    let grids: Vec<String> = names(folder.path()).into_iter().filter(|name| name.starts_with("grid")).collect();
    // Eight rows of eight, and what is left.
    assert_eq!(grids, ["grid-0000.png", "grid-0064.png"]);
    assert!(String::from_utf8_lossy(&result.stderr).contains("70 image(s) and grid-0000.png, grid-0064.png in "));
    assert_eq!(log(folder.path()).len(), 70);
}

/// By SIGKILL, at whatever moment.
#[test]
fn what_a_killed_process_has_generated_stays_and_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let arguments = ["--model", &model, "--prompt", "a cat", "--batch-size", "1", "--steps", "1"];
    let arguments = [&arguments[..], &["--height", "16", "--width", "16"]].concat();
    for at_least in [3, 7] {
        let mut child = command(&[&arguments[..], &["--images", "10000"]].concat(), folder.path()).spawn().unwrap();
        while names(folder.path()).iter().filter(|name| name.ends_with(".png")).count() < at_least {
            assert!(child.try_wait().unwrap().is_none());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let result = generate(&arguments, folder.path());
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    let names = names(folder.path());
    assert!(names.iter().all(|name| !name.starts_with(".partial")), "{names:?}");
    let images: Vec<&String> = names.iter().filter(|name| name.ends_with(".png")).collect();
    for image in &images {
        assert!(image::open(folder.path().join(image)).is_ok(), "{image}");
    }
    let logged: Vec<String> =
        log(folder.path()).iter().map(|entry| entry["file"].as_str().unwrap().to_owned()).collect();
    assert!(logged.iter().all(|file| images.contains(&file)), "{logged:?} of {images:?}");
    // At most the image that was being recorded has no line; it has its parameters.
    assert!(images.len() - logged.len() <= 2, "{logged:?} of {images:?}");
    assert_eq!(logged.last(), images.last().copied());
}

#[test]
fn initial_latents_from_a_file_make_diffusers_image() {
    let folder = tempfile::tempdir().unwrap();
    let latents = folder.path().join("latents.safetensors");
    let reference = Golden::open("pipelines/pictures.safetensors");
    weights::save(&latents, [("latents", reference.get("latents"))]).unwrap();
    let (model, latents) = (model(), latents.display().to_string());
    let arguments = ["--model", &model, "--prompt", "a photo of a cat", "--latents", &latents, "--guidance-scale", "3"];
    let arguments = [&arguments[..], &["--height", "64", "--width", "64", "--scheduler", "ddim"]].concat();
    let result = generate(&arguments, folder.path());
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    let image = image::open(folder.path().join("0000-seed0.png")).unwrap().into_rgb8();
    let expected = Vec::<u8>::try_from(reference.get("tiny-sd21.latents.DDIMScheduler").flatten(0, -1)).unwrap();
    assert!(image.as_raw().iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) <= 1));
}

#[test]
fn what_is_wrong_is_said_in_a_sentence_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let model = model();
    let good = ["--model", model.as_str(), "--prompt", "a cat", "--steps", "1"];
    let says = |arguments: &[&str], words: &str| {
        let result = generate(arguments, &out);
        let stderr = String::from_utf8(result.stderr).unwrap();
        assert_eq!(result.status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(words), "{stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("frame #"), "{stderr}");
        assert!(!out.exists(), "{words}");
    };
    let with = |more: &[&'static str]| -> Vec<&str> { good.iter().copied().chain(more.iter().copied()).collect() };
    says(&["--model", "/no/model", "--prompt", "a"], "there is no model folder /no/model");
    says(&["--model", &model], "--prompt");
    says(&with(&["--height", "100"]), "height 100 is not a positive multiple of 8");
    says(&with(&["--scheduler", "heun"]), "heun");
    says(&with(&["--latents", "/no/latents.safetensors"]), "/no/latents.safetensors");
    says(&["--model", &model, "--prompt", "a", "--steps", "0"], "0 steps");
    says(&with(&["--images", "0"]), "--images");
    says(&with(&["--seed", "-2"]), "-1 for a random one");
    if libtorch::cuda_unavailable().is_some() {
        let result = Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
            .args(["generate", "--device", "cuda:1"])
            .args(good)
            .output()
            .unwrap();
        let stderr = String::from_utf8(result.stderr).unwrap();
        assert_eq!(result.status.code(), Some(2));
        assert!(stderr.contains("device cuda:1 is not available") && stderr.contains("--device cpu"), "{stderr}");
    }
}
