//! `cargo xtask weights fetch`: all files of a model, several at a time, each from the first source that has it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use ureq::Agent;

use super::download::{self, Failure, Partial, Request};
use super::local;
use super::lock::{Entry, Lock};
use super::manifest::{Licence, Model, ModelFile};
use super::progress::{FileProgress, Progress, size};
use super::source::Hub;
use crate::workspace;

pub(super) struct Fetch<'a> {
    pub(super) model: &'a Model,
    /// The model's own folder.
    pub(super) dir: PathBuf,
    /// A folder of the same layout that may have the files.
    pub(super) from: Option<PathBuf>,
    /// How many files at a time.
    pub(super) jobs: usize,
    /// Before the second try of a source; each next wait is longer.
    pub(super) wait: Duration,
}

/// What the threads share.
struct Shared {
    hub: Hub,
    agent: Agent,
    progress: Progress,
    lock: Mutex<Lock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many of the files have been taken up.
    taken: usize,
    /// What the sources said, and the files that none of them gave.
    missing: BTreeMap<String, Vec<String>>,
    /// What the first sources said, and the files that a later one gave.
    detours: BTreeMap<String, Vec<String>>,
    /// What stops everything.
    fatal: Option<anyhow::Error>,
}

/// A poisoned mutex means that another thread has panicked, which `thread::scope` will report.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fetch<'_> {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Licence { name, url } = &self.model.licence;
        terminal::say!("{}: {} ({url}). Whoever uses the files is bound by it.", self.model.title, name);
        fs::create_dir_all(&self.dir).with_context(|| format!("the folder {} cannot be made", self.dir.display()))?;
        let shared = Shared {
            hub: Hub::from_env()?,
            agent: download::agent(),
            progress: Progress::new(),
            lock: Mutex::new(Lock::read(&self.dir)?),
            state: Mutex::default(),
        };
        // The largest first, so that none is left to go alone at the end.
        let mut files: Vec<&ModelFile> = self.model.files.iter().collect();
        files.sort_by_key(|file| std::cmp::Reverse(file.size.unwrap_or(0)));
        thread::scope(|scope| {
            for _ in 0..self.jobs.min(files.len()) {
                scope.spawn(|| self.work(&shared, &files));
            }
        });
        let state = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (failures, paths) in &state.detours {
            terminal::note!("{} came after {failures}", paths.join(", "));
        }
        if let Some(error) = state.fatal {
            return Err(error);
        }
        if !state.missing.is_empty() {
            let count: usize = state.missing.values().map(Vec::len).sum();
            let missing = state.missing.iter().map(|(failures, paths)| format!("{} ({failures})", paths.join(", ")));
            let missing = missing.collect::<Vec<_>>().join("; ");
            bail!("{count} of {} files of {} could not be had: {missing}", files.len(), self.model.name);
        }
        terminal::output!("{} is complete in {}", self.model.name, workspace::display(&self.dir));
        Ok(())
    }

    /// Takes up file after file until none is left or something stops everything.
    fn work(&self, shared: &Shared, files: &[&ModelFile]) {
        loop {
            let file = {
                let mut state = locked(&shared.state);
                let next = files.get(state.taken).filter(|_| state.fatal.is_none());
                state.taken += 1;
                match next {
                    Some(file) => *file,
                    None => return,
                }
            };
            if let Err(error) = self.file(shared, file) {
                locked(&shared.state).fatal.get_or_insert(error);
            }
        }
    }

    /// One file, from wherever it can be had; an error is one that would meet every other file too.
    fn file(&self, shared: &Shared, file: &ModelFile) -> anyhow::Result<()> {
        let target = self.dir.join(&file.path);
        let recorded = locked(&shared.lock).get(&file.path).cloned();
        let known = file.sha256.as_deref();
        if target.is_file() {
            match local::check(&target, file, known.or(recorded.as_ref().map(|entry| &*entry.sha256))) {
                Ok(_) if recorded.is_some() => return Ok(()),
                Ok(sha256) => return self.enter(shared, file, sha256, "was there"),
                Err(reason) => shared.progress.say(&format!("{}: {reason:#}; fetching it again", file.path)),
            }
        }
        let parent = target.parent().unwrap_or(&self.dir);
        fs::create_dir_all(parent).with_context(|| format!("the folder {} cannot be made", parent.display()))?;
        let mut failures = Vec::new();
        for candidate in self.candidates(shared, file) {
            match local::check(&candidate, file, known) {
                Ok(sha256) => {
                    let how = local::place(&candidate, &target)?;
                    shared.progress.say(&format!("{}: {how} from {}", file.path, candidate.display()));
                    return self.enter(shared, file, sha256, &candidate.display().to_string());
                }
                Err(reason) => failures.push(format!("{reason:#}")),
            }
        }
        if shared.hub.offline {
            failures.push("HF_HUB_OFFLINE forbids the network, and no folder or cache here has it".to_owned());
        } else if self.ask_sources(shared, file, &target, &mut failures)? {
            if !failures.is_empty() {
                let mut state = locked(&shared.state);
                state.detours.entry(failures.join(", ")).or_default().push(file.path.clone());
            }
            return Ok(());
        }
        locked(&shared.state).missing.entry(failures.join(", ")).or_default().push(file.path.clone());
        Ok(())
    }

    /// Where on this machine the file may be.
    fn candidates(&self, shared: &Shared, file: &ModelFile) -> Vec<PathBuf> {
        let given = self.from.iter().map(|folder| folder.join(&file.path)).filter(|path| path.is_file());
        let sources = self.model.sources_of(file).iter();
        given.chain(sources.flat_map(|source| shared.hub.cached(source, &file.path, file.sha256.is_some()))).collect()
    }

    /// Whether one of the sources gave the file; those that did not are named in `failures`.
    fn ask_sources(
        &self,
        shared: &Shared,
        file: &ModelFile,
        target: &Path,
        failures: &mut Vec<String>,
    ) -> anyhow::Result<bool> {
        let mut partial = Partial::open(target)?;
        let progress = shared.progress.file(&file.path, file.size);
        for source in self.model.sources_of(file) {
            let address = shared.hub.address(source, &file.path);
            let request = Request {
                address: &address,
                token: shared.hub.token_for(source),
                size: file.size,
                hash_is_known: file.sha256.is_some(),
            };
            match self.ask_source(shared, &request, file, &mut partial, &progress) {
                Ok(sha256) => {
                    let length = partial.len()?;
                    partial.finish(target).with_context(|| format!("{} cannot be made", target.display()))?;
                    let note =
                        if file.sha256.is_some() { String::new() } else { format!(", sha256 {sha256} recorded") };
                    progress.say(&format!("{} from {source}{note}", size(length)));
                    self.enter(shared, file, sha256, &address)?;
                    return Ok(true);
                }
                Err(Failure::Source(reason)) => {
                    progress.say(&format!("{source}: {reason}"));
                    failures.push(format!("{source}: {reason}"));
                }
                Err(Failure::Here(error)) => return Err(error),
            }
        }
        if partial.len()? == 0 {
            let _ = fs::remove_file(&partial.path);
        }
        Ok(false)
    }

    fn enter(&self, shared: &Shared, file: &ModelFile, sha256: String, source: &str) -> anyhow::Result<()> {
        let size = fs::metadata(self.dir.join(&file.path))?.len();
        locked(&shared.lock).enter(&file.path, Entry { size, sha256, source: source.to_owned() })
    }

    /// Downloads and checks; returns the hash.
    fn ask_source(
        &self,
        shared: &Shared,
        request: &Request<'_>,
        file: &ModelFile,
        partial: &mut Partial,
        progress: &FileProgress<'_>,
    ) -> Result<String, Failure> {
        loop {
            let continued = partial.len()? > 0;
            download::download(&shared.agent, request, partial, progress, self.wait)?;
            match local::check(&partial.path, file, file.sha256.as_deref()) {
                Ok(sha256) => return Ok(sha256),
                Err(reason) => {
                    partial.clear()?;
                    // What was there before may have been the bad part: the source is owed a fresh start.
                    if !continued {
                        return Err(Failure::Source(format!("{reason:#}")));
                    }
                    progress.say("what an earlier fetch left was damaged; starting over");
                }
            }
        }
    }
}
