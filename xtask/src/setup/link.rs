//! `.libtorch/{include,lib}`: links to the LibTorch in use, wherever it lies.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, ensure};

use super::installation::Installation;
use super::loader;

/// The installation that the links in `dir` lead to, if they all do and the loader finds everything through them.
pub(super) fn current(dir: &Path) -> Option<Installation> {
    let found = Installation::at(dir.join("include").canonicalize().ok()?.parent()?).ok()?;
    let lib = dir.join("lib");
    let linked = |(name, file): &(_, _)| lib.join::<&String>(name).canonicalize().is_ok_and(|target| target == *file);
    let complete = found.libraries().ok()?.iter().all(linked);
    (complete && check(&lib).is_ok()).then_some(found)
}

/// Creates the links anew; an interruption leaves some missing, never wrong.
pub(super) fn make(dir: &Path, installation: &Installation) -> anyhow::Result<()> {
    let cannot = || format!("the links in {} cannot be created", dir.display());
    let (include, lib, partial) = (dir.join("include"), dir.join("lib"), dir.join("lib.partial"));
    remove(&partial).with_context(cannot)?;
    fs::create_dir_all(&partial).with_context(cannot)?;
    for (name, file) in installation.libraries()? {
        symlink(file, partial.join(name)).with_context(cannot)?;
    }
    check(&partial)?;
    remove(&include).and_then(|()| remove(&lib)).with_context(cannot)?;
    symlink(installation.root().join("include"), include).and_then(|()| fs::rename(partial, lib)).with_context(cannot)
}

/// Removes a file, link or folder that may be there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Seen through the links, a library's `$ORIGIN` is their folder: all it needs must be there too.
fn check(lib: &Path) -> anyhow::Result<()> {
    let missing = loader::missing(&lib.join("libtorch_cpu.so"))?;
    ensure!(missing.is_empty(), "libtorch_cpu.so needs {}, which the loader does not find", missing.join(", "));
    Ok(())
}
