//! Files that are either complete or not there.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes a file with `write` under a temporary name beside `path`, flushes it to the disk and gives it its name.
/// A reader, or a crash at any moment, sees the old file or the new one, never a part.
///
/// # Errors
/// When the folder is not writable, the disk is full, or `write` fails; the temporary file is removed then.
pub fn replace_file(path: &Path, write: impl FnOnce(&mut File, &Path) -> Result<()>) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("cannot write {}", path.display());
    let mut temporary = tempfile::Builder::new()
        .prefix(".partial-")
        // Ordinary permissions: the process's umask still applies.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .with_context(failed)?;
    let hidden = temporary.path().to_owned();
    write(temporary.as_file_mut(), &hidden).with_context(failed)?;
    let finish = || -> io::Result<()> {
        // The writer may have used the path rather than the handle, so the file is opened anew for the flush.
        File::open(&hidden)?.sync_all()?;
        temporary.persist(path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    };
    finish().with_context(failed)
}
