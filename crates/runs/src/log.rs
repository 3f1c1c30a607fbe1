//! The log: a line of JSON for each step.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::layout::LOG;

/// What one step has shown.
///
/// In the file: `{"step":61,"phase":"unet","wall_time":1700000000.5,"attention_loss":0.01,"diffusion_loss":0.2}`; a
/// value that is not a number is `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Steps done in the whole run, over all its phases: 1 in the first line.
    pub step: u64,
    /// The phase of the run.
    pub phase: String,
    /// When, in seconds since 1970.
    pub wall_time: f64,
    /// What was measured.
    #[serde(flatten, deserialize_with = "numbers")]
    pub values: BTreeMap<String, f64>,
}

impl Entry {
    /// An entry of this moment.
    pub fn now<'a>(step: u64, phase: &str, values: impl IntoIterator<Item = (&'a str, f64)>) -> Self {
        let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { step, phase: phase.to_owned(), wall_time: now(), values }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    // A clock before 1970 is wrong; nothing but the times in the record depends on it.
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// JSON has no NaN; `null` stands for it.
fn numbers<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let values: BTreeMap<String, Option<f64>> = Deserialize::deserialize(deserializer)?;
    Ok(values.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

/// `log.jsonl`, open for further lines.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    /// The bytes of whole lines.
    length: u64,
    last_step: u64,
}

impl Log {
    /// Opens the log in a run's folder to continue after `steps` steps, none for a new run. Lines of later steps, which a
    /// killed run wrote after its last checkpoint, are cut off, and so is a last line that was never finished.
    ///
    /// # Errors
    /// When the file cannot be written, or a line before the last is damaged.
    pub fn open(folder: &Path, steps: u64) -> Result<Self> {
        let path = folder.join(LOG);
        let failed = || format!("cannot write {}", path.display());
        let mut file = File::options().append(true).create(true).open(&path).with_context(failed)?;
        let lines = read(&path)?;
        let last = lines.iter().take_while(|line| line.entry.step <= steps).last();
        let mut length = last.map_or(0, |line| line.end);
        let mut cut = || -> io::Result<()> {
            file.set_len(length)?;
            if last.is_some_and(|line| !line.finished) {
                // All of the line but its end was written.
                file.write_all(b"\n")?;
                length += 1;
            }
            file.sync_data()
        };
        cut().with_context(failed)?;
        Ok(Self { file, length, last_step: last.map_or(0, |line| line.entry.step), path })
    }

    /// Adds a line, which survives if the process is killed right after.
    ///
    /// # Errors
    /// When the disk is full, or the step is not after the last one; then the log is as it was.
    pub fn append(&mut self, entry: &Entry) -> Result<()> {
        let failed = || format!("cannot write step {} to {}", entry.step, self.path.display());
        ensure!(entry.step > self.last_step, "{}: step {} is already there", failed(), self.last_step);
        let mut line = serde_json::to_vec(entry).with_context(failed)?;
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            // Half a line must not stand before others. If even this fails, opening the log will cut it.
            let _ = self.file.set_len(self.length);
            return Err(error).with_context(failed);
        }
        self.length += line.len() as u64;
        self.last_step = entry.step;
        Ok(())
    }

    /// Waits until the disk has every line. Called before a checkpoint is written, it keeps a power cut from leaving a
    /// checkpoint that the log has not reached.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// The log in a run's folder. A last line that was never finished is left out.
///
/// # Errors
/// When there is none, or a line before the last is damaged.
pub fn read_log(folder: &Path) -> Result<Vec<Entry>> {
    Ok(read(&folder.join(LOG))?.into_iter().map(|line| line.entry).collect())
}

/// A log that another process writes, read as far as it is, and then only what has come since.
#[derive(Debug, Default)]
pub struct LogReader {
    entries: Vec<Entry>,
    /// Bytes of the lines that were read.
    read: u64,
    /// The last of them, by which a log that was written anew is known: each line has its time.
    last: Vec<u8>,
}

impl LogReader {
    /// Reads what is new in the log of a run's folder, of which there may be none yet; a run that went back to a checkpoint is read
    /// again. Returns whether anything has changed.
    ///
    /// # Errors
    /// When the log cannot be read or is damaged.
    pub fn update(&mut self, folder: &Path) -> Result<bool> {
        let path = folder.join(LOG);
        let failed = || format!("cannot read the log {}", path.display());
        let mut file = match limits::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self.restart()),
            opened => opened.with_context(failed)?,
        };
        let mut new = Vec::new();
        file.seek(SeekFrom::Start(self.read - self.last.len() as u64)).with_context(failed)?;
        file.take(MAX_BYTES).read_to_end(&mut new).with_context(failed)?;
        let Some(new) = new.strip_prefix(self.last.as_slice()) else { return self.read_again(&path) };
        let whole = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<&[u8]> = new[..whole].split_inclusive(|byte| *byte == b'\n').collect();
        let Some(&last) = lines.last() else { return Ok(false) };
        match lines.iter().map(json::parse).collect::<Result<Vec<Entry>, _>>() {
            Ok(entries) => {
                self.read += whole as u64;
                self.last = last.to_vec();
                self.entries.extend(entries);
                Ok(true)
            }
            // It says which line is damaged.
            Err(_) => self.read_again(&path),
        }
    }

    /// From its beginning.
    fn read_again(&mut self, path: &Path) -> Result<bool> {
        let bytes = contents(path)?;
        let lines: Vec<Line> = parse_lines(path, &bytes)?.into_iter().filter(|line| line.finished).collect();
        self.read = lines.last().map_or(0, |line| line.end);
        let read = &bytes[..self.read as usize];
        self.last = read.split_inclusive(|byte| *byte == b'\n').next_back().unwrap_or_default().to_vec();
        self.entries = lines.into_iter().map(|line| line.entry).collect();
        Ok(true)
    }

    /// What was read.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn restart(&mut self) -> bool {
        let changed = !self.entries.is_empty();
        *self = Self::default();
        changed
    }
}

