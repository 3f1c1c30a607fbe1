//! `cargo xtask setup`: LibTorch where the build expects it, in `.libtorch/{include,lib}`.
//!
//! Looked for in this order: the `LIBTORCH` of the environment, an earlier install in `.libtorch/site`, a Python that
//! has the right torch, and last an install by pip into `.libtorch/site`. Whatever is found is only linked to, so that
//! `.cargo/config.toml` can name one folder and plain cargo commands need no variable.
//!
//! Invariant: `.libtorch/site` exists only complete and verified; anything unfinished is called `*.partial`.

mod installation;
mod link;
pub(crate) mod loader;
mod python;
mod wheels;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::workspace;
use installation::{Installation, VERSION};
use python::Python;

/// Find or install LibTorch 2.11.0, so that plain cargo commands work
#[derive(clap::Args)]
pub(crate) struct Setup {
    /// CUDA as well: 2.5 GB to download and 4.0 GB on disk where it must be installed
    #[arg(long)]
    cuda: bool,
    /// Create the links here instead of in .libtorch, where the build does not look
    #[arg(long, value_name = "FOLDER", hide = true)]
    dir: Option<PathBuf>,
}

impl Setup {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let dir = self.dir.map_or_else(default_dir, |dir| workspace::root().join(dir));
        let ready = prepare(&dir, self.cuda)?;
        terminal::output!("LibTorch {ready} is ready in {}", workspace::display(&dir));
        Ok(())
    }
}

/// Sets LibTorch up where it is not yet; silent where it is.
pub(crate) fn ensure() -> anyhow::Result<()> {
    prepare(&default_dir(), false).map(drop)
}

fn default_dir() -> PathBuf {
    workspace::root().join(".libtorch")
}

fn prepare(dir: &Path, cuda: bool) -> anyhow::Result<Installation> {
    if !cfg!(target_os = "linux") {
        bail!(
            "setup works on Linux only; elsewhere unpack LibTorch {VERSION} from https://pytorch.org, link its `include` \
             and `lib` into {}, and let the loader find it (on macOS with DYLD_LIBRARY_PATH)",
            workspace::display(dir)
        );
    }
    check_compiler()?;
    let requested = requested_by_environment(dir)?;
    let suits = |found: &Installation| {
        requested.as_ref().is_none_or(|requested| requested.root() == found.root()) && (!cuda || found.cuda().is_ok())
    };
    if let Some(ready) = link::current(dir).filter(suits) {
        return Ok(ready);
    }
    let _lock = lock(dir)?;
    // Whoever held the lock may have done all of it.
    if let Some(ready) = link::current(dir).filter(suits) {
        return Ok(ready);
    }
    let found = match requested {
        Some(requested) if cuda => {
            requested
                .cuda()
                .with_context(|| format!("LIBTORCH is {}, which --cuda cannot use", requested.root().display()))?;
            requested
        }
        Some(requested) => requested,
        None => find_or_install(dir, cuda)?,
    };
    link::make(dir, &found)?;
    link::current(dir).with_context(|| format!("the links in {} do not work although they are new", dir.display()))
}

/// The installation that the caller's LIBTORCH names, which must then be usable.
fn requested_by_environment(dir: &Path) -> anyhow::Result<Option<Installation>> {
    // Cargo itself sets the variable to our own links, from .cargo/config.toml.
    let ours = |path: &PathBuf| same_place(path, dir) || same_place(path, &default_dir());
    let Some(path) = env::var_os("LIBTORCH").map(PathBuf::from).filter(|path| !ours(path)) else { return Ok(None) };
    let found = Installation::at(&path).and_then(|found| found.check().map(|()| found));
    found.map(Some).with_context(|| {
        format!("LIBTORCH is {}, which cannot be used (set it to a LibTorch {VERSION}, or unset it)", path.display())
    })
}

fn find_or_install(dir: &Path, cuda: bool) -> anyhow::Result<Installation> {
    let usable = |root: &Path| -> anyhow::Result<Installation> {
        let found = Installation::at(root)?;
        found.check()?;
        if cuda {
            found.cuda()?;
        }
        Ok(found)
    };
    let site = dir.join("site");
    if site.exists() {
        match usable(&site.join("torch")) {
            Ok(found) => return Ok(found),
            Err(reason) => terminal::say!("- {} cannot be used: {reason:#}", workspace::display(&site)),
        }
    }
    let pythons = Python::all();
    for python in &pythons {
        match python.torch() {
            None => terminal::say!("- {python} has no torch"),
            Some(root) => match usable(&root) {
                Ok(found) => {
                    terminal::say!("- {python} has LibTorch {found}: linking to it");
                    return Ok(found);
                }
                Err(reason) => terminal::say!("- the torch of {python} cannot be used: {reason:#}"),
            },
        }
    }
    wheels::install(&site, &pythons, cuda)?;
    Installation::at(&site.join("torch"))
}

/// The bindings' C++ half is compiled on this machine.
fn check_compiler() -> anyhow::Result<()> {
    let compiler = env::var_os("CXX").filter(|name| !name.is_empty()).unwrap_or_else(|| "c++".into());
    // CXX may carry a wrapper or options: `ccache g++`.
    let words = compiler.to_string_lossy().into_owned();
    let mut words = words.split_whitespace();
    let works = words.next().is_some_and(|program| {
        let mut command = Command::new(program);
        let command = command.args(words).arg("--version").stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    });
    if !works {
        bail!(
            "no C++ compiler answers as `{}`, which the LibTorch bindings are built with: install one (Debian and \
             Ubuntu: `apt install g++`, Fedora: `dnf install gcc-c++`) or name it in CXX",
            compiler.display()
        );
    }
    Ok(())
}

/// Waits for any other setup of the same folder; the system frees the lock of a process that dies.
fn lock(dir: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(dir).with_context(|| format!("the folder {} cannot be created", dir.display()))?;
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("{} cannot be written", path.display()))?;
    if file.try_lock().is_err() {
        terminal::say!("Waiting for another setup of {} to end...", workspace::display(dir));
        file.lock().with_context(|| format!("{} cannot be locked", path.display()))?;
    }
    Ok(file)
}

/// Whether both name the same folder, which need not exist.
fn same_place(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| Some((path.parent()?.canonicalize().ok()?, path.file_name()?.to_owned()));
    one == other || place(one).is_some_and(|one| place(other) == Some(one))
}
