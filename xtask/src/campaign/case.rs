//! One case: its folder, its chance, and what must hold in the end.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::chance::Chance;
use super::child::{self, Ended, Running};
use super::prepared::{Prepared, Work, copy, remove};
use super::tally::Kind;
use super::tally::Verdict;

pub(super) struct Case<'a> {
    pub(super) prepared: &'a Prepared,
    kind: Kind,
    seed: u64,
    chance: RefCell<Chance>,
    /// Processes so far.
    runs: Cell<usize>,
    /// What was done, for the record of a failure.
    lines: RefCell<Vec<String>>,
}

impl<'a> Case<'a> {
    /// A fresh copy of the template.
    pub(super) fn new(prepared: &'a Prepared, kind: Kind, seed: u64) -> anyhow::Result<Self> {
        remove(&prepared.place())?;
        copy(&prepared.template(), &prepared.place())?;
        // Kinds differ under one seed.
        let chance = RefCell::new(Chance::new(Chance::new(seed).next() ^ kind as u64));
        Ok(Self { prepared, kind, seed, chance, runs: Cell::new(0), lines: RefCell::default() })
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.prepared.place()
    }

    /// Does something with the case's chance.
    pub(super) fn chance<T>(&self, with: impl FnOnce(&mut Chance) -> T) -> T {
        with(&mut self.chance.borrow_mut())
    }

    /// Remembers what was done.
    pub(super) fn note(&self, line: impl Into<String>) {
        self.lines.borrow_mut().push(line.into());
    }

    pub(super) fn start(&self, mut command: Command) -> anyhow::Result<Running> {
        self.runs.set(self.runs.get() + 1);
        self.note(format!("{command:?}"));
        let said = self.folder().join(format!("stderr-{}.txt", self.runs.get()));
        Running::start(&mut command, &said).with_context(|| format!("cannot start {command:?}"))
    }

    pub(super) fn run(&self, command: Command) -> anyhow::Result<Ended> {
        Ok(self.start(command)?.end()?)
    }

    /// Calls an interrupted `work` again: it must succeed, with what an uninterrupted one makes. What is wrong, if
    /// anything.
    pub(super) fn again(&self, work: &Work) -> anyhow::Result<Option<String>> {
        if let Some(half) = half_written(&self.folder())? {
            return Ok(Some(half));
        }
        let out = self.folder().join("out");
        // These make a new file or folder, in one moment, and refuse one that is there.
        if work.name == "export" && out.exists() {
            return Ok(self.difference(work)?.map(|what| format!("not whole: {what}")));
        }
        let ended = self.run(self.prepared.command(&self.prepared.arguments(work, true)))?;
        if ended.ending != child::Ending::Code(0) {
            let last = ended.said.lines().last().unwrap_or_default();
            return Ok(Some(format!("called again, it ended with {:?}: {last}", ended.ending)));
        }
        Ok(self.difference(work)?.map(|what| format!("called again, it wrote another {what}")))
    }

    /// How the output of `work` differs from the expected one.
    pub(super) fn compared(&self, work: &Work) -> anyhow::Result<Option<String>> {
        Ok(self.difference(work)?.map(|what| format!("it wrote another {what}")))
    }

    fn difference(&self, work: &Work) -> anyhow::Result<Option<String>> {
        let (expected, found) = (self.prepared.result(work), self.folder().join("out"));
        // Called again, it makes all of its images again and numbers them on.
        if work.name == "generate" { missing(&expected, &found) } else { difference(&expected, &found) }
    }

    /// Moves the folder to the failures.
    pub(super) fn keep(&self, verdict: &Verdict) -> anyhow::Result<PathBuf> {
        let name = format!("{:?}-{}", self.kind, self.seed).to_lowercase();
        let kept = self.prepared.failures().join(name);
        fs::create_dir_all(self.prepared.failures())?;
        remove(&kept)?;
        let mut text = format!("{}: {}\n", verdict.what, verdict.wrong.as_deref().unwrap_or_default());
        for line in self.lines.borrow().iter() {
            text.push_str(line);
            text.push('\n');
        }
        fs::write(self.folder().join("case.txt"), text)?;
        fs::rename(self.folder(), &kept).with_context(|| format!("cannot keep {}", kept.display()))?;
        Ok(kept)
    }
}

/// How the name of what is not complete yet begins.
const PARTIAL: &str = ".partial-";

