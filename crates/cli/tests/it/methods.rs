//! Every method from photos to images, as a user runs it.

use std::fs;
use std::path::Path;

use golden::fixtures;

use crate::common::{self, json, model, photos, refuses, stderr, succeed};

/// A few steps of a method on the tiny model.
fn train(folder: &Path, method: &str, more: &[&str]) -> String {
    photos(&folder.join("photos"));
    let out = folder.join(method).display().to_string();
    let photos = folder.join("photos").display().to_string();
    let model = model();
    let fixed = [
        "train",
        "--device",
        "cpu",
        "--method",
        method,
        "--model",
        &model,
        "--concept",
        &photos,
        "--category",
        "ball",
        "--resolution",
        "64",
        "--batch-size",
        "2",
        "--results",
        "none",
        "--set",
        "validation.steps=1",
        "--out",
        &out,
    ];
    succeed(&[&fixed[..], more].concat());
    out
}

#[test]
fn each_method_learns_generates_and_is_exported() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let prior = ["--prior-images", "1", "--set", "prior.steps=1"];
    let one_phase = ["--steps", "2", "--learning-rate", "1e-3"];
    let rank = ["--rank", "2"];
    let three = ["--embedding-steps", "1", "--cross-attention-steps", "1", "--unet-steps", "1"];
    for (method, more, files) in [
        ("textual-inversion", one_phase.to_vec(), vec!["learned_embeds.safetensors"]),
        (
            "dreambooth",
            [&one_phase[..], &["--train-text-encoder"]].concat(),
            vec!["unet/config.json", "text_encoder/config.json"],
        ),
        ("ti-db", one_phase.to_vec(), vec!["learned_embeds.safetensors", "unet/config.json"]),
        ("custom-diffusion", [&one_phase[..], &prior].concat(), vec!["learned_embeds.safetensors", "unet.safetensors"]),
        ("oft", [&one_phase[..], &prior].concat(), vec!["adapter.safetensors"]),
        ("coft", [&one_phase[..], &prior].concat(), vec!["adapter.safetensors"]),
        ("lora", [&one_phase[..], &rank].concat(), vec!["adapter.safetensors"]),
        (
            "attndreambooth-lora",
            [&three[..], &rank].concat(),
            vec!["learned_embeds.safetensors", "adapter.safetensors"],
        ),
    ] {
        let run = train(folder, method, &more);
        let has = |file: &str| Path::new(&run).join(file).exists();
        assert!(files.iter().all(|file| has(file)), "{method}");
        assert!(!has("checkpoints") && (has("unet") == files.contains(&"unet/config.json")), "{method}");
        assert_eq!(json(&Path::new(&run).join("config.json"))["config"]["method"], method);
        let log = fs::read_to_string(Path::new(&run).join("log.jsonl")).unwrap();
        assert!(
            log.lines().all(|line| line.contains("\"diffusion_loss\":") && line.contains("\"gradient_norm\":")),
            "{log}"
        );

        let images = folder.join("images").join(method).display().to_string();
        let prompt = ["--prompt", "a [V] ball", "--steps", "1", "--seed", "3", "--scheduler", "ddim"];
        succeed(&[&["generate", "--device", "cpu", "--run", &run, "--out", &images], &prompt[..]].concat());
        // What is exported generates the same without the run.
        let exported = folder.join("exported").join(method).display().to_string();
        succeed(&["export", "--run", &run, "--out", &exported]);
        let name = json(&Path::new(&run).join("config.json"))["config"]["placeholder"].as_str().unwrap().to_owned();
        let again = folder.join("again").join(method).display().to_string();
        let prompt = format!("a {name} ball");
        succeed(&[
            "generate",
            "--device",
            "cpu",
            "--model",
            &exported,
            "--out",
            &again,
            "--prompt",
            &prompt,
            "--steps",
            "1",
            "--seed",
            "3",
            "--scheduler",
            "ddim",
        ]);
        let pixels = |folder: &str| image::open(Path::new(folder).join("0000-seed3.png")).unwrap().into_rgb8();
        let most = pixels(&images).iter().zip(pixels(&again).iter()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(most <= Some(1), "{method}: the exported model's image differs by {most:?}");
        succeed(&["report", "--run", &run]);
        assert!(fs::read_to_string(Path::new(&run).join("report.html")).unwrap().contains(method));
    }
    // A run generates with its method's sampler where nothing else is asked for.
    let [run, images] = ["custom-diffusion", "sampled"].map(|name| folder.join(name).display().to_string());
    succeed(&[
        "generate",
        "--device",
        "cpu",
        "--run",
        &run,
        "--steps",
        "1",
        "--out",
        &images,
        "--prompt",
        "a [V] ball",
    ]);
    let entry = &runs::read_images(Path::new(&images)).unwrap()[0];
    assert_eq!((entry.scheduler.as_str(), entry.eta), ("DDIMScheduler", Some(1.0)));
    // A run with a word of the model's own has no embedding to look into.
    refuses(&["inspect", "--run", &folder.join("lora").display().to_string()], "sks is a word of the model's");
    let lora = folder.join("lora.safetensors").display().to_string();
    let run = folder.join("textual-inversion").display().to_string();
    refuses(&["export", "--run", &run, "--out", &lora, "--format", "lora"], "--format embedding");
}

