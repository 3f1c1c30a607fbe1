//! Lets the installed program find LibTorch wherever it is copied to on this machine; within the workspace
//! `.cargo/config.toml` has done so already.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let lib = std::env::var_os("LIBTORCH").map(|libtorch| PathBuf::from(libtorch).join("lib"));
    if let Some(lib) = lib.and_then(|lib| lib.canonicalize().ok()) {
        println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{}", lib.display());
    }
}
