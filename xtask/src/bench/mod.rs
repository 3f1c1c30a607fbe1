//! `cargo xtask bench`: the component crates' criterion benches; whole pieces of work against Python; cost as work grows.

mod compare;
mod options;
mod report;
mod scaling;
mod worker;

use crate::{setup, workspace};
pub(crate) use options::Bench;

impl Bench {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if self.compare || self.scaling {
            report::ensure_own(&self.out)?;
        }
        if self.compare {
            return compare::run(&self);
        }
        if self.scaling {
            return scaling::run(&self);
        }
        setup::ensure()?;
        // Only the bench targets: the unit tests' own harness knows none of criterion's arguments.
        let mut command = workspace::cargo(["bench", "--workspace", "--bench", "*"]);
        if let Some(filter) = &self.filter {
            command.args(["--", filter]);
        }
        workspace::run(command.current_dir(workspace::root()))
    }
}