/// Its mapper is no weight of the model, and so has a file of its own.
#[test]
fn neti_learns_generates_and_is_exported() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let path = |name: &str| folder.join(name).display().to_string();
    let run = train(folder, "neti", &["--steps", "2"]);
    let [same, again, file, model] = [path("same"), path("again"), path("mapper.safetensors"), model()];
    let generate = |out: &str, from: &[&str], more: &[&str]| {
        let fixed = ["generate", "--device", "cpu", "--steps", "2", "--seed", "3", "--out", out];
        succeed(&[&fixed[..], from, more].concat())
    };
    let both = ["--prompt", "a [V]", "--prompt", "a ball", "--batch-size", "2"];
    generate(&same, &["--run", &run], &both);
    let output = succeed(&["export", "--run", &run, "--out", &file, "--format", "neti"]);
    assert!(
        stderr(&output).contains("--embedding") && stderr(&output).contains("\"a photo of a <new>\""),
        "{}",
        stderr(&output)
    );
    // What is exported generates the same bits without the run.
    generate(&again, &["--model", &model, "--embedding", &file], &both);
    for image in ["0000-seed3.png", "0001-seed3.png"] {
        let pixels = |folder: &str| image::open(Path::new(folder).join(image)).unwrap().into_rgb8();
        assert!(pixels(&same) == pixels(&again), "{image}");
    }
    succeed(&[
        "attend",
        "--device",
        "cpu",
        "--run",
        &run,
        "--prompt",
        "a [V] ball",
        "--steps",
        "1",
        "--out",
        &path("attend"),
    ]);
    succeed(&["report", "--run", &run]);
    assert!(fs::read_to_string(Path::new(&run).join("report.html")).unwrap().contains("neti"));

    let export = |more: &[&str], words: &str| {
        refuses(&[&["export", "--run", &run, "--out", &path("x.safetensors")], more].concat(), words);
    };
    for format in ["single-file", "lora", "diffusers"] {
        export(&["--format", format], "has no place in a model or a LoRA: give --format neti");
    }
    export(&["--format", "embedding"], "a mapper gives its token <new> another at each timestep");
    export(&["--format", "neti", "--dtype", "bf16"], "leave out --dtype");
    refuses(&["export", "--run", &run, "--out", &path("x"), "--format", "neti"], "must end in .safetensors");
    refuses(&["inspect", "--run", &run], "another at each timestep");
    let more = |more: &[&str], words: &str| {
        refuses(
            &[&["generate", "--device", "cpu", "--steps", "1", "--prompt", "a [V]", "--out", &path("no")], more]
                .concat(),
            words,
        );
    };
    more(&["--model", &model, "--embedding", &file, "--embedding", &file], "<new>");
    more(&["--run", &run, "--embedding", &file], "<new>");
    let photos = path("photos");
    let fixed = "train --device cpu --method neti --category ball --model";
    let fixed: Vec<&str> = fixed.split(' ').chain([model.as_str(), "--concept", &photos]).collect();
    let training = |more: &[&str], words: &str| refuses(&[&fixed[..], &["--out", &path("none")], more].concat(), words);
    training(&["--set", "new_token=true"], "another embedding at each timestep and has none to train: set it to false");
    training(&["--set", "vectors=2"], "vectors is 2");
    training(&["--set", "adapter.type=lora"], "its mapper: leave adapter out");
    training(&["--init-from", &run], "takes no other start: leave out --init-from");
    training(&["--add-concept", &format!("{photos}:dog")], "train each subject alone");
    let other = fixtures().join("miniature").display().to_string();
    more(
        &["--model", &other, "--embedding", &file],
        "of width 32 and 16 cross-attention layers, but this model has 128 and 16",
    );
    more(&["--model", &model, "--lora", &file], "mapper.safetensors");
}

