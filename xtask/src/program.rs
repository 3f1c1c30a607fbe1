//! The program's own commands: built in release mode, with LibTorch set up first, and the miniature where no model is
//! named.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::{setup, workspace};

/// Each has the options that the program shows with --help.
#[derive(clap::Subcommand)]
pub(crate) enum Program {
    /// Learn a subject from a few photos; without options, a penguin with the miniature
    #[command(disable_help_flag = true)]
    Train(Arguments),
    /// Make pictures from a model folder and prompts; without options, a few with the miniature
    #[command(disable_help_flag = true)]
    Generate(Arguments),
    /// Draw a learned subject in many prompts and score the pictures
    #[command(disable_help_flag = true)]
    Evaluate(Arguments),
    /// Draw a prompt's picture and where in it each word acts
    #[command(disable_help_flag = true)]
    Attend(Arguments),
    /// Compare a run's learned embedding with its start and the vocabulary
    #[command(disable_help_flag = true)]
    Inspect(Arguments),
    /// Learn subjects by the whole method and without each of its parts, and compare
    #[command(disable_help_flag = true)]
    Ablate(Arguments),
    /// Make one page of all that a run's folder holds
    #[command(disable_help_flag = true)]
    Report(Arguments),
    /// Put several runs into one table and one page, with a blind side-by-side study
    #[command(disable_help_flag = true)]
    Compare(Arguments),
    /// Write what a run has learned for other programs
    #[command(disable_help_flag = true)]
    Export(Arguments),
    /// Run one component on tensors from a file
    #[command(disable_help_flag = true)]
    Probe(Arguments),
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

impl Program {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let (name, arguments) = match self {
            Self::Train(arguments) => ("train", Arguments { args: for_training(arguments.args, workspace::root()) }),
            Self::Generate(arguments) => ("generate", Arguments { args: for_generating(arguments.args) }),
            Self::Evaluate(arguments) => ("evaluate", arguments),
            Self::Attend(arguments) => ("attend", arguments),
            Self::Inspect(arguments) => ("inspect", arguments),
            Self::Ablate(arguments) => ("ablate", arguments),
            Self::Report(arguments) => ("report", arguments),
            Self::Compare(arguments) => ("compare", arguments),
            Self::Export(arguments) => ("export", arguments),
            Self::Probe(arguments) => ("probe", arguments),
        };
        run(name, &arguments.args)
    }
}

/// The base model that everyone has.
const MINIATURE: &str = "fixtures/miniature";

/// What `generate` draws when it is given nothing.
const EXAMPLE: [&str; 10] = [
    "--prompt",
    "a red apple on a blue background",
    "--prompt",
    "a fox in the snow",
    "--prompt",
    "a rocket in space",
    "--out",
    "runs/example",
    "--images",
    "2",
];

fn for_generating(args: Vec<OsString>) -> Vec<OsString> {
    let model = workspace::root().join(MINIATURE).into_os_string();
    let mut args = if args.is_empty() { EXAMPLE.map(OsString::from).to_vec() } else { args };
    if !has(&args, &["--model", "--run", "--help", "-h"]) {
        args.extend(["--model".into(), model]);
    }
    args
}

/// Adds what a new run needs and was not told: photos with their category, the model, and a folder that is not there yet.
fn for_training(mut args: Vec<OsString>, root: &Path) -> Vec<OsString> {
    if has(&args, &["--help", "-h"]) {
        return args;
    }
    let penguin = root.join("fixtures/subjects/penguin");
    if has(&args, &["--resume"]) {
        // The run says all but where it is: the last one of this name.
        if !has(&args, &["--out"]) {
            let name = subject(&value(&args, "--concept").unwrap_or(penguin));
            let last = folders(&name).take_while(|path| Path::new(path).exists()).last();
            args.extend(["--out".into(), last.unwrap_or(format!("runs/{name}")).into()]);
        }
        return args;
    }
    // A configuration that is read back says what to learn, and from what.
    let configured = value(&args, "--config");
    if configured.is_none() && !has(&args, &["--concept"]) {
        args.extend(["--concept".into(), penguin.into()]);
        if !has(&args, &["--category"]) {
            args.extend(["--category", "bird"].map(OsString::from));
        }
    }
    if configured.is_none() && !has(&args, &["--model"]) {
        args.extend(["--model".into(), root.join(MINIATURE).into()]);
    }
    if !has(&args, &["--out"]) {
        let name = subject(&value(&args, "--concept").or(configured).unwrap_or_default());
        let free = folders(&name).find(|path| !Path::new(path).exists());
        args.extend(["--out".into(), free.unwrap_or_default().into()]);
    }
    args
}

