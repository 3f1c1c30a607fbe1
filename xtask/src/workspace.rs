//! Where the workspace is, and how to run cargo and other programs in it.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::{env, fmt};

use anyhow::Context;

use crate::children;

/// The folder with the workspace's `Cargo.toml`.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// `path` as a user would write it: relative to the workspace where it lies within.
pub(crate) fn display(path: &Path) -> std::path::Display<'_> {
    path.strip_prefix(root()).unwrap_or(path).display()
}

/// A cargo that sees what a cargo called by hand would see.
pub(crate) fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What `cargo run` tells xtask about itself would make build scripts that watch these variables run again, and
    // LIBTORCH must be the one of .cargo/config.toml, which `setup` has filled from the user's.
    for (name, _) in env::vars_os() {
        let name_is = |prefix| name.to_str().is_some_and(|name| name.starts_with(prefix));
        if name_is("CARGO_PKG_") || name_is("CARGO_MANIFEST_") || name_is("LIBTORCH") {
            command.env_remove(name);
        }
    }
    command.args(args);
    command
}

/// The command line of `command`, for messages: it can be pasted into a shell.
pub(crate) fn command_line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| terminal::quoted(&word.to_string_lossy()).into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs `command` with this terminal; its failure is a [`ChildFailed`].
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status =
        children::status(command).with_context(|| format!("`{}` could not be started", command_line(command)))?;
    if status.success() { Ok(()) } else { Err(ChildFailed(status).into()) }
}

/// Puts `command` in this process's place, so that Ctrl-C and other signals are its alone. Returns only to say why that
/// failed.
pub(crate) fn become_command(command: &mut Command) -> anyhow::Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("`{}` could not be started", command_line(command)))
}

/// A child ended in failure, having said why itself.
#[derive(Debug)]
pub(crate) struct ChildFailed(ExitStatus);

impl ChildFailed {
    /// The child's own exit code; 128 plus the signal where it was killed, as shells have it.
    pub(crate) fn exit_code(&self) -> u8 {
        let code = self.0.code().or_else(|| Some(128 + self.0.signal()?));
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
    }
}

impl fmt::Display for ChildFailed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the command ended with {}", self.0)
    }
}

impl std::error::Error for ChildFailed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_childs_exit_code_is_passed_on() {
        assert!(run(Command::new("sh").args(["-c", "exit 0"])).is_ok());
        for (script, code) in [("exit 1", 1), ("exit 101", 101), ("kill -9 $$", 137)] {
            let error = run(Command::new("sh").args(["-c", script])).unwrap_err();
            assert_eq!(error.downcast_ref::<ChildFailed>().unwrap().exit_code(), code);
        }
        let error = run(&mut Command::new("no-such-program")).unwrap_err();
        assert!(error.downcast_ref::<ChildFailed>().is_none());
        assert!(format!("{error:#}").contains("`no-such-program` could not be started"));
    }

    #[test]
    fn cargo_is_not_told_that_xtask_called_it() {
        // Cargo has set these for this test, as it does for `cargo run`.
        let hidden: Vec<_> = cargo([]).get_envs().map(|(name, value)| (name.to_owned(), value.is_some())).collect();
        for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
            assert!(env::var_os(name).is_some() && hidden.contains(&(name.into(), false)), "{name}");
        }
    }
}