/// It looks at a photo, of which the run has its own copy.
#[test]
fn vico_learns_generates_and_is_exported() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let path = |name: &str| folder.join(name).display().to_string();
    let run = train(folder, "vico", &["--steps", "2", "--set", "templates=miniature"]);
    let in_run = |name: &str| Path::new(&run).join(name);
    assert!(
        ["learned_embeds.safetensors", "adapter.safetensors", "reference.png", "reference_mask.png"]
            .into_iter()
            .all(|file| in_run(file).exists())
    );
    let log = fs::read_to_string(in_run("log.jsonl")).unwrap();
    assert!(
        log.lines().all(|line| line.contains("\"diffusion_loss\":") && line.contains("\"attention_loss\":")),
        "{log}"
    );
    // The photos are of no more use.
    let (mine, other) = (path("reference.png"), path("other.png"));
    fs::copy(in_run("reference.png"), &mine).unwrap();
    fs::copy(in_run("contact_sheet.png"), &other).unwrap();
    fs::rename(folder.join("photos"), folder.join("moved")).unwrap();
    let [same, again, another, file, model] =
        [path("same"), path("again"), path("another"), path("vico.safetensors"), model()];
    let generate = |out: &str, from: &[&str]| {
        let fixed = "generate --device cpu --steps 2 --seed 3 --batch-size 2 --scheduler ddim --out";
        let fixed: Vec<&str> = fixed.split(' ').chain([out]).collect();
        // Several images of a prompt, and one without the subject, whose mask is where the end of text attends.
        succeed(&[&fixed[..], &["--images", "2", "--prompt", "a [V]", "--prompt", "a ball"], from].concat())
    };
    generate(&same, &["--run", &run]);
    let output = succeed(&["export", "--run", &run, "--out", &file, "--format", "vico"]);
    let said = stderr(&output);
    assert!(said.contains("--embedding") && said.contains("--reference PHOTO"), "{said}");
    // What is exported generates the same bits without the run, given the photo; with another photo it does not.
    generate(&again, &["--model", &model, "--embedding", &file, "--reference", &mine]);
    generate(&another, &["--run", &run, "--reference", &other]);
    for image in ["0000-seed3.png", "0001-seed4.png", "0002-seed3.png", "0003-seed4.png"] {
        let pixels = |folder: &str| image::open(Path::new(folder).join(image)).unwrap().into_rgb8();
        assert!(pixels(&same) == pixels(&again), "{image}");
        assert!(pixels(&same) != pixels(&another), "{image}");
    }
    let shown = ["--prompt", "a [V] ball", "--steps", "1", "--phases"];
    succeed(&[&["attend", "--device", "cpu", "--run", &run, "--out", &path("attend")], &shown[..]].concat());
    succeed(&["report", "--run", &run]);
    let report = fs::read_to_string(in_run("report.html")).unwrap();
    assert!(report.contains("The photo that the model looks at"), "the masks are shown");

    let export = |more: &[&str], words: &str| {
        refuses(&[&["export", "--run", &run, "--out", &path("x.safetensors")], more].concat(), words);
    };
    for format in ["single-file", "lora", "diffusers"] {
        export(&["--format", format], "have no place in a model or a LoRA: give --format vico");
    }
    export(&["--format", "neti"], "has no mapper, but is of the method vico");
    succeed(&["export", "--run", &run, "--out", &path("token.safetensors"), "--format", "embedding"]);
    let more = |more: &[&str], words: &str| {
        let fixed = ["generate", "--device", "cpu", "--steps", "1", "--prompt", "a [V]", "--out", &path("no")];
        refuses(&[&fixed[..], more].concat(), words);
    };
    more(&["--model", &model, "--embedding", &file], "has none: give `generate` one with --reference");
    more(&["--run", &run, "--reference", "nowhere.png"], "--reference nowhere.png");
    more(&["--run", &run, "--embedding", &file], "<new>");
    let other_model = fixtures().join("miniature").display().to_string();
    more(
        &["--model", &other_model, "--embedding", &file, "--reference", &mine],
        "an embedding of shape [1, 32], but this model's have the width 128",
    );
    refuses(
        &[
            "generate",
            "--device",
            "cpu",
            "--model",
            &model,
            "--prompt",
            "a ball",
            "--reference",
            &mine,
            "--out",
            &path("no"),
        ],
        "looks at no reference photo: leave out --reference",
    );
    fs::remove_file(in_run("reference.png")).unwrap();
    more(&["--run", &run], "put the run's reference.png back");

    let photos = path("moved");
    let fixed = "train --device cpu --category ball --model";
    let fixed: Vec<&str> = fixed.split(' ').chain([model.as_str(), "--concept", &photos]).collect();
    let training = |method: &str, more: &[&str], words: &str| {
        refuses(&[&fixed[..], &["--method", method, "--out", &path("none")], more].concat(), words);
    };
    training("vico", &["--set", "vectors=2"], "vectors is 2");
    training("vico", &["--set", "adapter.type=lora"], "its blocks: leave adapter out");
    training("vico", &["--set", "prior.images=1"], "no reference for class images: leave prior out");
    training("vico", &["--set", "reference.attention_weight=-1"], "reference.attention_weight is -1");
    training("vico", &["--add-concept", &format!("{photos}:dog")], "train each alone");
    training("ti-db", &["--set", "reference.attention_weight=1"], "the method ti-db looks at no reference photo");
}

#[test]
fn what_a_method_does_not_have_is_said_in_a_sentence() {
    let train = |more: &[&str], words: &str| {
        let model = model();
        let fixed = [
            "train",
            "--device",
            "cpu",
            "--model",
            &model,
            "--concept",
            "photos",
            "--category",
            "ball",
            "--out",
            "run",
        ];
        refuses(&[&fixed[..], more].concat(), words);
    };
    train(&["--method", "dreamboth"], "no method \"dreamboth\"; the methods are attndreambooth");
    train(
        &["--method", "textual-inversion", "--unet-steps", "3"],
        "textual-inversion has no phase \"unet\"; its phases are embedding",
    );
    train(&["--set", "phases.unett.steps=3"], "no phase \"unett\"");
    train(&["--method", "oft", "--preset", "fast"], "--preset is of the method attndreambooth");
    train(&["--method", "dreambooth", "--rank", "4"], "--rank is of a LoRA, but the method dreambooth has none");
}

#[test]
fn the_help_names_every_method() {
    let output = common::program(&["train", "--help"]);
    let help = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    for method in methods::ALL {
        assert!(help.contains(method.name()), "{}: {}", method.name(), stderr(&output));
    }
}
