//! The Pythons of this machine: which torch they have, and whether they have pip.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fmt};

/// Finds torch without importing it, which would take seconds.
const WHERE_IS_TORCH: &str = "
import importlib.util
spec = importlib.util.find_spec('torch')
for folder in (spec.submodule_search_locations or [])[:1] if spec else []:
    print(folder)
";

/// A Python that runs.
#[derive(Debug)]
pub(super) struct Python {
    program: PathBuf,
}

impl Python {
    /// The active virtual environment's, `python3` and `python`, as far as they run and differ.
    pub(super) fn all() -> Vec<Self> {
        let active = env::var_os("VIRTUAL_ENV").map(|folder| Path::new(&folder).join("bin/python"));
        let candidates = active.into_iter().chain(["python3".into(), "python".into()]);
        let mut places = HashSet::new();
        let mut pythons = Vec::new();
        for candidate in candidates {
            // Each prefix has packages of its own, whatever names its Python goes by.
            let answer = Self { program: candidate }.ask("import sys; print(sys.prefix); print(sys.executable)");
            let Some((prefix, program)) = answer.as_deref().and_then(|answer| answer.split_once('\n')) else {
                continue;
            };
            if places.insert(prefix.to_owned()) {
                pythons.push(Self { program: program.into() });
            }
        }
        pythons
    }

    /// The folder of its torch package, of whatever version.
    pub(super) fn torch(&self) -> Option<PathBuf> {
        self.ask(WHERE_IS_TORCH).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    pub(super) fn has_pip(&self) -> bool {
        let mut command = self.command(["-m", "pip", "--version"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    pub(super) fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).stdin(Stdio::null());
        command
    }

    fn ask(&self, code: &str) -> Option<String> {
        let output = self.command(["-c", code]).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    }
}

impl fmt::Display for Python {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.program.display().fmt(formatter)
    }
}
