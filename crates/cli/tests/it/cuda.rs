//! The program on a CUDA device, against itself on the CPU: on the machine's GPU, else on the stand-in for one.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use golden::{assert_close, fixtures};
use weights::Archive;

use crate::common::{CHANGED, assert_same_result, difference, json, model, photos, stderr, train, wait_for_steps};

/// The program on `device`.
fn program(device: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attndreambooth"));
    command.args(arguments).args(["--device", device]).env("OMP_NUM_THREADS", "1").stderr(Stdio::piped());
    placed(command, device)
}

fn placed(mut command: Command, device: &str) -> Command {
    if device == "cuda" {
        cuda_standin::offer(&mut command);
    }
    command.stdout(Stdio::piped());
    command
}

/// A run in three steps a phase, which change much.
fn run(folder: &Path, device: &str, more: &[&str]) -> Command {
    let fixed = "--deterministic --category ball --validate-every 2 --set phases.embedding.steps=3 --set phases.cross_attention.steps=3 \
                 --set phases.unet.steps=3 --set phases.embedding.learning_rate=1e-2 --set phases.cross_attention.learning_rate=1e-2 \
                 --set phases.unet.learning_rate=1e-3 --device";
    let arguments: Vec<&str> = fixed.split_whitespace().chain([device]).chain(more.iter().copied()).collect();
    placed(train(folder, device, &arguments), device)
}

/// Side by side.
fn succeed(commands: impl IntoIterator<Item = Command>) -> Vec<Output> {
    let children: Vec<_> = commands.into_iter().map(|mut command| command.spawn().unwrap()).collect();
    let outputs = children.into_iter().map(|child| child.wait_with_output().unwrap());
    outputs.inspect(|output| assert!(output.status.success(), "{:?} {}", output.status, stderr(output))).collect()
}

