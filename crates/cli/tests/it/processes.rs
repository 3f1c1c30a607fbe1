//! One subject by several processes, as torchrun starts them.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output};

use weights::Archive;

use crate::common::{self, CHANGED, photos, program, stderr, train, wait_for_steps};

/// Starts commands as the ranks of one group.
fn together(commands: Vec<Command>) -> Vec<Child> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let size = commands.len();
    let start = |(rank, mut command): (usize, Command)| {
        command
            .envs(
                [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", size), ("MASTER_PORT", port.into())]
                    .map(|(name, number)| (name, number.to_string())),
            )
            .env("MASTER_ADDR", "127.0.0.1")
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    commands.into_iter().enumerate().map(start).collect()
}

fn ends(children: Vec<Child>) -> Vec<Output> {
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

/// The same command by each process.
fn by(size: usize, command: impl Fn() -> Command) -> Vec<Child> {
    together((0..size).map(|_| command()).collect())
}

fn succeed_by(size: usize, command: impl Fn() -> Command) {
    let outputs = ends(by(size, command));
    let said: Vec<String> = outputs.iter().map(stderr).collect();
    for (rank, output) in outputs.iter().enumerate() {
        assert!(output.status.success(), "rank {rank}: {}", said.join("\n---\n"));
        assert!(rank == 0 || output.stderr.is_empty() && output.stdout.is_empty(), "{}", stderr(output));
    }
}

/// How far what a run has changed is from what another has, relative to what that has.
fn distance(folder: &Path, run: &str, one: &str) -> f64 {
    let of = |run: &str, file: &str| Archive::open(&folder.join(run).join(file)).unwrap().tensors().unwrap();
    let base = Path::new(&common::model()).join("unet/diffusion_pytorch_model.safetensors");
    let base = Archive::open(&base).unwrap().tensors().unwrap();
    let (mut off, mut all) = (0.0, 0.0);
    let square = |tensor: tch::Tensor| tensor.square().sum(tch::Kind::Double).double_value(&[]);
    for file in CHANGED {
        let (run, one) = (of(run, file), of(one, file));
        for (name, one) in &one {
            off += square(&run[name] - one);
            all += square(base.get(name).map_or_else(|| one.shallow_clone(), |base| one - base));
        }
    }
    (off / all).sqrt()
}

fn steps_of(log: &Path) -> Vec<u64> {
    let text = fs::read_to_string(log).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap())
        .collect()
}

/// Three samples a step: neither two nor four divide them.
const UNEVEN: [&str; 4] = ["--batch-size", "3", "--validate-every", "0"];

#[test]
fn several_processes_make_the_run_of_one_and_another_number_of_them_resumes_it() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let output = train(folder, "one", &UNEVEN).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    succeed_by(2, || train(folder, "two", &UNEVEN));
    // The same files, and nothing beside them.
    let files = |run: &str| {
        let run = folder.join(run);
        let files = common::contents(&run).into_keys().map(|path| path.strip_prefix(&run).unwrap().to_owned());
        // One has the time in its name.
        files.filter(|file| !file.display().to_string().contains("tfevents")).collect::<Vec<_>>()
    };
    assert_eq!(files("one"), files("two"));
    let off = distance(folder, "two", "one");
    assert!(off < 1e-3, "{off}");

    // One is killed.
    let log = folder.join("killed/log.jsonl");
    let mut children = by(2, || train(folder, "killed", &UNEVEN));
    wait_for_steps(&mut children[0], &log, 8);
    children[1].kill().unwrap();
    let output = ends(children).remove(0);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("rank 0 of 2 has lost another process"), "{}", stderr(&output));
    // One is told to stop, and all do.
    let resume = [&UNEVEN[..], &["--resume"]].concat();
    let before = steps_of(&log).len();
    let mut children = by(4, || train(folder, "killed", &resume));
    wait_for_steps(&mut children[0], &log, before + 3);
    Command::new("kill").args(["-TERM", &children[3].id().to_string()]).status().unwrap();
    for output in ends(children) {
        assert_eq!(output.status.code(), Some(75), "{}", stderr(&output));
    }
    succeed_by(2, || train(folder, "killed", &resume));
    assert_eq!(steps_of(&log), (1..=18).collect::<Vec<u64>>());
    let off = distance(folder, "killed", "one");
    assert!(off < 1e-3, "{off}");
    // A finished run is left alone.
    succeed_by(2, || train(folder, "killed", &resume));
}

