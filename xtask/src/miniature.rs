//! The drawings that the miniature learns from, for `cargo xtask pretrain-miniature`: 16 MB from the npm registry.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::workspace;

/// Microsoft's Fluent emoji in 3D style, MIT.
const PACKAGE: &str = "@lobehub/fluent-emoji-3d@1.1.0";
const ARCHIVE: &str = "lobehub-fluent-emoji-3d-1.1.0.tgz";
const SHA256: &str = "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58";

/// The folder of the drawings.
pub(crate) fn drawings() -> PathBuf {
    workspace::root().join("models/drawings/package/assets")
}

/// Downloads the drawings unless they are there.
pub(crate) fn fetch() -> anyhow::Result<()> {
    if drawings().exists() {
        return Ok(());
    }
    let folder = workspace::root().join("models/drawings");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", workspace::display(&folder)))?;
    let archive = folder.join(ARCHIVE);
    if !archive.exists() {
        terminal::say!("Downloading {PACKAGE} (16 MB)...");
        workspace::run(Command::new("npm").args(["pack", "--silent", PACKAGE]).current_dir(&folder)).context(
            "the drawings come from the npm registry: install npm and see that the network works, or unpack the package \
             yourself and name its folder assets with --drawings",
        )?;
    }
    let found = hub::sha256_hex(&archive)?;
    ensure!(
        found == SHA256,
        "{} has SHA-256 {found} instead of {SHA256}; remove it and try again",
        workspace::display(&archive)
    );
    let unpacked = tempfile::Builder::new().prefix(".partial-").tempdir_in(&folder)?;
    workspace::run(Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(unpacked.path()))
        .with_context(|| format!("cannot unpack {}", workspace::display(&archive)))?;
    fs::rename(unpacked.path().join("package"), folder.join("package"))?;
    Ok(())
}
