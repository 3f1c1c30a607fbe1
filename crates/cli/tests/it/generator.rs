//! `generator`: what it generates is what `generate` does, whichever model it had before.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::common::{model, refuses, succeed, text, trained};

/// A generator that is asked line by line.
struct Generator {
    process: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Generator {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
            .args(["--json", "generator"])
            .env("OMP_NUM_THREADS", "1")
            .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (to, from) = (process.stdin.take(), BufReader::new(process.stdout.take().unwrap()));
        Self { process, to, from }
    }

    /// The last event of the answer.
    fn ask(&mut self, words: &Value) -> Value {
        writeln!(self.to.as_mut().unwrap(), "{words}").unwrap();
        loop {
            let mut line = String::new();
            self.from.read_line(&mut line).unwrap();
            let event: Value = serde_json::from_str(&line).unwrap();
            if ["result", "error"].contains(&event["event"].as_str().unwrap()) {
                return event;
            }
        }
    }
}

#[test]
fn requests_one_after_another_have_the_images_of_processes_of_their_own() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let base = format!("--model={}", model());
    let run = trained(folder, "run", &["--method", "attndreambooth-lora", "--rank", "2"]);
    let run = format!("--run={run}");
    let asked = |name: &str, out: &str| {
        let more: &[&str] = match name {
            "base" => &["--prompt=a cat", &base],
            "two of the base" => &["--prompt=a dog", "--images=2", "--negative-prompt=blurry", &base],
            "run" => &["--prompt=a photo of a [V] ball", &run],
            "half of the run" => &["--prompt=a photo of a [V] ball", "--lora-scale=0.5", &run],
            "all of the run" => &["--prompt=a photo of a [V] ball", "--lora-scale=1", &run],
            "bf16" => &["--prompt=a cat", "--dtype=bf16", &base],
            "none" => &["--prompt=a cat", "--run=no-such-run"],
            _ => panic!("{name}"),
        };
        let fixed = ["generate", "--device=cpu", "--seed=3", "--steps=2"];
        let out = format!("--out={}", text(&folder.join(out).join(name)));
        fixed.iter().chain(more).map(|word| (*word).to_owned()).chain([out]).collect::<Vec<_>>()
    };
    let mut generator = Generator::start();
    let order = [
        "base",
        "two of the base",
        "run",
        "half of the run",
        "none",
        "half of the run",
        "all of the run",
        "bf16",
        "base",
    ];
    for name in order {
        let answer = generator.ask(&json!(asked(name, "kept")));
        if name == "none" {
            assert!(answer["text"].as_str().unwrap().contains("no-such-run"), "{answer}");
            continue;
        }
        assert_eq!(answer["event"], "result", "{name}: {answer}");
        let alone = folder.join("alone").join(name);
        if !alone.exists() {
            succeed(&asked(name, "alone").iter().map(String::as_str).collect::<Vec<_>>());
        }
        let made: Vec<_> =
            answer["result"]["images"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
        assert_eq!(made.len(), if name == "two of the base" { 2 } else { 1 });
        for (number, path) in made.iter().enumerate() {
            let same = fs::read(alone.join(format!("{number:04}-seed{}.png", 3 + number))).unwrap();
            assert!(fs::read(path).unwrap() == same, "{name}: {path}");
        }
    }
    let image = |name: &str| fs::read(folder.join("alone").join(name).join("0000-seed3.png")).unwrap();
    assert!(image("run") == image("all of the run") && image("run") != image("half of the run"));
    let log = fs::read_to_string(folder.join("kept/half of the run/generate.jsonl")).unwrap();
    assert!(log.lines().count() == 2 && log.contains("\"lora_scale\":0.5"), "{log}");

    let train = json!(["train", "--model=x", "--concept=y", "--category=z", "--out=w"]);
    assert!(generator.ask(&train)["text"].as_str().unwrap().contains("only the command generate"));
    assert!(generator.ask(&json!({}))["text"].as_str().unwrap().contains("a JSON array of words"));
    // It ends with its input.
    generator.to = None;
    assert!(generator.process.wait().unwrap().success());
}

#[test]
fn a_scale_is_for_a_run_with_a_lora() {
    let temporary = tempfile::tempdir().unwrap();
    let run = trained(temporary.path(), "run", &[]);
    let generate = ["generate", "--prompt", "a [V] ball", "--device", "cpu", "--lora-scale", "0.5", "--run"];
    refuses(&[&generate[..], &[&run]].concat(), "has learned no LoRA whose scale could be set");
}
