//! Compiles the shim against the LibTorch that `torch-sys` found.

use std::env;
use std::path::{Path, PathBuf};

const SOURCES: [&str; 9] = [
    "shim/shim.cpp",
    "shim/checkpoint.cpp",
    "shim/fused.cpp",
    "shim/memory.cpp",
    "shim/nccl.cpp",
    "shim/packed.cpp",
    "shim/processes.cpp",
    "shim/random.cpp",
    "shim/reducer.cpp",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    // torch-sys says which library folder it links; the headers lie beside it in every distribution of LibTorch,
    // unless LIBTORCH_INCLUDE says otherwise, to torch-sys as to us.
    let lib = PathBuf::from(env::var_os("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where LibTorch is"));
    let root = env::var_os("LIBTORCH_INCLUDE").map(PathBuf::from);
    let root = root.as_deref().or(lib.parent()).unwrap_or(Path::new("/usr"));
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(false);
    // Loops over numbers, which include no header of LibTorch's. The flags let more of them become vector instructions, and
    // change no result.
    build
        .clone()
        .opt_level(3)
        .flags(["-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"])
        .file("shim/rows.cpp")
        .compile("rows");
    build
        .include(root.join("include"))
        // Gloo's headers, which LibTorch needs and comes without: shim/gloo/gloo/README.md.
        .flag("-idirafter")
        .flag("shim/gloo")
        .include(root.join("include/torch/csrc/api/include"))
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        // LibTorch's headers are most of it; our own lines only forward.
        .opt_level(1)
        .files(SOURCES)
        .compile("shim");
    // Behind what needs it, for linkers that look for symbols in order.
    println!("cargo:rustc-link-lib=static=rows");
}
