//! What the system's loader makes of a library, asked through `ldd`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// The libraries that `library` needs and the loader finds: name and file of each.
pub(crate) fn found(library: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    Ok(needs(&ldd(library)?).filter_map(|(name, file)| Some((name.to_owned(), file?.into()))).collect())
}

/// The names of those it does not find.
pub(crate) fn missing(library: &Path) -> anyhow::Result<Vec<String>> {
    Ok(needs(&ldd(library)?).filter(|(_, file)| file.is_none()).map(|(name, _)| name.to_owned()).collect())
}

fn ldd(library: &Path) -> anyhow::Result<String> {
    let output = Command::new("ldd").arg(library).env("LC_ALL", "C").output().context("`ldd` cannot be started")?;
    ensure!(
        output.status.success(),
        "the loader cannot read {}: {}",
        library.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Lines like `libc10.so => /opt/lib/libc10.so (0x00007f2f790d5000)` or `libcudart.so.13 => not found`.
fn needs(listing: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    listing.lines().filter_map(|line| {
        let (name, file) = line.trim().split_once(" => ")?;
        let file = file.rsplit_once(" (0x").map_or(file, |(file, _)| file);
        Some((name, (file != "not found").then_some(file)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_told_apart() {
        let listing = "\tlinux-vdso.so.1 (0x00007f2f8e8f8000)\n\tlibgomp.so.1 => /a b/lib/libgomp.so.1 (0x00007f2f78c00000)\n\
                       \tlibcudart.so.13 => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f2f8e8fa000)\n";
        let needs: Vec<_> = needs(listing).collect();
        assert_eq!(needs, [("libgomp.so.1", Some("/a b/lib/libgomp.so.1")), ("libcudart.so.13", None)]);
    }

    #[test]
    fn a_file_that_is_no_library_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no ELF").unwrap();
        assert!(missing(file.path()).is_err());
        assert_eq!(missing(&std::env::current_exe().unwrap()).unwrap(), [""; 0]);
    }
}
