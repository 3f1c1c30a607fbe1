//! The command `attndreambooth`: a thin layer of arguments and progress over the crates that do the work.
//!
//! Invariants: no mathematics here; every failure is one sentence on standard error; nothing but `terminal` writes there.

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
mod learned;
mod memory;
mod model;
mod number;
mod pretrain;
mod probe;
mod profile;
mod progress;
mod report;
mod results;
mod sampler;
mod seed;
mod train;

use std::panic::{self, AssertUnwindSafe};

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Subject personalisation of Stable Diffusion by attention-aligned DreamBooth (arXiv 2406.05000).
#[derive(Parser)]
#[command(name = "attndreambooth", version, about, after_help = EXIT_CODES)]
struct Cli {
    /// Do not mark generated images as such, by XMP metadata with IPTC's digital source type trainedAlgorithmicMedia
    #[arg(long, global = true)]
    no_digital_source_type: bool,
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

const EXIT_CODES: &str = "\
Exit codes:
  0      done
  2      something that you can mend: an option, a file, a full disk; the message says what
  75     interrupted by SIGINT (Ctrl-C), SIGTERM or SIGHUP: what was done is kept, the same command goes on
         (train: with --resume)
  128+N  ended at once by a second signal, of number N
  1      a defect of this program";

fn main() {
    // Whatever happens, the process is left by `interrupt`.
    interrupt::finish(match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(code) => code,
        Err(_) => {
            terminal::say!("this is a defect of attndreambooth {}; please report it", env!("CARGO_PKG_VERSION"));
            1
        }
    })
}

/// Returns the exit code.
fn run() -> i32 {
    if let Err(error) = interrupt::watch() {
        terminal::note!("{error:#}; Ctrl-C ends the program without a checkpoint");
    }
    if let Err(error) = ::profile::install("warn", |line| terminal::say!("{line}")) {
        terminal::note!("{error:#}");
    }
    libtorch::keep_freed_memory();
    let command = match Cli::try_parse() {
        Ok(cli) => {
            images::mark_generated(!cli.no_digital_source_type);
            cli.command
        }
        Err(error) => {
            // A reader of the help may have gone.
            let _ = error.print();
            return error.exit_code();
        }
    };
    let run = || -> Result<()> {
        match command {
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
        Ok(()) => 0,
        Err(error) if interrupt::is_interruption(&error) => {
            terminal::say!("{error:#}");
            interrupt::TRY_AGAIN
        }
        Err(error) => {
            let error = memory::explain(error);
            terminal::say!("error: {error:#}");
            2
        }
    }
}