/// The folders of the runs of a name, without end.
fn folders(name: &str) -> impl Iterator<Item = String> {
    let first = format!("runs/{name}");
    let numbered = first.clone();
    std::iter::once(first).chain((2..).map(move |number| format!("{numbered}-{number}")))
}

/// The name of a folder of photos; of a single photo, that of its folder and its own, such as `penguin-01`.
fn subject(concept: &Path) -> String {
    let parts = match concept.is_file() {
        true => vec![concept.parent().and_then(Path::file_name), concept.file_stem()],
        false => vec![concept.file_name()],
    };
    let parts: Vec<_> = parts.into_iter().flatten().map(OsStr::to_string_lossy).collect();
    if parts.is_empty() { "subject".to_owned() } else { parts.join("-") }
}

/// Whether one of the options is among `args`, as `NAME` or `NAME=VALUE`.
pub(crate) fn has(args: &[OsString], names: &[&str]) -> bool {
    let is = |arg: &OsString| {
        arg.to_str().is_some_and(|arg| names.contains(&arg.split_once('=').map_or(arg, |(name, _)| name)))
    };
    args.iter().any(is)
}

/// The value of an option that stands as `NAME VALUE` or `NAME=VALUE`.
fn value(args: &[OsString], name: &str) -> Option<PathBuf> {
    let joined = |arg: &OsString| arg.to_str()?.strip_prefix(name)?.strip_prefix('=').map(PathBuf::from);
    let apart = args.windows(2).find(|pair| pair[0] == name).map(|pair| PathBuf::from(&pair[1]));
    apart.or_else(|| args.iter().find_map(joined))
}

/// Runs in the caller's folder, so that relative paths among `args` mean what the caller means.
pub(crate) fn run(subcommand: &str, args: &[OsString]) -> anyhow::Result<()> {
    build()?;
    // Quietly, so that all output is the program's own.
    let mut command =
        workspace::cargo(["run", "--quiet", "--release", "--package", "attndreambooth", "--", subcommand]);
    workspace::become_command(command.args(args))
}

/// Builds the program in release mode, aloud, as it may take minutes.
pub(crate) fn build() -> anyhow::Result<()> {
    setup::ensure()?;
    workspace::run(&mut workspace::cargo(["build", "--release", "--package", "attndreambooth"]))
}

/// Where [`build`] puts the program.
pub(crate) fn path() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace::root().join("target"), PathBuf::from);
    target.join("release/attndreambooth")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(args: &[&str]) -> Vec<String> {
        let args = for_training(args.iter().map(OsString::from).collect(), Path::new("/ws"));
        args.into_iter().map(|arg| arg.into_string().unwrap()).collect()
    }

    #[test]
    fn nothing_means_the_penguin_and_the_miniature() {
        let line = texts(&[]).join(" ");
        assert!(
            line.starts_with("--concept /ws/fixtures/subjects/penguin --category bird --model /ws/fixtures/miniature --out runs/penguin"),
            "{line}"
        );
    }

    #[test]
    fn what_is_given_stays() {
        let given = ["--concept=photos/my-dog", "--category", "dog", "--model", "m", "--out", "o"];
        assert_eq!(texts(&given), given);
        let line = texts(&["--concept", "photos/my-dog", "--category", "dog"]).join(" ");
        assert_eq!(line, "--concept photos/my-dog --category dog --model /ws/fixtures/miniature --out runs/my-dog");
        let photo = workspace::root().join("fixtures/subjects/penguin/01.jpg").display().to_string();
        assert_eq!(texts(&["--concept", &photo, "--category", "bird"]).last().unwrap(), "runs/penguin-01");
        assert_eq!(texts(&["--resume"]), ["--resume", "--out", "runs/penguin"]);
        for alone in [["--out", "o", "--resume"], ["--config", "c.json", "--help"]] {
            assert_eq!(texts(&alone), alone);
        }
        assert_eq!(texts(&["--config=runs/my-dog/config.json"])[1..], ["--out", "runs/config.json"]);
    }
}
