//! `cargo xtask bench`: the component crates' criterion benches.

use crate::{setup, workspace};

/// Run the component benches, or those whose name contains FILTER
#[derive(clap::Args)]
pub(crate) struct Bench {
    /// Part of a bench's name
    filter: Option<String>,
}

impl Bench {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        setup::ensure()?;
        // Only the bench targets: the unit tests' own harness knows none of criterion's arguments.
        let mut command = workspace::cargo(["bench", "--workspace", "--bench", "*"]);
        if let Some(filter) = &self.filter {
            command.args(["--", filter]);
        }
        workspace::run(command.current_dir(workspace::root()))
    }
}
