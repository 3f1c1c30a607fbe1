//! The options of `cargo xtask bench`.

use std::path::PathBuf;

/// Run the component benches, or compare with Python, or see how cost grows
///
/// Without options: the criterion benches of all crates, or those whose name contains FILTER.
#[derive(clap::Args)]
pub(crate) struct Bench {
    /// Part of the name of a bench or, with --compare, of a piece of work
    pub(super) filter: Option<String>,
    /// Time the same work in Python (torch, diffusers, transformers) interleaved, and print the ratios
    #[arg(long, conflicts_with = "scaling")]
    pub(super) compare: bool,
    /// Time training steps as the batch, the images and the photos grow
    #[arg(long)]
    pub(super) scaling: bool,
    /// With --compare or --scaling: a model of Stable Diffusion 2.1-base's size with random weights (written once, 5 GB, in
    /// models/procedural) instead of the miniature
    #[arg(long)]
    pub(super) full: bool,
    /// Rounds of either side
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) rounds: u16,
    /// Threads of either side; unset, all cores
    #[arg(long)]
    pub(super) threads: Option<usize>,
    /// The Python that has the packages of crates/benchmarks/python/requirements.txt
    #[arg(long, default_value = "python3")]
    pub(super) python: PathBuf,
    /// Device to compute on: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    pub(super) device: String,
    /// Precision of both sides: fp32, tf32 or bf16
    #[arg(long, default_value = "fp32")]
    pub(super) dtype: String,
    /// JSON file for the numbers, new or of an earlier call; a table of them goes beside it
    #[arg(long, default_value = "target/benchmarks/numbers.json")]
    pub(super) out: PathBuf,
}