/// All files below `folder` but those that are not complete yet by their names.
fn files(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if folder.is_file() {
        found.push(folder.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let hidden = entry.file_name().to_string_lossy().starts_with(PARTIAL);
        if !hidden {
            files(&entry.path(), found)?;
        }
    }
    Ok(())
}

/// A file that has its final name but not all its bytes.
pub(super) fn half_written(folder: &Path) -> anyhow::Result<Option<String>> {
    let out = folder.join("out");
    let mut found = Vec::new();
    if out.exists() {
        files(&out, &mut found)?;
    }
    for path in found {
        let bytes = fs::read(&path)?;
        let whole = match path.extension().and_then(|extension| extension.to_str()) {
            Some("png") => bytes.ends_with(b"IEND\xae\x42\x60\x82"),
            Some("json") => serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok(),
            Some("safetensors") => safetensors_length(&bytes) == Some(bytes.len() as u64),
            Some("html") => bytes.ends_with(b"</html>\n"),
            _ => true,
        };
        if !whole {
            return Ok(Some(format!("{} is half-written", path.display())));
        }
    }
    Ok(None)
}

/// The length that a safetensors file must have by its header.
fn safetensors_length(bytes: &[u8]) -> Option<u64> {
    let header = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let json: serde_json::Value = serde_json::from_slice(bytes.get(8..8 + usize::try_from(header).ok()?)?).ok()?;
    let ends = json.as_object()?.values().filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    Some(8 + header + ends.max().unwrap_or(0))
}

/// The first image or tensor file of `expected` that `found` lacks, or has with other bytes.
fn difference(expected: &Path, found: &Path) -> anyhow::Result<Option<String>> {
    if !expected.exists() {
        return Ok(None);
    }
    let mut paths = Vec::new();
    files(expected, &mut paths)?;
    for path in paths {
        let inner = path.strip_prefix(expected)?;
        let compared = path.extension().is_some_and(|extension| extension == "png" || extension == "safetensors");
        // Of a single file, the path within itself is empty.
        let other = if inner.as_os_str().is_empty() { found.to_owned() } else { found.join(inner) };
        if compared && fs::read(&other).ok() != Some(fs::read(&path)?) {
            return Ok(Some(inner.display().to_string()));
        }
    }
    Ok(None)
}

/// The first image of `expected` that `found` has under no name.
fn missing(expected: &Path, found: &Path) -> anyhow::Result<Option<String>> {
    let images = |folder: &Path| -> anyhow::Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut paths = Vec::new();
        if folder.exists() {
            files(folder, &mut paths)?;
        }
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "png"));
        paths.into_iter().map(|path| Ok((path.clone(), fs::read(path)?))).collect()
    };
    let found = images(found)?;
    let absent = images(expected)?.into_iter().find(|(_, bytes)| !found.iter().any(|(_, other)| other == bytes));
    Ok(absent.map(|(path, _)| path.strip_prefix(expected).unwrap_or(&path).display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_file_is_seen_and_a_hidden_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::write(out.join(".partial-abc"), "half").unwrap();
        fs::write(out.join("a.json"), "{}").unwrap();
        assert_eq!(half_written(folder.path()).unwrap(), None);
        let header = br#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.extend([1, 2, 3]);
        fs::write(out.join("a.safetensors"), &file).unwrap();
        assert_eq!(half_written(folder.path()).unwrap(), None);
        for (name, bytes) in [("a.json", b"{".as_slice()), ("b.png", b"\x89PNG"), ("a.safetensors", &file[..60])] {
            let before = fs::read(out.join(name)).ok();
            fs::write(out.join(name), bytes).unwrap();
            assert!(half_written(folder.path()).unwrap().is_some_and(|half| half.contains(name)), "{name}");
            match before {
                Some(before) => fs::write(out.join(name), before).unwrap(),
                None => fs::remove_file(out.join(name)).unwrap(),
            }
        }
    }

    #[test]
    fn other_bytes_are_a_difference() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        for (folder, pixel) in [(&a, "1"), (&b, "1")] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("x.png"), pixel).unwrap();
            fs::write(folder.join("times.json"), folder.display().to_string()).unwrap();
        }
        assert_eq!(difference(&a, &b).unwrap(), None);
        fs::write(b.join("x.png"), "2").unwrap();
        assert_eq!(difference(&a, &b).unwrap(), Some("x.png".to_owned()));
        fs::remove_file(b.join("x.png")).unwrap();
        assert_eq!(difference(&a, &b).unwrap(), Some("x.png".to_owned()));
    }
}
