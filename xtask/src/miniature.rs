//! `cargo xtask pretrain-miniature`: the drawings from the npm registry, then the program's `pretrain`.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::{checksum, program, workspace};

/// Microsoft's Fluent emoji in 3D style, MIT.
const PACKAGE: &str = "@lobehub/fluent-emoji-3d@1.1.0";
const ARCHIVE: &str = "lobehub-fluent-emoji-3d-1.1.0.tgz";
const SHA256: &str = "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58";

/// Train the miniature base model from nothing (`pretrain --help` for its options)
///
/// Fetches the drawings it learns from (16 MB, MIT) with npm, or takes those of --drawings. The whole recipe takes about
/// four hours on two cores; --budget 30m makes a shorter one. Killed at any moment, the same command goes on.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct PretrainMiniature {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

impl PretrainMiniature {
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        if !program::has(&self.args, &["--drawings", "--help", "-h"]) {
            self.args.extend(["--drawings".into(), drawings()?.into()]);
        }
        program::run("pretrain", &self.args)
    }
}

/// The folder of the drawings; they are fetched if need be.
fn drawings() -> anyhow::Result<PathBuf> {
    let folder = workspace::root().join("models/drawings");
    let assets = folder.join("package/assets");
    if assets.exists() {
        return Ok(assets);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", workspace::display(&folder)))?;
    let archive = folder.join(ARCHIVE);
    if !archive.exists() {
        terminal::say!("Fetching {PACKAGE} (16 MB)...");
        workspace::run(Command::new("npm").args(["pack", "--silent", PACKAGE]).current_dir(&folder)).context(
            "the drawings come from the npm registry: install npm and see that the network works, or unpack the package \
             yourself and name its folder assets with --drawings",
        )?;
    }
    let found = checksum::sha256_hex(&archive)?;
    ensure!(
        found == SHA256,
        "{} has SHA-256 {found} instead of {SHA256}; remove it and try again",
        workspace::display(&archive)
    );
    let unpacked = tempfile::Builder::new().prefix(".partial-").tempdir_in(&folder)?;
    workspace::run(Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(unpacked.path()))
        .with_context(|| format!("cannot unpack {}", workspace::display(&archive)))?;
    fs::rename(unpacked.path().join("package"), folder.join("package"))?;
    Ok(assets)
}
