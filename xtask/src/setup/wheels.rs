//! Installing LibTorch from the Python package index by pip, without the Python packages that torch asks for.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::installation::Installation;
use super::installation::VERSION;
use super::link::remove;
use super::python::Python;
use crate::children::Running;
use crate::workspace;

/// What LibTorch needs to be loaded at all.
const CPU: &[&str] = &["torch==2.11.0", "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"];

/// What its CUDA half needs besides: the versions that torch 2.11.0 asks for.
const CUDA: &[&str] = &[
    "nvidia-cublas==13.1.0.3",
    "nvidia-cuda-nvrtc==13.0.88",
    "nvidia-cudnn-cu13==9.19.0.56",
    "nvidia-cufft==12.0.0.61",
    "nvidia-cufile==1.15.1.6",
    "nvidia-curand==10.4.0.35",
    "nvidia-cusolver==12.0.4.66",
    "nvidia-cusparse==12.6.3.3",
    "nvidia-cusparselt-cu13==0.8.0",
    "nvidia-nccl-cu13==2.28.9",
    "nvidia-nvjitlink==13.0.88",
    "nvidia-nvshmem-cu13==3.4.5",
    "nvidia-nvtx==13.0.85",
];

/// Libraries of the torch wheel that are of no use without CUDA or Python: half of its size.
const CPU_UNUSED: &[&str] = &[
    "libc10_cuda.so",
    "libcaffe2_nvrtc.so",
    "libtorch_cuda.so",
    "libtorch_cuda_linalg.so",
    "libtorch_nvshmem.so",
    "libtorch_python.so",
];

/// Installs into the folder `site`, which appears only when complete and verified.
pub(super) fn install(site: &Path, pythons: &[Python], cuda: bool) -> anyhow::Result<()> {
    let instead = format!("or unpack LibTorch {VERSION} from https://pytorch.org and set LIBTORCH to its folder");
    if pythons.is_empty() {
        bail!("no Python was found that could fetch LibTorch: install python3 with pip, {instead}");
    }
    let Some(python) = pythons.iter().find(|python| python.has_pip()) else {
        bail!(
            "{} has no pip to fetch LibTorch with: install it (Debian: `apt install python3-pip`), {instead}",
            pythons[0]
        );
    };
    let parent = site.parent().context("the folder to install into has no parent")?;
    clear_unfinished(parent)?;
    let (download, unpacked, room) = if cuda { ("2.5 GB", "4.0 GB", 7_000) } else { ("0.54 GB", "0.7 GB", 2_000) };
    terminal::say!(
        "Installing LibTorch {VERSION} with the pip of {python} into {}: {download} to download, {unpacked} on disk ({}).",
        workspace::display(site),
        if cuda { "with all CUDA libraries" } else { "for the CPU; `cargo xtask setup --cuda` adds CUDA" }
    );
    check_room(parent, room)?;
    // A name of its own: a pip whose setup was killed may still be writing to an older one.
    let partial = parent.join(format!("site.{}.partial", std::process::id()));
    pip(python, &partial, cuda).with_context(|| format!("LibTorch could not be installed; try again, {instead}"))?;
    terminal::say!("Verifying what was installed...");
    let checked = verify(&partial).context("what pip installed is damaged; try again")?;
    if !cuda {
        for library in CPU_UNUSED {
            remove(&partial.join("torch/lib").join(library))?;
        }
    }
    let found = Installation::at(&partial.join("torch"))?;
    if cuda { found.cuda() } else { found.check() }.context("what pip installed is incomplete")?;
    // An earlier one (without CUDA) goes; links to it are renewed by the caller.
    let former = parent.join("site.former.partial");
    if site.exists() {
        fs::rename(site, &former)?;
    }
    fs::rename(&partial, site).with_context(|| format!("{} cannot be created", site.display()))?;
    remove(&former)?;
    terminal::say!("{checked} files are as their wheels list them; every library is found by the loader.");
    Ok(())
}

