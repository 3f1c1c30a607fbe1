//! The log once more, for TensorBoard.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::Entry;
use crate::log::now;
use crate::record::{Event, What};

const PREFIX: &str = "events.out.tfevents.";

/// Scalars over steps in a TensorBoard event file: `tensorboard --logdir` of the folder, or of one above, shows them.
///
/// Steps are those of the whole run: when it is resumed, a new file says from which step on older files are void.
#[derive(Debug)]
pub struct Scalars {
    path: PathBuf,
    file: File,
}

impl Scalars {
    /// Begins an event file in a run's folder to go on after `steps` steps, none for a new run.
    ///
    /// An event file cannot be cut as the log can, since a running TensorBoard reads on from where it was. So each start
    /// of a run has its own file. It begins with a `SessionLog.START` of the first step to come, at which TensorBoard
    /// forgets that step and later ones; the first file has one too, since TensorBoard takes no notice of the first.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(folder: &Path, steps: u64) -> Result<Self> {
        let failed = || format!("cannot write TensorBoard events in {}", folder.display());
        // TensorBoard reads files in the order of their names, whatever clocks say.
        let number = latest(folder).with_context(failed)?.map_or(0, |number| number + 1).max(now() as u64);
        let path = folder.join(format!("{PREFIX}{number:010}.run"));
        let file = File::options().append(true).create_new(true).open(&path).with_context(failed)?;
        let mut scalars = Self { path, file };
        scalars.write(&Event { wall_time: now(), step: 0, what: What::FileVersion })?;
        scalars.write(&Event { wall_time: now(), step: steps + 1, what: What::SessionStart })?;
        Ok(scalars)
    }

    /// Adds a value, in f32 as TensorBoard keeps it. `tag` is its name, `wall_time` in seconds since 1970.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&mut self, tag: &str, step: u64, value: f64, wall_time: f64) -> Result<()> {
        self.write(&Event { wall_time, step, what: What::Scalar { tag, value: value as f32 } })
    }

    /// Adds an entry's values under the tags `stage/name`.
    ///
    /// # Errors
    /// As [`Scalars::add`].
    pub fn append(&mut self, entry: &Entry) -> Result<()> {
        for (name, value) in &entry.values {
            self.add(&format!("{}/{name}", entry.stage), entry.step, *value, entry.wall_time)?;
        }
        Ok(())
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        self.file.write_all(&event.record()).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// The greatest number among a folder's event files.
fn latest(folder: &Path) -> io::Result<Option<u64>> {
    let mut latest = None;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|rest| rest.split('.').next());
        latest = latest.max(number.and_then(|number| number.parse().ok()));
    }
    Ok(latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The event files in the order of their names.
    fn files(folder: &Path) -> Vec<Vec<u8>> {
        let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    #[test]
    fn each_start_has_a_file_that_sorts_after_the_earlier_ones() {
        let folder = tempfile::tempdir().unwrap();
        // From a clock that was ahead.
        fs::write(folder.path().join("events.out.tfevents.9000000000.elsewhere"), "old").unwrap();
        for steps in [0, 60, 61] {
            Scalars::open(folder.path(), steps).unwrap().add("tag", steps, 0.5, 0.0).unwrap();
        }
        let files = files(folder.path());
        let value = |step| Event { wall_time: 0.0, step, what: What::Scalar { tag: "tag", value: 0.5 } }.record();
        assert_eq!(files[0], b"old");
        for (file, step) in files[1..].iter().zip([0, 60, 61]) {
            assert!(file.ends_with(&value(step)));
        }
    }

    #[test]
    fn every_file_begins_with_a_start_of_the_first_step_to_come() {
        let folder = tempfile::tempdir().unwrap();
        for steps in [0, 60] {
            Scalars::open(folder.path(), steps).unwrap();
        }
        // An event without its wall time (a key and 8 bytes), and neither length nor checksums around it.
        let rest = |what, step| {
            let record = Event { wall_time: 1.0, step, what }.record();
            record[12 + 9..record.len() - 4].to_vec()
        };
        for (file, step) in files(folder.path()).iter().zip([1, 61]) {
            let first = rest(What::FileVersion, 0);
            assert_eq!(file[12 + 9..][..first.len()], first);
            let start = rest(What::SessionStart, step);
            assert_eq!(
                file[..file.len() - 4].strip_suffix(&start[..]).map(<[u8]>::len),
                Some(file.len() - 4 - start.len())
            );
        }
    }

    #[test]
    fn an_entry_is_written_under_its_stage() {
        let folder = tempfile::tempdir().unwrap();
        let entry = Entry::now(7, "unet", [("b_loss", 2.0), ("a_loss", 1.0)]);
        Scalars::open(folder.path(), 0).unwrap().append(&entry).unwrap();
        let expected: Vec<u8> = [("unet/a_loss", 1.0), ("unet/b_loss", 2.0)]
            .into_iter()
            .flat_map(|(tag, value)| {
                Event { wall_time: entry.wall_time, step: 7, what: What::Scalar { tag, value } }.record()
            })
            .collect();
        assert!(files(folder.path())[0].ends_with(&expected));
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = Scalars::open(Path::new("/no/such/run"), 0).unwrap_err();
        assert!(error.to_string().contains("/no/such/run"));
    }
}
