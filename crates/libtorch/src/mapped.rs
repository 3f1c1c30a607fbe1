//! Read-only memory maps of files.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::{Mmap, UncheckedAdvice};

/// A file's bytes in memory, read by the system when they are touched.
///
/// The file must not be truncated or changed in place while it is mapped; files that are replaced by renaming (as
/// everything in this workspace is written) are fine.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        // Safety: see the type's documentation for what callers are asked not to do.
        Ok(Self(unsafe { Mmap::map(&file)? }))
    }

    /// Tells the system that the pages wholly inside `range` are not needed soon, so that they do not count as this
    /// process's memory. They are read again if touched.
    pub fn release(&self, range: Range<usize>) {
        const PAGE: usize = 4096;
        let start = range.start.next_multiple_of(PAGE);
        let end = range.end.min(self.len()) / PAGE * PAGE;
        if start < end {
            // Safety: the map is read-only and backed by a file, so dropped pages come back with the same bytes.
            // Failure would only leave the pages where they are.
            let _ = unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
        }
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