/// What killed runs have left.
fn clear_unfinished(parent: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(parent)?.flatten() {
        if entry.file_name().to_string_lossy().ends_with(".partial") {
            terminal::say!("Removing {} of an interrupted setup.", workspace::display(&entry.path()));
            remove(&entry.path()).with_context(|| format!("{} cannot be removed", entry.path().display()))?;
        }
    }
    Ok(())
}

fn check_room(folder: &Path, megabytes: u64) -> anyhow::Result<()> {
    let output = Command::new("df").arg("-Pk").arg(folder).env("LC_ALL", "C").output();
    let listing = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    // Where df says nothing useful, a full disk will show later.
    let kilobytes = listing.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    let free = kilobytes.map_or(u64::MAX, |kilobytes| kilobytes / 1000);
    ensure!(
        free >= megabytes,
        "the install needs {:.1} GB free while it unpacks, and {} has {:.1} GB: make room there",
        megabytes as f64 / 1000.0,
        folder.display(),
        free as f64 / 1000.0
    );
    Ok(())
}

fn pip(python: &Python, target: &Path, cuda: bool) -> anyhow::Result<()> {
    // pip builds the tree elsewhere first: within the target's file system, not in a /tmp that may be small.
    let temporary = target.join("tmp");
    fs::create_dir_all(&temporary).with_context(|| format!("{} cannot be created", temporary.display()))?;
    // The libraries are the same for every Python: asking for one fixed version lets any Python's pip fetch them.
    let fixed = ["--no-deps", "--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--target"];
    let mut command = python.command(["-m", "pip", "install"]);
    command.args(fixed).arg(target).args(CPU).args(if cuda { CUDA } else { &[] });
    command.env("TMPDIR", &temporary).env("PIP_USER", "0").env("PIP_REQUIRE_VIRTUALENV", "0");
    command.env("PIP_DISABLE_PIP_VERSION_CHECK", "1").env("PIP_ROOT_USER_ACTION", "ignore");
    let mut pip = Running::start(command.stderr(Stdio::piped())).context("pip cannot be started")?;
    let (mut last_error, mut unreachable) = (None, false);
    for line in
        pip.child.stderr.take().into_iter().flat_map(|stderr| BufReader::new(stderr).lines()).map_while(Result::ok)
    {
        terminal::say!("{line}");
        // Without a network, pip's own last word is that there is no such version.
        if line.contains("connection broken by") {
            unreachable = true;
        } else if let Some((_, error)) = line.split_once("ERROR: ") {
            last_error = Some(error.to_owned());
        }
    }
    let status = pip.child.wait()?;
    if !status.success() {
        remove(target)?;
        ensure!(!unreachable, "pip could not reach the package index: check the network and any proxy");
        bail!("pip ended with {status}{}", last_error.map(|error| format!(", saying: {error}")).unwrap_or_default());
    }
    remove(&temporary)?;
    Ok(())
}

/// Compares sizes, and for libraries hashes, with each wheel's RECORD; returns how many files were looked at.
fn verify(site: &Path) -> anyhow::Result<usize> {
    let mut checked = 0;
    for entry in fs::read_dir(site)?.flatten() {
        let record = entry.path().join("RECORD");
        if !record.exists() {
            continue;
        }
        for line in fs::read_to_string(&record)?.lines() {
            // `torch/lib/libc10.so,sha256=<base64>,1498969`; scripts (`../`) and the RECORD itself are not listed so.
            let mut fields = line.rsplitn(3, ',');
            let (Some(size), Some(hash), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
            let Ok(size) = size.parse::<u64>() else { continue };
            if path.starts_with("..") {
                continue;
            }
            let file = site.join(path.trim_matches('"'));
            let length = fs::metadata(&file).with_context(|| format!("{} is missing", file.display()))?.len();
            ensure!(length == size, "{} has {length} bytes, not {size}", file.display());
            if is_library(&file) {
                let found = BASE64_URL_SAFE_NO_PAD.encode(hub::sha256(&file)?);
                ensure!(hash.strip_prefix("sha256=") == Some(&found), "{} has another hash", file.display());
            }
            checked += 1;
        }
    }
    ensure!(checked > 0, "{} lists no files", site.display());
    Ok(checked)
}

fn is_library(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".so") || name.contains(".so.")
}
