//! The same work in Python and here, interleaved.

use anyhow::ensure;
use serde::Serialize;

use super::options::Bench;
use super::report::{self, Row};
use super::worker::{Measured, Setting, Workers};

/// How far the two sides' checks may lie apart, relatively: they round in another order. In bf16 far more.
const SAME_WORK: f64 = 1e-4;
const SAME_WORK_BF16: f64 = 5e-2;

/// Some work, and what it is compared with.
struct Comparison {
    name: &'static str,
    args: Vec<String>,
    baselines: Vec<Baseline>,
}

/// A way to do the work in Python.
struct Baseline {
    name: &'static str,
    args: Vec<String>,
    /// Our time should be at most so many times Python's.
    target: Option<f64>,
    /// Both find the same number.
    checked: bool,
}

impl Baseline {
    /// PyTorch with every saving that it offers.
    fn lean(target: Option<f64>) -> Self {
        Self { name: "PyTorch, same savings", args: words("--loop lean"), target, checked: true }
    }

    /// The authors' loop.
    fn authors(target: Option<f64>) -> Self {
        Self { name: "PyTorch, the authors' loop", args: words("--loop authors"), target, checked: true }
    }

    /// The same with its U-Net compiled, which takes time of its own.
    fn compiled(name: &'static str, target: Option<f64>) -> Self {
        Self::plain(name, target).with("--compile")
    }

    /// The one way there is.
    fn plain(name: &'static str, target: Option<f64>) -> Self {
        Self { name, args: Vec::new(), target, checked: true }
    }

    fn with(mut self, args: &str) -> Self {
        self.args.extend(words(args));
        self
    }

    fn unchecked(self) -> Self {
        Self { checked: false, ..self }
    }
}

#[derive(Serialize)]
struct Numbers {
    #[serde(flatten)]
    setting: Setting,
    rows: Vec<Row>,
}

pub(super) fn run(bench: &Bench) -> anyhow::Result<()> {
    let workers = Workers::new(bench)?;
    workers.check_python()?;
    let mut numbers = Numbers { setting: workers.setting(), rows: Vec::new() };
    let selected =
        |comparison: &Comparison| bench.filter.as_ref().is_none_or(|part| comparison.name.contains(part.as_str()));
    let all = comparisons(bench, &workers)?;
    ensure!(
        all.iter().any(selected),
        "no work has {:?} in its name; there are {}",
        bench.filter.as_deref().unwrap_or_default(),
        all.iter().map(|comparison| comparison.name).collect::<Vec<_>>().join(", ")
    );
    for comparison in all.iter().filter(|comparison| selected(comparison)) {
        for baseline in &comparison.baselines {
            terminal::say!("{}: {}", comparison.name, baseline.name);
            numbers.rows.push(row(bench, &workers, comparison, baseline)?);
            // What was measured is kept, whatever comes next.
            report::write(&bench.out, &numbers)?;
        }
    }
    report::table(&bench.out, &numbers.setting.to_string(), &report::comparison(&numbers.rows))
}

/// Both sides in turn; which begins alternates.
fn row(bench: &Bench, workers: &Workers<'_>, comparison: &Comparison, baseline: &Baseline) -> anyhow::Result<Row> {
    let ours = &comparison.args;
    let python: Vec<String> = ours.iter().chain(&baseline.args).cloned().collect();
    // Loading is compared with a copy, which is other work.
    let python = if baseline.name == COPY { [words("memory-copy"), python[1..].to_vec()].concat() } else { python };
    let mut pairs: Vec<(Measured, Measured)> = Vec::new();
    for round in 0..bench.rounds {
        let pair = if round % 2 == 0 {
            let first = workers.measure(ours)?;
            (first, workers.measure_python(&python)?)
        } else {
            let first = workers.measure_python(&python)?;
            (workers.measure(ours)?, first)
        };
        pairs.push(pair);
    }
    if baseline.checked {
        // On a GPU the authors' convolutions are in TF32.
        let exact = bench.dtype == "fp32" && bench.device == "cpu";
        let bound = if exact { SAME_WORK } else { SAME_WORK_BF16 };
        let (a, b) = (pairs[0].0.check, pairs[0].1.check);
        ensure!(
            (a - b).abs() <= bound * b.abs(),
            "{}: this program finds {a}, {} {b}: they do not do the same work",
            comparison.name,
            baseline.name
        );
    }
    Ok(Row::new(comparison.name, baseline.name, baseline.target, &pairs))
}

const COPY: &str = "a plain copy of the file in memory";

