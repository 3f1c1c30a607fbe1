//! The log once more, for TensorBoard, in its file format: protobuf messages (tensorflow/core/util/event.proto and
//! framework/summary.proto), each framed as a TFRecord with masked CRC-32C checksums
//! (tensorflow/core/lib/io/record_writer.h).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::Entry;
use crate::log::now;

const PREFIX: &str = "events.out.tfevents.";
/// What the first event of every file says.
const FILE_VERSION: &str = "brain.Event:2";

/// Scalars over steps in a TensorBoard event file: `tensorboard --logdir` of the folder, or of one above, shows them.
///
/// Steps are those of the whole run: when it is resumed, a new file says from which step on older files are void.
#[derive(Debug)]
pub struct Scalars {
    path: PathBuf,
    file: File,
}

impl Scalars {
    /// Starts an event file in a run's folder after `steps` steps, none for a new run.
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

    /// Adds an entry's values under the tags `phase/name`.
    ///
    /// # Errors
    /// As [`Scalars::add`].
    pub fn append(&mut self, entry: &Entry) -> Result<()> {
        for (name, value) in &entry.values {
            self.add(&format!("{}/{name}", entry.phase), entry.step, *value, entry.wall_time)?;
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

/// One `Event`: when, at which step, and what.
struct Event<'a> {
    wall_time: f64,
    step: u64,
    what: What<'a>,
}

/// The kinds of event that are used here.
enum What<'a> {
    FileVersion,
    /// From here on, what was read of this and later steps is void.
    SessionStart,
    Scalar {
        tag: &'a str,
        value: f32,
    },
}

impl Event<'_> {
    /// The event as a record, ready to be appended to a file.
    fn record(&self) -> Vec<u8> {
        let data = self.message();
        let length = (data.len() as u64).to_le_bytes();
        let checksums = [&length[..], &data].map(|bytes| masked_crc32c(bytes).to_le_bytes());
        [&length[..], &checksums[0], &data, &checksums[1]].concat()
    }

    fn message(&self) -> Vec<u8> {
        let mut event = Message::default();
        // A field with its default value is not written, unless it is one of several alternatives.
        if self.wall_time != 0.0 {
            event.fixed(1, self.wall_time.to_le_bytes());
        }
        if self.step != 0 {
            event.varint(2, self.step);
        }
        match self.what {
            What::FileVersion => event.bytes(3, FILE_VERSION.as_bytes()),
            What::Scalar { tag, value } => {
                let mut scalar = Message::default();
                scalar.bytes(1, tag.as_bytes());
                scalar.fixed(2, value.to_le_bytes());
                let mut summary = Message::default();
                summary.bytes(1, &scalar.0);
                event.bytes(5, &summary.0);
            }
            What::SessionStart => {
                let mut session_log = Message::default();
                session_log.varint(1, 1);
                event.bytes(7, &session_log.0);
            }
        }
        event.0
    }
}

/// A protobuf message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, wire_type: u64) {
        self.raw_varint(field << 3 | wire_type);
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.raw_varint(value);
    }

    /// A `double` of 8 bytes or a `float` of 4.
    fn fixed<const N: usize>(&mut self, field: u64, bytes: [u8; N]) {
        const { assert!(N == 4 || N == 8) };
        self.key(field, if N == 8 { 1 } else { 5 });
        self.0.extend(bytes);
    }

    /// A text, or a message within this one.
    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, 2);
        self.raw_varint(bytes.len() as u64);
        self.0.extend(bytes);
    }
}

/// Rotated and shifted, so that a checksum within data that has checksums of its own is no special value.
fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
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
    fn an_entry_is_written_under_its_phase() {
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

    #[test]
    fn events_are_byte_for_byte_what_tensorboard_writes() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/runs/golden.tfevents");
        let long = "long ".repeat(60);
        let scalar = |wall_time, step, tag, value| Event { wall_time, step, what: What::Scalar { tag, value } };
        let events = [
            Event { wall_time: 1_700_000_000.25, step: 0, what: What::FileVersion },
            Event { wall_time: 1_700_000_000.5, step: 61, what: What::SessionStart },
            scalar(1_700_000_001.0, 0, "loss", 0.1),
            scalar(1_700_000_002.125, 127, "stage/diffusion_loss", 0.0),
            scalar(1_700_000_003.0, 128, "stage/diffusion_loss", -1.5e-7),
            scalar(0.0, 300, "wörter/損失", f32::NAN),
            scalar(1_700_000_004.0, 1 << 40, "a", f32::INFINITY),
            scalar(1_700_000_004.0, i64::MAX as u64, &long, f32::MAX),
        ];
        let written: Vec<u8> = events.iter().flat_map(Event::record).collect();
        assert_eq!(written, std::fs::read(golden).unwrap());
    }
}