#[test]
fn class_images_are_shared_and_learned_by_all() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let arguments = ["--method", "dreambooth", "--set", "prior.images=3", "--set", "prior.steps=2", "--steps", "3"];
    let arguments = [&arguments[..], &["--validate-every", "0"]].concat();
    let command = |out: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attndreambooth"));
        command
            .args(["train", "--device", "cpu", "--category", "cat", "--resolution", "64", "--results", "none"])
            .args(["--model", &common::model(), "--concept", &folder.join("photos").display().to_string()])
            .args(["--out", &folder.join(out).display().to_string(), "--batch-size", "1"])
            .args(&arguments)
            .envs([("OMP_NUM_THREADS", "1"), ("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))]);
        command
    };
    let output = command("one").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    succeed_by(2, || command("two"));
    assert!(common::contents(&folder.join("one/prior")).len() >= 3);
    let images = |run: &str| common::contents(&folder.join(run).join("prior")).into_values().collect::<Vec<_>>();
    assert_eq!(images("one"), images("two"));
}

#[test]
fn what_differs_between_processes_is_refused_before_anything_is_written() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    photos(&folder.join("others"));
    fs::copy(folder.join("photos/1.png"), folder.join("others/2.png")).unwrap();
    let others = folder.join("others").display().to_string();
    for (more, words) in [
        (["--seed", "7"], "rank 1 has another configuration (config.seed was 0, is 7) than rank 0"),
        (["--concept", &others], "rank 1 has other photos (2.png in place of 2.png) than rank 0"),
    ] {
        // The concept of `train` comes before, and may not be given twice.
        let mut second = train(folder, "run", &[]);
        if more[0] == "--concept" {
            second = Command::new(env!("CARGO_BIN_EXE_attndreambooth"));
            second.args(train(folder, "run", &[]).get_args().map(|argument| match argument {
                photos if Path::new(photos) == folder.join("photos") => others.as_ref(),
                other => other,
            }));
            second.envs([("OMP_NUM_THREADS", "1"), ("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))]);
        } else {
            second.args(more);
        }
        for output in ends(together(vec![train(folder, "run", &[]), second])) {
            assert_eq!(output.status.code(), Some(2));
            assert!(stderr(&output).contains(words), "{}", stderr(&output));
        }
        assert!(!folder.join("run").exists());
    }
}

#[test]
fn an_environment_that_is_not_whole_is_refused() {
    let refuses = |arguments: &[&str], environment: &[(&str, &str)], words: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
            .args(arguments)
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(words) && text.trim().lines().count() == 1, "{text}");
    };
    let half = [("RANK", "0"), ("WORLD_SIZE", "2")];
    refuses(&["config", "schema"], &half, "WORLD_SIZE is 2, but MASTER_ADDR is not set");
    let whole = [&half[..], &[("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29511")]].concat();
    refuses(&["config", "schema"], &whole, "only the training of one subject");
    refuses(&["train", "--batch", "subjects.toml", "--out", "x"], &whole, "--index and --shard");
    // One process is what it always was.
    let alone = Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
        .args(["config", "schema"])
        .envs([("RANK", "0"), ("WORLD_SIZE", "1")])
        .output()
        .unwrap();
    assert_eq!(alone.stdout, program(&["config", "schema"]).stdout);
    assert!(alone.status.success());
}

#[test]
fn images_are_shared_and_the_same() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let run = common::trained(folder, "run", &[]);
    let generate = |out: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attndreambooth"));
        command
            .args(["generate", "--run", &run, "--prompt", "a [V] ball", "--prompt", "a ball", "--images", "2"])
            .args([
                "--batch-size",
                "1",
                "--steps",
                "2",
                "--height",
                "64",
                "--width",
                "64",
                "--device",
                "cpu",
                "--out",
                &folder.join(out).display().to_string(),
            ])
            .env("OMP_NUM_THREADS", "1");
        command
    };
    assert!(generate("one").output().unwrap().status.success());
    succeed_by(3, || generate("three"));
    let images = |out: &str| {
        let mut files = common::contents(&folder.join(out));
        // The log has times.
        files.retain(|path, _| path.extension().is_some_and(|extension| extension == "png"));
        files.into_iter().map(|(path, bytes)| (path.file_name().unwrap().to_owned(), bytes)).collect::<Vec<_>>()
    };
    assert_eq!(images("one").len(), 5);
    assert!(images("one") == images("three"));
    let log = |out: &str| fs::read_to_string(folder.join(out).join("generate.jsonl")).unwrap().lines().count();
    assert_eq!((log("one"), log("three")), (4, 4));

    let clip = golden::fixtures().join("tiny-clip").display().to_string();
    let evaluate = |out: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attndreambooth"));
        command
            .args([
                "evaluate",
                "--run",
                &run,
                "--clip",
                &clip,
                "--images",
                "1",
                "--steps",
                "2",
                "--batch-size",
                "1",
                "--base",
                "--height",
                "64",
                "--width",
                "64",
            ])
            .args(["--device", "cpu", "--out", &folder.join(out).display().to_string()])
            .envs([("OMP_NUM_THREADS", "1"), ("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))]);
        command
    };
    let output = evaluate("scored").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    succeed_by(2, || evaluate("scored-by-two"));
    let [one, two] = ["scored", "scored-by-two"].map(|out| common::json(&folder.join(out).join("scores.json")));
    assert_eq!(one["variants"], two["variants"]);
    assert!(images("scored/subject") == images("scored-by-two/subject"));
}
