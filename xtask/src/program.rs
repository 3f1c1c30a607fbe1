//! `cargo xtask train`, `generate`, `evaluate`, `export` and `probe`: the program itself, built in release mode, with LibTorch set up first.

use std::ffi::OsString;

use crate::{setup, workspace};

/// Make images from a model folder and prompts (`generate --help` for its options)
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Generate {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Run one component on tensors from a file (`probe --help` for its options)
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Probe {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// What `generate` does when it is given nothing: the tiny model in fixtures shows that everything works.
const EXAMPLE: [&str; 8] =
    ["--model", "fixtures/tiny-sd21", "--prompt", "a photo of a cat", "--images", "4", "--out", "runs/example"];

impl Generate {
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        if self.args.is_empty() {
            std::env::set_current_dir(workspace::root())?;
            self.args = EXAMPLE.map(OsString::from).to_vec();
        }
        run("generate", &self.args)
    }
}

/// Learn a subject from a few photos (`train --help` for its options)
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Train {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

impl Train {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        run("train", &self.args)
    }
}

/// Draw a prompt's picture and where in it each word acts (`attend --help` for its options)
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Attend {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

impl Attend {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        run("attend", &self.args)
    }
}

/// Compare a run's learned embedding with its start and the vocabulary (`inspect --help` for its options)
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Inspect {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

impl Inspect {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        run("inspect", &self.args)
    }
}

/// Write a run as one HTML page (`report --help` for its options)
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Report {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

impl Report {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        run("report", &self.args)
    }
}

/// Put runs side by side, and make a blind study of them (`compare --help` for its options)
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Compare {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

impl Compare {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        run("compare", &self.args)
    }
}

/// Write what a run has learned for other programs (`export --help` for its options)
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Export {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

impl Export {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        run("export", &self.args)
    }
}

/// Draw a learned subject in many prompts and score the pictures (`evaluate --help` for its options)
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Evaluate {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

impl Evaluate {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        run("evaluate", &self.args)
    }
}

impl Probe {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        run("probe", &self.args)
    }
}

/// Runs in the caller's folder, so that relative paths among `args` mean what the caller means.
pub(crate) fn run(subcommand: &str, args: &[OsString]) -> anyhow::Result<()> {
    setup::ensure()?;
    // Built aloud, as it may take minutes; then run quietly, so that all output is the program's own.
    workspace::run(&mut workspace::cargo(["build", "--release", "--package", "cli"]))?;
    let mut command = workspace::cargo(["run", "--quiet", "--release", "--package", "cli", "--", subcommand]);
    workspace::run(command.args(args))
}