/// Two runs went the same way, up to `bound` of the losses and of what was learned.
fn assert_alike(folder: &Path, bound: f64) {
    let losses = |device: &str| -> Vec<f64> {
        let text = fs::read_to_string(folder.join(device).join("log.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.iter().flat_map(|l| [&l["diffusion_loss"], &l["attention_loss"]].map(|x| x.as_f64().unwrap())).collect()
    };
    let [ours, expected] = ["cuda", "cpu"].map(losses);
    assert_eq!(ours.len(), expected.len());
    for (ours, expected) in ours.iter().zip(&expected) {
        assert!((ours - expected).abs() <= bound * expected.abs().max(1e-3), "a loss is {ours}, not {expected}");
    }
    for file in CHANGED {
        let tensors = |path: &Path| Archive::open(path).unwrap().tensors().unwrap();
        let [ours, expected] = ["cuda", "cpu"].map(|device| tensors(&folder.join(device).join(file)));
        let base = Path::new(&model()).join(file);
        let base = base.exists().then(|| tensors(&base));
        let (mut error, mut change) = (0.0, 0.0);
        for (name, expected) in &expected {
            // What was learned: without the base model's share.
            let start = base.as_ref().map_or_else(|| expected * 0.0, |base| base[name].shallow_clone());
            error += (&ours[name] - expected).square().sum(tch::Kind::Double).double_value(&[]);
            change += (expected - start).square().sum(tch::Kind::Double).double_value(&[]);
        }
        let error = f64::sqrt(error / change);
        assert!(error <= bound, "{file} differs by {error:.1e} of what was learned");
    }
}

#[test]
fn a_run_learns_what_the_cpu_learns_wherever_it_was_killed_and_is_used_alike() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let outputs = succeed([run(folder, "cpu", &[]), run(folder, "cuda", &[])]);
    assert!(stderr(&outputs[1]).contains("computing on Cuda(0) in fp32"), "{}", stderr(&outputs[1]));
    assert_alike(folder, 1e-2);
    for file in ["samples.png", "validation/1-embedding-00002.png", "validation/3-unet-00002.png"] {
        assert!(difference(&folder.join("cpu").join(file), &folder.join("cuda").join(file)) <= 3, "{file}");
    }

    // Checkpoints are written beside the steps that follow them.
    let killed = folder.join("killed");
    let out = killed.display().to_string();
    for (i, moment) in [3, 5, 8].into_iter().enumerate() {
        let more = ["--out", &out, "--resume"];
        let mut child = run(folder, "cuda", if i == 0 { &more[..2] } else { &more }).spawn().unwrap();
        wait_for_steps(&mut child, &killed.join("log.jsonl"), moment);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    succeed([program("cuda", &["train", "--results", "none", "--resume", "--out", &out])]);
    assert_same_result(folder, "cuda", "killed");

    used_alike(folder);
}

/// What is done with a finished run, on both devices.
fn used_alike(folder: &Path) {
    let text = |path: &Path| path.display().to_string();
    let (run, clip) = (text(&folder.join("cuda")), text(&fixtures().join("tiny-clip")));
    let prompts = folder.join("mine.txt");
    fs::write(&prompts, "a {} on the beach\na red {}\n").unwrap();
    let prompts = text(&prompts);
    let place = |device: &str, name: &str| folder.join(format!("{name}-{device}"));
    let both = |name: &str, arguments: &[&str]| {
        succeed(["cpu", "cuda"].map(|device| {
            let out = text(&place(device, name));
            program(device, &[arguments, &["--run", &run, "--seed", "3", "--steps", "3", "--out", &out]].concat())
        }));
    };
    let alike = |name: &str, file: &str, levels: u8| {
        let found = difference(&place("cpu", name).join(file), &place("cuda", name).join(file));
        assert!(found <= levels, "{name}: {file} differs by {found} levels");
    };

    let prompt = ["--prompt", "a [V] ball on the beach"];
    for (dtype, levels) in [("fp32", 2), ("bf16", 24)] {
        both(dtype, &[&["generate", "--height", "64", "--width", "64", "--dtype", dtype], &prompt[..]].concat());
        alike(dtype, "0000-seed3.png", levels);
    }

    both("attend", &[&["attend", "--phases"], &prompt[..]].concat());
    let [ours, expected] = ["cuda", "cpu"]
        .map(|device| Archive::open(&place(device, "attend").join("maps.safetensors")).unwrap().tensors().unwrap());
    for (name, expected) in &expected {
        assert_close(name, &ours[name], expected, 1e-3);
    }
    alike("attend", "unet.png", 2);

    both("inspect", &["inspect", "--images", "1"]);
    let [ours, expected] = ["cuda", "cpu"].map(|device| json(&place(device, "inspect").join("inspect.json")));
    for number in ["cosine", "norm", "start_norm", "distance"] {
        let [ours, expected] = [&ours, &expected].map(|record| record["vectors"][0][number].as_f64().unwrap());
        assert!((ours - expected).abs() < 1e-5, "{number} is {ours}, not {expected}");
    }
    alike("inspect", "after-seed3.png", 2);

    both(
        "evaluate",
        &["evaluate", "--clip", &clip, "--prompts", &prompts, "--images", "1", "--height", "64", "--width", "64"],
    );
    alike("evaluate", "subject/001-00.png", 2);
    let [ours, expected] = ["cuda", "cpu"].map(|device| {
        let record = json(&place(device, "evaluate").join("scores.json"));
        numbers(&record["variants"][0]["scores"])
    });
    assert_eq!(ours.len(), expected.len());
    for (ours, expected) in ours.iter().zip(&expected) {
        assert!((ours - expected).abs() < 5e-3, "a score is {ours}, not {expected}");
    }
}

/// All numbers in a JSON value, in its order.
fn numbers(value: &serde_json::Value) -> Vec<f64> {
    match value {
        serde_json::Value::Array(values) => values.iter().flat_map(numbers).collect(),
        serde_json::Value::Object(values) => values.values().flat_map(numbers).collect(),
        other => other.as_f64().into_iter().collect(),
    }
}

const EVERY_OPTION: &str = "--gradient-checkpointing --gradient-accumulation 2 --prior-preservation --prior-images 2 \
                            --set prior.steps=2 --set ema.decay=0.9 --set snr_gamma=5 --set max_grad_norm=0.5";

#[test]
fn every_option_of_training_does_what_it_does_on_the_cpu() {
    for (dtype, bound) in [("fp32", 1e-2), ("bf16", 0.3)] {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        photos(&folder.join("photos"));
        let more: Vec<&str> = EVERY_OPTION.split_whitespace().chain(["--dtype", dtype]).collect();
        succeed(["cpu", "cuda"].map(|device| run(folder, device, &more)));
        assert_alike(folder, bound);
    }
}

#[test]
fn tf32_rounds_only_where_it_is_asked_for() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let short = [
        "--set",
        "phases.embedding.steps=1",
        "--set",
        "phases.cross_attention.steps=0",
        "--set",
        "phases.unet.steps=0",
    ];
    let loss = |dtype: &str| {
        let out = folder.join(dtype).display().to_string();
        let more = [&short[..], &["--validate-every", "0", "--dtype", dtype, "--out", &out]].concat();
        let command = run(folder, "cuda", &more);
        let log = folder.join(dtype).join("log.jsonl");
        (command, move || json(&log)["diffusion_loss"].as_f64().unwrap())
    };
    let ((exactly, exact), (roughly, rough)) = (loss("fp32"), loss("tf32"));
    succeed([exactly, roughly]);
    let error = (rough() - exact()).abs() / exact();
    assert!(error > 1e-7 && error < 5e-3, "{error:.1e}");
}

/// On a GPU a step costs most where the host waits in it. Whatever the options, no copy of a step is waited for; what comes
/// from the device does so while it is at the next step. Only the stand-in counts.
#[test]
fn no_step_waits_for_a_copy() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let options = format!("{EVERY_OPTION} --validate-every 0 --checkpoint-every 100");
    let counted = |stage: &str, steps: usize| {
        let name = format!("{stage}-{steps}");
        let mut more: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
        for each in ["embedding", "cross_attention", "unet"] {
            more.extend(["--set".to_owned(), format!("phases.{each}.steps={}", if each == stage { steps } else { 0 })]);
        }
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let mut command = train(folder, &name, &[&more[..], &["--device", "cuda"]].concat());
        let counts = folder.join(format!("{name}.json"));
        cuda_standin::preload(&mut command).env(cuda_standin::COUNTS, &counts);
        (command, counts)
    };
    for stage in ["embedding", "cross_attention", "unet"] {
        let [few, many] = [1, 3].map(|steps| counted(stage, steps));
        succeed([few.0, many.0]);
        let [few, many] = [few.1, many.1].map(|path| json(&path));
        let more = |name: &str| many[name].as_i64().unwrap() - few[name].as_i64().unwrap();
        let blocking = ["blocking_uploads", "blocking_downloads"].map(more);
        assert_eq!(blocking, [0, 0], "two steps more of {stage}: {few} and {many}");
        // The losses.
        assert_eq!(["queued_downloads", "waits"].map(more), [2, 2], "two steps more of {stage}: {few} and {many}");
        assert!(more("kernels") > 0);
    }
}