/// Steps of the other methods.
const METHODS: [&str; 10] = [
    "attndreambooth-lora-step",
    "textual-inversion-step",
    "dreambooth-step",
    "ti-db-step",
    "custom-diffusion-step",
    "oft-step",
    "coft-step",
    "lora-step",
    "neti-step",
    "vico-step",
];

fn comparisons(bench: &Bench, workers: &Workers<'_>) -> anyhow::Result<Vec<Comparison>> {
    // Of the large model all at 128 pixels on a CPU, where the U-Net's latents are 16x16.
    let large = bench.full && bench.device == "cpu";
    let (size, often) = match (bench.full, large) {
        (false, _) => ("", "--iterations 5"),
        (true, true) => ("--resolution 128", "--iterations 2"),
        (true, false) => ("--resolution 512", "--iterations 20 --warm-up 5"),
    };
    let compare = |name: &'static str, args: &str, baselines: Vec<Baseline>| Comparison {
        name,
        args: words(&format!("{name} {args} {size} {often}")),
        baselines,
    };
    let loops = |authors, lean| vec![Baseline::authors(authors), Baseline::lean(lean)];
    // The miniature's file is opened for longer than it is read.
    let of_size = bench.full.then_some(1.2);
    let mut all = vec![
        compare(
            "unet-forward",
            "--batch-size 8",
            vec![Baseline::plain("diffusers", None), Baseline::compiled("diffusers, compiled", None)],
        ),
        compare("embedding-step", "--batch-size 8", loops(None, None)),
        compare("cross-attention-step", "--batch-size 8", loops(None, None)),
        compare("unet-step", "--batch-size 8", {
            let compiled = Baseline::compiled("PyTorch, same savings, compiled", Some(0.95)).with("--loop lean");
            loops(Some(0.8), Some(0.95)).into_iter().chain([compiled]).collect()
        }),
    ];
    for name in METHODS {
        all.push(compare(name, "--batch-size 4", vec![Baseline::lean(Some(0.95))]));
    }
    all.extend([
        compare("text-encoder", "--batch-size 1", vec![Baseline::plain("transformers", None)]),
        compare("vae-encode", "--batch-size 8", vec![Baseline::plain("diffusers", None)]),
        compare("vae-decode", "--batch-size 1", vec![Baseline::plain("diffusers", None)]),
        compare("adamw", "", vec![Baseline::authors(None), Baseline::lean(None)]),
        compare(
            "sampling",
            "--batch-size 1 --steps 50",
            vec![Baseline::plain("diffusers", Some(0.9)), Baseline::compiled("diffusers, compiled", Some(0.9))],
        ),
        compare("loading", "", vec![Baseline::plain("diffusers", None), Baseline::plain(COPY, of_size).unchecked()]),
    ]);
    if large {
        // The largest step that the memory of a small machine holds.
        let model = workers.make("sdxl-base")?;
        let sdxl = |name, args: &str, target| Comparison {
            name,
            args: words(&format!("{args} --model {model} --batch-size 1 --resolution 256 --iterations 2")),
            baselines: vec![Baseline::plain("diffusers and peft", Some(target))],
        };
        all.push(sdxl("SDXL: unet-forward", "unet-forward", 0.9));
        all.push(sdxl("SDXL: lora-step", "lora-step", 0.9));
    }
    if !bench.full {
        let (model, images) = (workers.make("vit-b32")?, workers.make("images")?);
        let args = format!("features --model {model} --images {images} --batch-size 32 --iterations 1 --warm-up 0");
        let torchvision = |name, workers: usize| Baseline::plain(name, Some(1.3)).with(&format!("--workers {workers}"));
        all.push(Comparison {
            name: "features",
            args: words(&args),
            baselines: vec![
                torchvision("torchvision, one process", 0).unchecked(),
                torchvision("torchvision, a worker a thread", workers.threads()).unchecked(),
            ],
        });
    }
    // Of the large model a CPU does a twentieth, and hardly generates the image at the end, which is larger; the whole takes
    // hours. Python writes checkpoints where a stage ends.
    let (name, args, target) = match (bench.full, large) {
        (false, _) => ("training", "", Some(0.7)),
        (true, false) => ("training", "--category photo --set checkpoint_every=100000", None),
        (true, true) => (
            "training, a twentieth of its steps",
            "--category photo --set phases.embedding.steps=3 --set phases.cross_attention.steps=5 --set phases.unet.steps=25 --set \
             validation.steps=1",
            None,
        ),
    };
    all.push(Comparison {
        name,
        args: words(&format!("training {args} {size} --iterations 1 --warm-up 0")),
        baselines: vec![Baseline::authors(target).unchecked()],
    });
    Ok(all)
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
