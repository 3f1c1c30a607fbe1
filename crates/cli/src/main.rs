//! The command `attndreambooth`: parses, shows events and results, hears signals. What it does is in `operations`.
//!
//! Invariants: computes nothing and decides nothing; every failure is one sentence on standard error; nothing but `terminal`
//! writes there.

mod generator;
mod interrupt;
mod progress;
mod show;
mod table;

use std::panic::{self, AssertUnwindSafe};

use anyhow::{Context as _, Result};
use clap::{CommandFactory, FromArgMatches};
use distributed::Environment;
use operations::{Context, Outcome, Stop};
use requests::{Cli, Command};
use show::Show;

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
    let stop = Stop::default();
    if let Err(error) = interrupt::watch(stop.clone()) {
        terminal::note!("{error:#}; Ctrl-C ends the program without a checkpoint");
    }
    stop.set_on_loss(interrupt::lose);
    libtorch::keep_freed_memory();
    let line = std::env::args_os().map(requests::hyphenated);
    let parsed = command().try_get_matches_from(line).and_then(|matches| Cli::from_arg_matches(&matches));
    let Cli { global, command } = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // A reader of the help may have gone.
            let _ = error.print();
            return error.exit_code();
        }
    };
    let logged = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    if let Err(error) = profile::install(logged, |line| terminal::say!("{line}")) {
        terminal::note!("{error:#}");
    }
    images::mark_generated(!global.no_digital_source_type);
    let show = Show::new(global);
    match execute(&command, &show, stop) {
        Ok(()) => 0,
        Err(error) if operations::is_interruption(&error) => {
            show.end(&format!("{error:#}"), "interrupted", interrupt::TRY_AGAIN)
        }
        Err(error) => show.end(&format!("error: {error:#}"), "error", 2),
    }
}

fn execute(command: &Command, show: &Show, stop: Stop) -> Result<()> {
    if let Command::Completions { shell } = command {
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut self::command(), "attndreambooth", &mut script);
        terminal::output!("{}", String::from_utf8_lossy(&script).trim_end());
        return Ok(());
    }
    if let Command::Studio(request) = command {
        return serve(request, show, &stop);
    }
    if matches!(command, Command::Generator) {
        return generator::answer_all(show, &stop);
    }
    let environment = Environment::read(&|name| std::env::var(name).ok())?;
    // Of several processes, rank 0 speaks for all as long as all is well.
    let speaks = environment.as_ref().is_none_or(|environment| environment.rank == 0);
    let events = |event| {
        if speaks {
            show.event(event);
        }
    };
    let outcome: Outcome = operations::execute(command, &Context::new(&events, stop).among(environment))?;
    show.outcome(&outcome)
}

/// Serves the studio, whose jobs are processes of this program, until a signal comes.
fn serve(request: &requests::Studio, show: &Show, stop: &Stop) -> Result<()> {
    // Trainings save a checkpoint before it ends.
    let _deferral = stop.defer();
    let program = std::env::current_exe().context("the program does not know where it is")?;
    let server = studio::Server::open(request, &program, show.global_options())?;
    show.listening(server.url());
    if request.open {
        open_in_browser(server.url());
    }
    server.run(&|| stop.asked())
}

/// The desktop's own browser, where there is one.
fn open_in_browser(url: &str) {
    use std::process::{Command, Stdio};
    let opened =
        Command::new("xdg-open").arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    if let Err(error) = opened {
        terminal::note!("no browser can be opened ({error}); open the address yourself");
    }
}

/// The command line with what only this program knows of itself.
fn command() -> clap::Command {
    let commit = option_env!("ATTNDREAMBOOTH_COMMIT").map_or(String::new(), |commit| format!(" ({commit})"));
    let (version, libtorch) = (env!("CARGO_PKG_VERSION"), libtorch::LIBTORCH_VERSION);
    let long: &str = format!("{version}{commit}\nLibTorch {libtorch}").leak();
    Cli::command().version(version).long_version(long)
}
