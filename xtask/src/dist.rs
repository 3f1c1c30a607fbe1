//! `cargo xtask dist`: the program as an archive that runs where there is no Rust, Python or LibTorch.
//!
//! `bin/attndreambooth` finds `lib/` relative to itself: LibTorch's CPU half and every other library it needs but the C
//! library, which must be the host's.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::setup::{self, loader};
use crate::{children, program, workspace};

/// Pack the program, LibTorch's CPU libraries, licences and the miniature into an archive that runs by itself
///
/// The archive runs on Linux with the glibc of this machine or a newer one, and needs nothing else.
#[derive(clap::Args)]
pub(crate) struct Dist {
    /// Folder for the archive, created if missing
    #[arg(long, value_name = "FOLDER", default_value = "target/dist")]
    out: PathBuf,
}

/// Parts of glibc, which belong to the host's loader and kernel.
const OF_THE_HOST: [&str; 9] = [
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libdl.so.2",
    "libm.so.6",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
    "libutil.so.1",
];

impl Dist {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let root = workspace::root();
        setup::ensure()?;
        let version = env!("CARGO_PKG_VERSION");
        let name = format!("attndreambooth-{version}-{ARCH}-linux");
        fs::create_dir_all(&self.out).with_context(|| format!("cannot create {}", self.out.display()))?;
        let staging = tempfile::Builder::new().prefix(".partial-").tempdir_in(&self.out)?;
        let folder = staging.path().join(&name);
        stage_program(&build()?, &root.join(".libtorch/lib"), &folder)?;
        stage_licences(&folder)?;
        copy(&root.join("fixtures/miniature"), &folder.join("models/miniature"))?;
        copy(&root.join("fixtures/subjects/penguin"), &folder.join("photos/penguin"))?;
        let libc = output(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
        fs::write(folder.join("README.md"), include_str!("dist/README.md").replace("{glibc}", libc.trim()))?;
        let archive = self.out.join(format!("{name}.tar.gz"));
        let partial = staging.path().join("archive");
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-czf"]).arg(&partial);
        workspace::run(tar.arg("-C").arg(staging.path()).arg(&name))?;
        fs::rename(&partial, &archive)?;
        let [packed, unpacked] = [fs::metadata(&archive)?.len(), size(&folder)?].map(hub::size);
        terminal::output!("{}: {packed}, {unpacked} unpacked", workspace::display(&archive));
        Ok(())
    }
}

/// The program in release mode, without symbols, that looks for libraries in `../lib`.
fn build() -> anyhow::Result<PathBuf> {
    let mut command =
        workspace::cargo(["rustc", "--release", "--package", "attndreambooth", "--bin", "attndreambooth"]);
    command.args(["--", "-C", "strip=symbols"]).env("ATTNDREAMBOOTH_LIBRARIES", "$ORIGIN/../lib");
    workspace::run(command.current_dir(workspace::root()))?;
    Ok(program::path())
}

/// Puts `binary` into `folder/bin` and the libraries that it needs into `folder/lib`, and sees that they suffice.
fn stage_program(binary: &Path, libtorch: &Path, folder: &Path) -> anyhow::Result<()> {
    let (bin, lib) = (folder.join("bin"), folder.join("lib"));
    fs::create_dir_all(&bin)?;
    fs::create_dir_all(&lib)?;
    let mut libraries: BTreeMap<String, PathBuf> = loader::found(binary)?.into_iter().collect();
    for entry in fs::read_dir(libtorch).with_context(|| format!("cannot read {}", libtorch.display()))? {
        let entry = entry?;
        libraries.insert(entry.file_name().to_string_lossy().into_owned(), entry.path());
    }
    for (name, file) in libraries.into_iter().filter(|(name, _)| !OF_THE_HOST.contains(&&**name)) {
        fs::copy(&file, lib.join(&name)).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    let program = bin.join(binary.file_name().unwrap_or_default());
    fs::copy(binary, &program).with_context(|| format!("cannot copy {}", binary.display()))?;
    let home = folder.canonicalize()?;
    for (name, file) in loader::found(&program)? {
        let is_packed = file.canonicalize()?.starts_with(&home);
        ensure!(
            is_packed || OF_THE_HOST.contains(&&*name),
            "{name} is taken from {}, not from the archive",
            file.display()
        );
    }
    let missing = loader::missing(&program)?;
    ensure!(missing.is_empty(), "the archive lacks {}", missing.join(", "));
    Ok(())
}

/// Ours, those of LibTorch's wheels, and those of all crates that the program is built from.
fn stage_licences(folder: &Path) -> anyhow::Result<()> {
    let root = workspace::root();
    let licences = folder.join("licences");
    fs::create_dir_all(&licences)?;
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        fs::copy(root.join(name), folder.join(name))?;
    }
    // Beside the packages in a Python's site-packages; an archive of LibTorch brings none.
    let include = root.join(".libtorch/include").canonicalize()?;
    let site = include.ancestors().nth(2).unwrap_or(root);
    let mut from_libtorch = 0;
    for entry in fs::read_dir(site)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_part = name.starts_with("torch-") || name.starts_with("nvidia_");
        if is_part && name.ends_with(".dist-info") {
            from_libtorch += copy_licences(&entry.path(), &licences.join(name.trim_end_matches(".dist-info")))?;
        }
    }
    if from_libtorch == 0 {
        terminal::note!(
            "LibTorch brings no licences here: add those of https://github.com/pytorch/pytorch before you pass the archive on"
        );
    }
    let mut list =
        "# Crates that the program is built from\n\n| crate | licence | repository |\n|---|---|---|\n".to_owned();
    for package in packages()? {
        let (name, version) = (&package.name, &package.version);
        let [licence, repository] = [&package.license, &package.repository].map(|text| text.as_deref().unwrap_or("-"));
        writeln!(list, "| {name} {version} | {licence} | {repository} |")?;
        // Of the workspace's own, those of what they embed, such as a font.
        let home = package.manifest_path.parent().unwrap_or(root);
        copy_licences(home, &licences.join("crates").join(format!("{name}-{version}")))?;
    }
    fs::write(licences.join("CRATES.md"), list)?;
    Ok(())
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    manifest_path: PathBuf,
}

