//! Compiles the stand-in into a shared library, against the LibTorch that `torch-sys` found.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    // As the shim of crate `libtorch` finds the headers.
    let lib = PathBuf::from(env::var_os("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where LibTorch is"));
    let root = env::var_os("LIBTORCH_INCLUDE").map(PathBuf::from);
    let root = root.as_deref().or(lib.parent()).unwrap_or(Path::new("/usr"));
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .include(root.join("include"))
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .pic(true)
        .warnings(false)
        .opt_level(1);
    let sources = ["cpp/device.cpp", "cpp/memory.cpp", "cpp/kernels.cpp"];
    let objects = build.clone().files(sources).compile_intermediates();

    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let library = folder.join("libcuda_standin.so");
    let mut link = build.get_compiler().to_command();
    link.arg("-shared").arg("-o").arg(&library).args(objects).arg("-L").arg(&lib).args(["-ltorch_cpu", "-lc10"]);
    let status = link.status().expect("the compiler that made the objects starts");
    assert!(status.success(), "the stand-in could not be linked: {link:?}");
    println!("cargo:rustc-env=CUDA_STANDIN_FOLDER={}", folder.display());
}
