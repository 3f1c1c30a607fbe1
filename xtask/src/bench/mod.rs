//! `cargo xtask bench`: the component crates' criterion benches; whole pieces of work against Python; cost as work grows.

mod compare;
mod report;
mod scaling;
mod worker;

use std::path::PathBuf;

use crate::{setup, workspace};

/// Run the component benches, or compare with Python, or see how cost grows
///
/// Without options: the criterion benches of all crates, or those whose name contains FILTER.
#[derive(clap::Args)]
pub(crate) struct Bench {
    /// Part of the name of a bench or, with --compare, of a piece of work
    filter: Option<String>,
    /// Time the same work in Python (torch, diffusers, transformers) by turns, and print the ratios
    #[arg(long, conflicts_with = "scaling")]
    compare: bool,
    /// Time training steps as the batch, the pictures and the photos grow
    #[arg(long)]
    scaling: bool,
    /// With --compare or --scaling: a model of Stable Diffusion 2.1-base's size with random weights (made once, 5 GB, in
    /// models/procedural) in place of the miniature
    #[arg(long)]
    full: bool,
    /// Turns of either side
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Threads of either side; all cores if not given
    #[arg(long)]
    threads: Option<usize>,
    /// The Python that has the packages of crates/benchmarks/python/requirements.txt
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// What both sides compute in: fp32, tf32 or bf16
    #[arg(long, default_value = "fp32")]
    dtype: String,
    /// Where the numbers go, as JSON, new or of an earlier call; a table of them goes beside it
    #[arg(long, default_value = "target/benchmarks/numbers.json")]
    out: PathBuf,
}

impl Bench {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if self.compare || self.scaling {
            report::ensure_own(&self.out)?;
        }
        if self.compare {
            return compare::run(&self);
        }
        if self.scaling {
            return scaling::run(&self);
        }
        setup::ensure()?;
        // Only the bench targets: the unit tests' own harness knows none of criterion's arguments.
        let mut command = workspace::cargo(["bench", "--workspace", "--bench", "*"]);
        if let Some(filter) = &self.filter {
            command.args(["--", filter]);
        }
        workspace::run(command.current_dir(workspace::root()))
    }
}
