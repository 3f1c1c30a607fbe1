//! `bench`: a piece of work, timed; or what to time it on.

use std::path::PathBuf;

use anyhow::{Result, bail};
use benchmarks::{Settings, Work, measure, procedural};
use clap::{Args, ValueEnum};

use options::Dtype;

use crate::device::ComputeArgs;
use crate::number;
use crate::train::split_change;

/// Time a piece of work: prints a line of JSON with the seconds of each run.
///
/// The work: unet-forward, embedding-step, cross-attention-step, unet-step (a step of stage 1, 2, 3 with the VAE's
/// encoding of its batch), text-encoder, vae-encode, vae-decode, adamw, sampling, loading, features, training.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// The work
    #[arg(required_unless_present_any = ["make", "plot"])]
    work: Option<Work>,
    /// A model in the diffusers layout; for features, a CLIP's folder
    #[arg(long, default_value = "fixtures/miniature")]
    model: PathBuf,
    /// Samples at once
    #[arg(long, default_value_t = 8, value_parser = number::within(1..=i64::from(*number::BATCH.end()), number::BATCH_REASON))]
    batch_size: i64,
    /// Side of the pictures in pixels; what the model was trained for if not given
    #[arg(long, value_parser = number::within(8..=8192_i64, "memory and time grow with its square and more"))]
    resolution: Option<i64>,
    /// Denoising steps of sampling
    #[arg(long, default_value_t = 50)]
    steps: usize,
    /// Compute activations again in the backward pass
    #[arg(long)]
    gradient_checkpointing: bool,
    /// For features, the folder with pictures; for training, that with photos
    #[arg(long, default_value = "fixtures/subjects/penguin")]
    pictures: PathBuf,
    /// For training: the class noun of the subject
    #[arg(long, default_value = "bird")]
    category: String,
    /// For training: a value other than the preset's, such as unet.steps=10; may be given several times
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Runs before the clock starts
    #[arg(long, default_value_t = 1, value_parser = number::within(0..=RUNS, RUNS_REASON))]
    warm_up: usize,
    /// Runs that are timed
    #[arg(long, default_value_t = 3, value_parser = number::within(1..=RUNS, RUNS_REASON))]
    iterations: usize,
    /// Threads to compute with
    #[arg(long, value_parser = number::within(number::THREADS, number::THREADS_REASON))]
    threads: Option<i32>,
    /// Write something to time work on to --out, and time nothing
    #[arg(long, value_enum, requires = "out", conflicts_with = "work")]
    make: Option<Procedural>,
    /// Draw the numbers that `cargo xtask bench --scaling` has written to --out, and time nothing
    #[arg(long, requires = "out", conflicts_with_all = ["work", "make"])]
    plot: Option<PathBuf>,
    /// The folder that --make makes, or the PNG file that --plot draws
    #[arg(long)]
    out: Option<PathBuf>,
    /// A small tokenizer for --make
    #[arg(long, default_value = "fixtures/tiny-sd21/tokenizer")]
    tokenizer: PathBuf,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// How often a piece of work may be done.
const RUNS: usize = 1_000_000;
const RUNS_REASON: &str = "runs are done one by one";

/// What can be made.
#[derive(ValueEnum, Debug, Clone, Copy)]
enum Procedural {
    /// A model of Stable Diffusion 2.1-base's size, 5 GB, with random weights
    Sd21Base,
    /// A CLIP of ViT-B/32's size, with random weights
    VitB32,
    /// 768 pictures of 512 pixels
    Pictures,
}

impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        if let Some(threads) = self.threads {
            tch::set_num_threads(threads);
        }
        if let (Some(numbers), Some(out)) = (&self.plot, &self.out) {
            return benchmarks::draw_growth(numbers, out);
        }
        let work = match (self.work, self.make, &self.out) {
            (Some(work), ..) => work,
            (None, Some(Procedural::Sd21Base), Some(out)) => return procedural::sd21_base(&self.tokenizer, out),
            (None, Some(Procedural::VitB32), Some(out)) => return procedural::vit_b32(&self.tokenizer, out),
            (None, Some(Procedural::Pictures), Some(out)) => return procedural::waves(768, out),
            _ => bail!("say what to time, or what to --make and where to put it (--out)"),
        };
        let changes = self.set.iter().map(|pair| {
            let (path, value) = split_change(pair)?;
            Ok((path.to_owned(), value.to_owned()))
        });
        let changes = changes.collect::<Result<_>>()?;
        let (kind, device) = self.compute.resolve()?;
        let measured = measure(
            work,
            &Settings {
                model: self.model,
                images: self.pictures,
                category: self.category,
                changes,
                kind,
                tf32: self.compute.dtype == Dtype::Tf32,
                device,
                batch_size: self.batch_size,
                resolution: self.resolution,
                steps: self.steps,
                gradient_checkpointing: self.gradient_checkpointing,
                warm_up: self.warm_up,
                iterations: self.iterations,
            },
        )?;
        print(&measured)
    }
}

fn print(measured: &benchmarks::Measurement) -> Result<()> {
    terminal::output!("{}", serde_json::to_string(measured)?);
    Ok(())
}
