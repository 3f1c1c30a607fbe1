//! Lets the installed program find LibTorch wherever it is copied to on this machine (within the workspace
//! `.cargo/config.toml` has done so already), and tells it the commit that it is built from, where there is git.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=ATTNDREAMBOOTH_LIBRARIES");
    // `cargo xtask dist` says where its archive has them.
    let elsewhere = std::env::var_os("ATTNDREAMBOOTH_LIBRARIES").map(PathBuf::from);
    let here = || PathBuf::from(std::env::var_os("LIBTORCH")?).join("lib").canonicalize().ok();
    if let Some(lib) = elsewhere.or_else(here) {
        println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{}", lib.display());
    }
    if let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo:rustc-env=ATTNDREAMBOOTH_COMMIT={commit}");
    }
    // It names each new commit.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| PathBuf::from(log).exists()) {
        println!("cargo:rerun-if-changed={log}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
