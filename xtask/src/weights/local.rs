//! Files that are on this machine already.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use super::manifest::ModelFile;
use crate::checksum;

/// Whether the file at `path` is the one that `file` describes; its hash where it is, the difference where not.
pub(super) fn check(path: &Path, file: &ModelFile, known: Option<&str>) -> anyhow::Result<String> {
    let length = fs::metadata(path).with_context(|| format!("{} cannot be read", path.display()))?.len();
    if let Some(size) = file.size {
        ensure!(length == size, "{} has {length} bytes, not {size}", path.display());
    }
    if path.extension().is_some_and(|extension| extension == "json") || file.path.ends_with(".json") {
        let text = limits::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        // A login page or an error page under the name of a config would be found out much later.
        if json::parse::<serde::de::IgnoredAny>(&text).is_err() {
            bail!("{} is not JSON", path.display());
        }
    }
    let found = checksum::sha256_hex(path).with_context(|| format!("{} cannot be read", path.display()))?;
    if let Some(known) = known {
        ensure!(found == known, "{} has sha256 {found}, not {known}", path.display());
    }
    Ok(found)
}

/// Puts the good file `from` at `target`: as a second name where one disk holds both, else as a copy.
pub(super) fn place(from: &Path, target: &Path) -> anyhow::Result<&'static str> {
    let from: PathBuf = from.canonicalize().with_context(|| format!("{} cannot be read", from.display()))?;
    let temporary = target.with_added_extension("copy.partial");
    let cannot = || format!("{} cannot be made from {}", target.display(), from.display());
    let _ = fs::remove_file(&temporary);
    let how = if fs::hard_link(&from, &temporary).is_ok() {
        "linked"
    } else {
        fs::copy(&from, &temporary).inspect_err(|_| drop(fs::remove_file(&temporary))).with_context(cannot)?;
        "copied"
    };
    fs::rename(&temporary, target).with_context(cannot)?;
    Ok(how)
}