/// Nor is one of a checkpoint's: the thread that writes it waits for its tensors, beside the next step.
#[test]
fn no_step_waits_for_a_checkpoint() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let counted = |every: &str| {
        let short = "--device cuda --validate-every 0 --set phases.embedding.steps=0 --set phases.cross_attention.steps=0 --set phases.unet.steps=3";
        let more: Vec<&str> = short.split_whitespace().chain(["--checkpoint-every", every]).collect();
        let mut command = train(folder, every, &more);
        let counts = folder.join(every).with_extension("json");
        cuda_standin::preload(&mut command).env(cuda_standin::COUNTS, &counts);
        (command, counts)
    };
    let [none, two] = ["100", "1"].map(counted);
    succeed([none.0, two.0]);
    let [none, two] = [none.1, two.1].map(|path| json(&path));
    assert_eq!(none["blocking_downloads"], two["blocking_downloads"], "{none} and {two}");
    assert!(two["queued_downloads"].as_i64() > none["queued_downloads"].as_i64(), "{none} and {two}");
}

/// What has other keys and values at each timestep and in each layer.
#[test]
fn neti_learns_and_generates_what_it_does_on_the_cpu_and_no_step_waits() {
    learns_and_generates_what_it_does_on_the_cpu_and_no_step_waits("neti");
}

/// What looks at a reference photo in each pass.
#[test]
fn vico_learns_and_generates_what_it_does_on_the_cpu_and_no_step_waits() {
    learns_and_generates_what_it_does_on_the_cpu_and_no_step_waits("vico");
}

fn learns_and_generates_what_it_does_on_the_cpu_and_no_step_waits(method: &str) {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let text = |path: &Path| path.display().to_string();
    let (model, photos) = (model(), text(&folder.join("photos")));
    let train = |device: &str, out: &str, steps: &str| {
        let (out, fixed) = (
            text(&folder.join(out)),
            "--category ball --resolution 64 --results none --validate-every 0 --set templates=miniature --method",
        );
        let fixed: Vec<&str> = ["train"].into_iter().chain(fixed.split_whitespace()).chain([method]).collect();
        let own =
            ["--model", &model, "--concept", &photos, "--out", &out, "--steps", steps, "--set", "validation.steps=1"];
        program(device, &[&fixed[..], &own].concat())
    };
    succeed(["cpu", "cuda"].map(|device| train(device, device, "3")));
    let losses = |device: &str| -> Vec<f64> {
        let text = fs::read_to_string(folder.join(device).join("log.jsonl")).unwrap();
        let line =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["diffusion_loss"].as_f64().unwrap();
        text.lines().map(line).collect()
    };
    for (ours, expected) in losses("cuda").iter().zip(losses("cpu")) {
        assert!((ours - expected).abs() <= 1e-3 * expected, "a loss is {ours}, not {expected}");
    }
    let (run, images) = (text(&folder.join("cpu")), |device: &str| folder.join(format!("images-{device}")));
    let generate = |device: &str| {
        let out = text(&images(device));
        let fixed = "--steps 3 --height 64 --width 64 --seed 3 --batch-size 2 --negative-prompt cat";
        let fixed: Vec<&str> = ["generate"].into_iter().chain(fixed.split_whitespace()).collect();
        program(
            device,
            &[&fixed[..], &["--run", &run, "--prompt", "a [V]", "--prompt", "a dog", "--out", &out]].concat(),
        )
    };
    succeed(["cpu", "cuda"].map(generate));
    for image in ["0000-seed3.png", "0001-seed3.png"] {
        assert!(difference(&images("cpu").join(image), &images("cuda").join(image)) <= 2, "{image}");
    }

    let counted = |steps: &str| {
        let mut command = train("cuda", steps, steps);
        let counts = folder.join(steps).with_extension("json");
        cuda_standin::preload(&mut command).env(cuda_standin::COUNTS, &counts);
        (command, counts)
    };
    let [few, many] = ["1", "3"].map(counted);
    succeed([few.0, many.0]);
    let [few, many] = [few.1, many.1].map(|path| json(&path));
    let blocking = ["blocking_uploads", "blocking_downloads"]
        .map(|name| many[name].as_i64().unwrap() - few[name].as_i64().unwrap());
    assert_eq!(blocking, [0, 0], "{few} and {many}");
}

