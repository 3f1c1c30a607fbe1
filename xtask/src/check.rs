//! `cargo xtask test`: all that must hold before a change is accepted.

use std::process::Command;
use std::time::Instant;

use anyhow::Context;

use crate::{setup, workspace};

/// Check formatting, lints, tests (with doc tests) and documentation
#[derive(clap::Args)]
pub(crate) struct Test {}

impl Test {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        setup::ensure()?;
        let start = Instant::now();
        run_all(steps())?;
        terminal::say!("\nAll steps passed in {:.1} s.", start.elapsed().as_secs_f64());
        Ok(())
    }
}

fn steps() -> [(&'static str, Command); 4] {
    // The lints by arguments, since RUSTFLAGS would displace the configured flags and rebuild everything.
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    // Tests run side by side; threads of one that spin while they wait would starve the others.
    let mut tests = workspace::cargo(["test", "--workspace"]);
    tests.env("OMP_WAIT_POLICY", "passive");
    let mut doc = workspace::cargo(["doc", "--workspace", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    [
        ("formatting", workspace::cargo(["fmt", "--all", "--check"])),
        ("lints", workspace::cargo(clippy)),
        ("tests", tests),
        ("documentation", doc),
    ]
}

/// Runs the steps in order and stops at the first that fails.
fn run_all(steps: impl IntoIterator<Item = (&'static str, Command)>) -> anyhow::Result<()> {
    for (name, mut command) in steps {
        let line = workspace::command_line(&command);
        terminal::say!("\n== {name}: {line}");
        let start = Instant::now();
        let outcome = workspace::run(command.current_dir(workspace::root()));
        let seconds = start.elapsed().as_secs_f64();
        outcome.with_context(|| format!("the step `{name}` failed after {seconds:.1} s: `{line}` repeats it alone"))?;
        terminal::say!("== {name}: passed in {seconds:.1} s");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_stops_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let script = |text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", text, "sh"]).arg(folder.path());
            command
        };
        let steps = [("one", script("touch $1/one")), ("two", script("exit 3")), ("three", script("touch $1/three"))];
        let error = run_all(steps).unwrap_err();
        assert!(error.to_string().starts_with("the step `two` failed"), "{error}");
        assert_eq!(error.downcast_ref::<workspace::ChildFailed>().unwrap().exit_code(), 3);
        assert!(folder.path().join("one").exists() && !folder.path().join("three").exists());
    }

    #[test]
    fn the_lines_shown_can_be_typed() {
        let lines = steps().map(|(_, command)| workspace::command_line(&command));
        assert_eq!(lines[1..3], ["cargo clippy --workspace --all-targets -- -D warnings", "cargo test --workspace"]);
    }
}
