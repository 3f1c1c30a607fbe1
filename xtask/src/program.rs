//! The program's own commands, as `requests` defines them: built in release mode, with LibTorch set up first, and with the
//! miniature and a penguin where nothing else is named.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use requests::{Cli, Command, Train};

use crate::{miniature, setup, weights, workspace};

/// The base model that everyone has.
const MINIATURE: &str = "fixtures/miniature";
/// What `train` learns unless told otherwise.
const SUBJECT: &str = "fixtures/subjects/penguin";
/// Its class noun.
const CATEGORY: &str = "bird";
/// What `generate` is given where it is given nothing.
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

/// Runs the command that `words` begins with. Its help, and what is wrong with its options, need no LibTorch.
pub(crate) fn run(words: Vec<OsString>) -> anyhow::Result<()> {
    let words = completed(words, workspace::root());
    match requests::parse(line(&words)).unwrap_or_else(|error| error.exit()).command {
        Command::Weights(request) => return weights::run(request),
        Command::Pretrain(request) if request.drawings == miniature::drawings() => miniature::fetch()?,
        _ => {}
    }
    build()?;
    // Quietly, so that all output is the program's own; in the caller's folder, so that relative paths mean what the caller
    // means.
    let mut command = workspace::cargo(["run", "--quiet", "--release", "--package", "attndreambooth", "--"]);
    if env::var_os("ATTNDREAMBOOTH_MODELS").is_none() {
        command.env("ATTNDREAMBOOTH_MODELS", workspace::root().join("models"));
    }
    workspace::become_command(command.args(words))
}

/// The program's commands with a line on each.
pub(crate) fn list() -> String {
    let line = |command: &clap::Command| {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        format!("\n  {:<11} {about}", command.get_name())
    };
    Cli::command().get_subcommands().filter(|command| command.get_name() != "bench").map(line).collect()
}

/// A command line, whose first word is what help calls the program.
fn line(words: &[OsString]) -> impl Iterator<Item = OsString> {
    [OsString::from("cargo xtask")].into_iter().chain(words.iter().cloned())
}

/// `words` with what the command needs and was not given.
fn completed(mut words: Vec<OsString>, root: &Path) -> Vec<OsString> {
    if words == ["generate"] {
        words.extend(EXAMPLE.map(OsString::from));
    }
    // What is wrong is reported when the whole line is parsed.
    let lenient = Cli::command().ignore_errors(true);
    let Ok(matches) = lenient.try_get_matches_from(line(&words).map(requests::hyphenated)) else { return words };
    let Some((name, options)) = matches.subcommand() else { return words };
    let is_given = |id: &str| !matches!(options.value_source(id), None | Some(ValueSource::DefaultValue));
    let mut add = |option: &str, value: &Path| words.extend([option.into(), value.into()]);
    match name {
        "generate" if !is_given("model") && !is_given("run") => add("--model", &root.join(MINIATURE)),
        "studio" if !is_given("models") => add("--model", &root.join(MINIATURE)),
        "evaluate" if is_given("check_judge") && !is_given("model") && !is_given("run") => {
            add("--model", &root.join(MINIATURE));
        }
        "pretrain" if !is_given("drawings") => add("--drawings", &miniature::drawings()),
        "weights" if !is_given("dir") => add("--dir", &root.join("models")),
        "train" => {
            // A configuration that is read back, and a run that is resumed, say what to learn, and from what.
            let is_new = !is_given("config") && !is_given("resume");
            if is_new && !is_given("concept") {
                add("--concept", &root.join(SUBJECT));
                if !is_given("category") {
                    add("--category", Path::new(CATEGORY));
                }
            }
            if is_new && !is_given("model") {
                add("--model", &root.join(MINIATURE));
            }
            if !is_given("out") {
                add("--out", &folder(options, root));
            }
        }
        _ => {}
    }
    words
}

/// The folder of the run that these options start or resume.
fn folder(options: &ArgMatches, root: &Path) -> PathBuf {
    let mut train = Train::from_arg_matches(options).unwrap_or_default();
    if train.options.config.is_none() {
        train.options.concept.get_or_insert_with(|| root.join(SUBJECT));
    }
    train.folder()
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

    fn texts(words: &str) -> String {
        let words = completed(words.split_whitespace().map(OsString::from).collect(), Path::new("/ws"));
        words.into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn nothing_means_the_penguin_and_the_miniature() {
        let all = "train --concept /ws/fixtures/subjects/penguin --category bird --model /ws/fixtures/miniature --out \
                   runs/penguin";
        assert_eq!(texts("train"), all);
        assert!(texts("generate").ends_with("--images 2 --model /ws/fixtures/miniature"));
        assert_eq!(texts("studio --port 0"), "studio --port 0 --model /ws/fixtures/miniature");
        assert_eq!(texts("studio --model m"), "studio --model m");
        assert_eq!(texts("evaluate --check-judge"), "evaluate --check-judge --model /ws/fixtures/miniature");
        assert_eq!(texts("weights list"), "weights list --dir /ws/models");
    }

    #[test]
    fn given_options_stay() {
        for all in [
            "train --concept=photos/my-dog --category dog --model m --out o",
            "train --instance_data_dir photos/my-dog --category dog --pretrained_model_name_or_path m --output_dir=o",
            "train --out o --resume",
            "train --config c.json --help",
            "generate --run r --prompt x",
            "evaluate --run r",
            "pretrain --drawings d",
        ] {
            assert_eq!(texts(all), all);
        }
        let line = texts("train --concept photos/my-dog --category dog");
        assert_eq!(
            line,
            "train --concept photos/my-dog --category dog --model /ws/fixtures/miniature --out runs/my-dog"
        );
        let photo = workspace::root().join("fixtures/subjects/penguin/01.jpg");
        assert!(
            texts(&format!("train --concept {} --category bird", photo.display())).ends_with("--out runs/penguin-01")
        );
        assert_eq!(texts("train --resume"), "train --resume --out runs/penguin");
        assert_eq!(
            texts("train --config=runs/my-dog/config.json"),
            "train --config=runs/my-dog/config.json --out runs/config.json"
        );
    }
}
