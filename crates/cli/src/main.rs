//! The command `attndreambooth`: a thin layer of arguments and progress over the crates that do the work.
//!
//! Invariants: no mathematics here; every failure is one sentence on stderr and exit code 2.

mod ablate;
mod attend;
mod bench;
mod compare;
mod device;
mod evaluate;
mod export;
mod generate;
mod inspect;
mod interrupt;
mod model;
mod pretrain;
mod probe;
mod profile;
mod progress;
mod report;
mod results;
mod sampler;
mod train;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Subject personalisation of Stable Diffusion by attention-aligned DreamBooth (arXiv 2406.05000).
#[derive(Parser)]
#[command(name = "attndreambooth", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make images of prompts with a Stable Diffusion model.
    Generate(generate::Generate),
    /// Learn a subject from a few photos.
    Train(Box<train::Train>),
    /// Draw a learned subject in many prompts and score the pictures with CLIP.
    Evaluate(Box<evaluate::Evaluate>),
    /// Learn subjects by the whole method and without each of its parts, and compare.
    Ablate(ablate::Ablate),
    /// Write a run as one HTML page.
    Report(report::Report),
    /// Put runs side by side, and make a blind study of them.
    Compare(compare::Compare),
    /// Draw a prompt's picture and where in it each word acts.
    Attend(attend::Attend),
    /// Compare a run's learned embedding with its start and the vocabulary.
    Inspect(inspect::Inspect),
    /// Write what a run has learned as files that other programs load.
    Export(export::Export),
    /// Train the miniature base model from nothing.
    Pretrain(pretrain::Pretrain),
    /// Run one component on tensors from a file, to compare it with any other implementation.
    Probe(probe::Probe),
    /// Time a piece of work.
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    libtorch::keep_freed_memory();
    let run = || -> Result<()> {
        match Cli::parse().command {
            Command::Generate(command) => command.execute(),
            Command::Train(command) => command.run(),
            Command::Evaluate(command) => command.execute(),
            Command::Ablate(command) => command.run(),
            Command::Report(command) => command.run(),
            Command::Compare(command) => command.run(),
            Command::Attend(command) => command.run(),
            Command::Inspect(command) => command.run(),
            Command::Export(command) => command.run(),
            Command::Pretrain(command) => command.run(),
            Command::Probe(command) => command.run(),
            Command::Bench(command) => command.run(),
        }
    };
    // What LibTorch refuses deep inside a model arrives here as an error too.
    match libtorch::catch(run).map_err(Into::into).flatten() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::say!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