/// A step leaves nothing behind; and a phase has in memory the weights, the gradients and AdamW's two moments of what it trains,
/// beside activations, of which checkpointing keeps few. A lower bound of a GPU's, which has workspaces and gaps beside that.
#[test]
fn memory_is_what_a_phase_needs_and_does_not_grow() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let bytes = |component: &str, chosen: fn(&str) -> bool| -> f64 {
        let archive = Archive::open_folder(&Path::new(&model()).join(component)).unwrap();
        let numbers = archive.shapes().filter(|(name, _)| chosen(name)).map(|(_, shape)| shape.iter().product::<i64>());
        4.0 * numbers.sum::<i64>() as f64
    };
    let all = |_: &str| true;
    let unet = bytes("unet", all);
    let weights = unet + bytes("vae", all) + bytes("text_encoder", all);
    let attention = bytes("unet", |name| name.contains(".attn2."));

    let modes = ["--dtype=fp32", "--gradient-checkpointing", "--dtype=bf16"];
    let run = |mode: &str| {
        let mut command = train(
            folder,
            &format!("run{mode}"),
            &["--validate-every", "0", "--checkpoint-every", "100", "--device", "cuda", mode],
        );
        cuda_standin::preload(&mut command).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    succeed(modes.map(run));
    let peaks = modes.map(|mode| {
        let log = fs::read_to_string(folder.join(format!("run{mode}")).join("log.jsonl")).unwrap();
        let number =
            |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["peak_memory_bytes"].as_f64().unwrap();
        let peaks: Vec<f64> = log.lines().map(number).collect();
        let of_phases = peaks.chunks(6).map(|phase| {
            // The first step makes the moments. How a step and the encoding of the next batch meet is a matter of time, but a graph
            // that was kept would show.
            assert!(phase[5] < 1.2 * phase[1], "{mode}: {phase:?}");
            phase[5]
        });
        <[f64; 3]>::try_from(of_phases.collect::<Vec<_>>()).unwrap()
    });
    for (mode, [_, of_attention, of_unet]) in modes.iter().zip(&peaks) {
        assert!(*of_attention >= weights + 3.0 * attention && *of_unet >= weights + 3.0 * unet, "{mode}: {peaks:?}");
    }
    let activations = peaks.map(|[.., of_unet]| of_unet - weights - 3.0 * unet);
    let [exact, checkpointed, half] = activations;
    assert!(checkpointed < 0.4 * exact && half < 0.7 * exact, "{activations:?}");
}

#[test]
fn want_of_memory_names_the_flags_that_help() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let mut command = run(folder, "cuda", &["--set", "phases.unet.batch_size=32"]);
    // The phases before take 4 MB, and a batch of 32 takes 35.
    let output = cuda_standin::preload(&mut command).env(cuda_standin::BYTES, "12000000").output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for words in ["CUDA out of memory", "--gradient-checkpointing", "--dtype bf16", "--batch-size"] {
        assert!(text.contains(words), "{text}");
    }
    assert!(!text.contains("panicked") && folder.join("cuda/checkpoints/cross_attention-00003").exists(), "{text}");
}

#[test]
fn a_gpu_that_is_not_there_is_named() {
    let arguments = ["generate", "--model", &model(), "--prompt", "a cat", "--device", "cuda:64"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_attndreambooth"));
    let output = cuda_standin::offer(command.args(arguments)).output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("device cuda:64 does not exist: this machine has "), "{text}");
}