/// All that the program is built from, by cargo's own resolution for this machine.
fn packages() -> anyhow::Result<Vec<Package>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
        resolve: Resolve,
    }
    #[derive(Deserialize)]
    struct Resolve {
        nodes: Vec<Node>,
    }
    #[derive(Deserialize)]
    struct Node {
        id: String,
        deps: Vec<Dependency>,
    }
    #[derive(Deserialize)]
    struct Dependency {
        pkg: String,
        dep_kinds: Vec<Kind>,
    }
    #[derive(Deserialize)]
    struct Kind {
        kind: Option<String>,
    }
    let platform = format!("{ARCH}-unknown-linux-gnu");
    let mut command = workspace::cargo(["metadata", "--format-version", "1", "--filter-platform", &platform]);
    let Metadata { packages, resolve } = serde_json::from_str(&output(command.current_dir(workspace::root()))?)?;
    let nodes: BTreeMap<&str, &Node> = resolve.nodes.iter().map(|node| (&*node.id, node)).collect();
    let program = packages.iter().find(|package| package.name == "attndreambooth").context("there is no program")?;
    let (mut seen, mut left) = (BTreeMap::new(), vec![&*program.id]);
    while let Some(id) = left.pop() {
        if seen.insert(id.to_owned(), ()).is_some() {
            continue;
        }
        let linked = |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
        left.extend(
            nodes.get(id).into_iter().flat_map(|node| &node.deps).filter(linked).map(|dependency| &*dependency.pkg),
        );
    }
    let mut packages: Vec<Package> = packages.into_iter().filter(|package| seen.contains_key(&package.id)).collect();
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(packages)
}

/// Copies the licences and notices in a folder and in its `licenses`; how many there are.
fn copy_licences(from: &Path, to: &Path) -> anyhow::Result<usize> {
    let mut count = 0;
    for entry in [from.to_owned(), from.join("licenses")].iter().flat_map(fs::read_dir).flatten().flatten() {
        let name = entry.file_name().to_string_lossy().to_ascii_uppercase();
        let is_licence = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT", "UNLICENSE"]
            .iter()
            .any(|word| name.starts_with(word));
        if is_licence && entry.path().is_file() {
            fs::create_dir_all(to)?;
            fs::copy(entry.path(), to.join(entry.file_name()))?;
            count += 1;
        }
    }
    Ok(count)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let (from, to) = {
            let entry = entry?;
            (entry.path(), to.join(entry.file_name()))
        };
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            fs::copy(&from, to)?;
        }
    }
    Ok(())
}

fn size(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let line = workspace::command_line(command);
    let output = children::output(command).with_context(|| format!("`{line}` could not be started"))?;
    ensure!(output.status.success(), "`{line}` failed");
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every binary of this workspace, this test included, finds LibTorch by the paths in it; here it needs none.
    #[test]
    fn a_program_is_packed_with_its_libraries_and_without_the_hosts() {
        let folder = tempfile::tempdir().unwrap();
        let libtorch = folder.path().join("libtorch");
        fs::create_dir_all(&libtorch).unwrap();
        let binary = std::env::current_exe().unwrap();
        fs::copy(&binary, libtorch.join("libtorch_cpu.so")).unwrap();
        let packed = folder.path().join("packed");
        // It was not linked to look in ../lib, so what it needs beyond glibc is found elsewhere, and that is an error.
        let needs_more = loader::found(&binary).unwrap().iter().any(|(name, _)| !OF_THE_HOST.contains(&&**name));
        let result = stage_program(&binary, &libtorch, &packed);
        match needs_more {
            true => assert!(result.unwrap_err().to_string().contains("not from the archive")),
            false => result.unwrap(),
        }
        assert!(packed.join("lib/libtorch_cpu.so").exists() && !packed.join("lib/libc.so.6").exists());
    }

    #[test]
    fn every_crate_of_the_program_has_a_licence() {
        let packages = packages().unwrap();
        assert!(packages.iter().any(|package| package.name == "tch") && packages.len() > 100);
        for package in packages {
            assert!(package.license.is_some(), "{}", package.name);
        }
    }

    #[test]
    fn licences_and_notices_are_taken_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("licenses")).unwrap();
        for name in ["LICENSE-MIT", "licenses/NOTICE", "README.md"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let to = folder.path().join("to");
        assert_eq!(copy_licences(folder.path(), &to).unwrap(), 2);
        assert!(to.join("LICENSE-MIT").exists() && to.join("NOTICE").exists());
    }
}
