//! The workspace's chores, as `cargo xtask <command>`.
//!
//! Each command is a module with a struct of its arguments and `fn run(self) -> anyhow::Result<()>`. Those that need
//! LibTorch set it up first, so on a fresh machine any one command is enough.
//!
//! Invariant: depends on no crate of this workspace that needs LibTorch, so that it builds in seconds before that is
//! there.

mod bench;
mod campaign;
mod check;
mod children;
mod dist;
mod miniature;
mod program;
mod setup;
mod simulate;
mod weights;
mod workspace;

use std::ffi::OsString;
use std::panic;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Chores of this workspace; every command sets LibTorch up first where it needs it.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Setup),
    Test(check::Test),
    Bench(bench::Bench),
    Campaign(campaign::Campaign),
    Dist(dist::Dist),
    Simulate(simulate::Simulate),
    /// Train the miniature base model from scratch, on drawings that are downloaded (16 MB, MIT)
    ///
    /// Takes about four hours on two cores, less with --budget 30m. Resumes what was interrupted.
    #[command(disable_help_flag = true)]
    PretrainMiniature {
        /// Options of `pretrain`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<OsString>,
    },
    /// A command of the program.
    #[command(external_subcommand)]
    Program(Vec<OsString>),
}

fn main() -> ExitCode {
    if let Err(error) = children::hand_signals_on() {
        terminal::note!("signals cannot be handled: {error}");
    }
    panic::catch_unwind(run).unwrap_or(ExitCode::FAILURE)
}

fn run() -> ExitCode {
    let commands =
        format!("Commands of the program (`cargo xtask NAME --help` shows their options):{}", program::list());
    let mut help = Cli::command().after_help(commands);
    let parsed = help.try_get_matches_from_mut(std::env::args_os()).and_then(|matches| Cli::from_arg_matches(&matches));
    let result = match parsed.unwrap_or_else(|error| error.exit()).command {
        Some(Command::Setup(command)) => command.run(),
        Some(Command::Test(command)) => command.run(),
        Some(Command::Bench(command)) => command.run(),
        Some(Command::Campaign(command)) => command.run(),
        Some(Command::Dist(command)) => command.run(),
        Some(Command::Simulate(command)) => command.run(),
        Some(Command::PretrainMiniature { mut options }) => {
            options.insert(0, "pretrain".into());
            program::run(options)
        }
        Some(Command::Program(words)) => program::run(words),
        None => help.print_help().map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<workspace::ChildFailed>() {
            Some(child) => {
                // A child has said itself what went wrong; only a sentence put on top of that is news.
                if error.chain().count() > 1 {
                    terminal::say!("error: {error}");
                }
                ExitCode::from(child.exit_code())
            }
            None => {
                terminal::say!("error: {error:#}");
                ExitCode::from(2)
            }
        },
    }
}