/// A million steps, more than anybody trains, have 300 MB.
const MAX_BYTES: u64 = 1 << 30;

struct Line {
    entry: Entry,
    /// Where the line ends in the file, in bytes.
    end: u64,
    /// Whether it ends with a newline.
    finished: bool,
}

fn read(path: &Path) -> Result<Vec<Line>> {
    parse_lines(path, &contents(path)?)
}

fn contents(path: &Path) -> Result<Vec<u8>> {
    limits::read_at_most(path, MAX_BYTES).with_context(|| format!("cannot read the log {}", path.display()))
}

fn parse_lines(path: &Path, bytes: &[u8]) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut end = 0;
    for (i, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        end += line.len();
        match json::parse(line) {
            Ok(entry) => lines.push(Line { entry, end: end as u64, finished: line.ends_with(b"\n") }),
            Err(_) if end == bytes.len() => {}
            Err(error) => {
                let what = format!("line {} of {} is damaged; remove it to continue without it", i + 1, path.display());
                return Err(error).context(what);
            }
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn entry(step: u64) -> Entry {
        let values = [("loss".to_owned(), 1.0 / step as f64)].into();
        Entry { step, phase: "phase".to_owned(), wall_time: 1.7e9 + step as f64, values }
    }

    /// The bytes of a log of so many steps.
    fn whole(steps: u64) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 0).unwrap();
        (1..=steps).for_each(|step| log.append(&entry(step)).unwrap());
        fs::read(folder.path().join(LOG)).unwrap()
    }

    #[test]
    fn lines_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 0).unwrap();
        let written: Vec<Entry> = (1..=3).map(entry).collect();
        written.iter().for_each(|entry| log.append(entry).unwrap());
        assert_eq!(read_log(folder.path()).unwrap(), written);
        let text = fs::read_to_string(folder.path().join(LOG)).unwrap();
        assert_eq!(text.lines().next(), Some(r#"{"step":1,"phase":"phase","wall_time":1700000001.0,"loss":1.0}"#));
    }

    #[test]
    fn a_run_killed_at_any_byte_and_resumed_leaves_the_log_of_one_that_was_not() {
        let expected = whole(6);
        let folder = tempfile::tempdir().unwrap();
        for killed_at in 0..=expected.len() {
            let written = expected[..killed_at].iter().filter(|byte| **byte == b'\n').count() as u64;
            for checkpoint in 0..=written {
                fs::write(folder.path().join(LOG), &expected[..killed_at]).unwrap();
                let mut log = Log::open(folder.path(), checkpoint).unwrap();
                (checkpoint + 1..=6).for_each(|step| log.append(&entry(step)).unwrap());
                assert_eq!(fs::read(folder.path().join(LOG)).unwrap(), expected, "{killed_at} {checkpoint}");
            }
        }
    }

    #[test]
    fn a_reader_follows_a_log_through_torn_lines_and_back_to_a_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let mut reader = LogReader::default();
        assert!(!reader.update(folder.path()).unwrap());
        let all = whole(6);
        for length in 0..=all.len() {
            fs::write(folder.path().join(LOG), &all[..length]).unwrap();
            let before = reader.entries().len();
            let changed = reader.update(folder.path()).unwrap();
            let lines = all[..length].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!((reader.entries().len(), changed), (lines, lines > before));
        }
        let mut log = Log::open(folder.path(), 2).unwrap();
        let later = |hours: f64| {
            move |step| {
                let written = entry(step);
                Entry { phase: "other".to_owned(), wall_time: written.wall_time + hours * 3600.0, ..written }
            }
        };
        let other = later(1.0);
        log.append(&other(3)).unwrap();
        assert!(reader.update(folder.path()).unwrap());
        assert_eq!(reader.entries(), read_log(folder.path()).unwrap());
        // Back, and beyond where it was, between two looks.
        for (hours, steps) in [(2.0, 9), (3.0, 9), (4.0, 6)] {
            let mut log = Log::open(folder.path(), 1).unwrap();
            (2..steps).for_each(|step| log.append(&later(hours)(step)).unwrap());
            assert!(reader.update(folder.path()).unwrap());
            assert_eq!(reader.entries(), read_log(folder.path()).unwrap());
            assert!(!reader.update(folder.path()).unwrap());
        }
        fs::remove_file(folder.path().join(LOG)).unwrap();
        assert!(reader.update(folder.path()).unwrap() && reader.entries().is_empty());
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_a_damaged_one_before_it_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |bytes: &[u8]| fs::write(folder.path().join(LOG), bytes).unwrap();
        let good = whole(3);
        write(&[&good, &b"{\"step\":4,\"pha"[..]].concat());
        assert_eq!(read_log(folder.path()).unwrap().len(), 3);
        write(&[&good, &b"\xff\0\0"[..]].concat());
        assert_eq!(read_log(folder.path()).unwrap().len(), 3);
        write(&[b"{\"step\":", &b"\n"[..], &good].concat());
        for error in [read_log(folder.path()).unwrap_err(), Log::open(folder.path(), 3).unwrap_err()] {
            assert!(error.to_string().starts_with("line 1 of "), "{error:#}");
        }
    }

    #[test]
    fn a_line_that_lacks_only_its_end_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let expected = whole(3);
        fs::write(folder.path().join(LOG), expected.trim_ascii_end()).unwrap();
        let mut log = Log::open(folder.path(), 3).unwrap();
        assert_eq!(fs::read(folder.path().join(LOG)).unwrap(), expected);
        log.append(&entry(4)).unwrap();
        assert_eq!(fs::read(folder.path().join(LOG)).unwrap(), whole(4));
    }

    #[test]
    fn what_is_no_number_reads_as_nan_and_every_other_value_exactly() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 0).unwrap();
        let values: Vec<f64> = (1..2000).map(|i| f64::from(i).sqrt() * 1e-7).collect();
        let names: Vec<String> = (0..values.len()).map(|i| i.to_string()).collect();
        let pairs = names.iter().map(String::as_str).zip(values.iter().copied());
        let entry = Entry::now(1, "s", pairs.chain([("nan", f64::NAN), ("inf", f64::INFINITY)]));
        log.append(&entry).unwrap();
        let read = &read_log(folder.path()).unwrap()[0];
        assert!(read.values["nan"].is_nan() && read.values["inf"].is_nan());
        assert!(names.iter().zip(&values).all(|(name, value)| read.values[name] == *value));
    }

    #[test]
    fn steps_only_grow() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 0).unwrap();
        log.append(&entry(2)).unwrap();
        assert!(log.append(&entry(2)).unwrap_err().to_string().contains("step 2 is already there"));
        assert_eq!(read_log(folder.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_missing_log_is_named() {
        let error = read_log(Path::new("/no/such/run")).unwrap_err();
        assert!(error.to_string().contains("/no/such/run/log.jsonl"));
    }
}
