//! All files of a model, several at a time, each from the first source that has it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ureq::Agent;

use crate::environment::Environment;
use crate::manifest::{Model, ModelFile};
use crate::progress::{OnProgress, Progress, Reporter, size};
use crate::record::{self, Entry, Record};
use crate::transfer::{self, Failure, Partial, Request};

/// How to download.
#[derive(Debug, Clone)]
pub struct Options {
    /// A folder laid out as the model's own that may have the files already.
    pub from: Option<PathBuf>,
    /// How many files at a time.
    pub jobs: usize,
    /// The wait before a source is asked again; each next wait is four times as long.
    pub wait: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { from: None, jobs: 4, wait: Duration::from_millis(500) }
    }
}

/// A download of `model` into the folder `dir`.
struct Download<'a> {
    model: &'a Model,
    dir: &'a Path,
    environment: &'a Environment,
    options: &'a Options,
    agent: Agent,
    record: Mutex<Record>,
    state: Mutex<State>,
    stopped: AtomicBool,
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

/// Downloads what is missing or wrong in `dir` of the files of `model`.
pub(crate) fn download(
    model: &Model,
    dir: &Path,
    environment: &Environment,
    options: &Options,
    on_progress: &mut OnProgress<'_>,
) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("the folder {} cannot be created", dir.display()))?;
    let record = Mutex::new(Record::read(dir)?);
    let (agent, state, stopped) = (transfer::agent(), Mutex::default(), AtomicBool::new(false));
    let download = Download { model, dir, environment, options, agent, record, state, stopped };
    // The largest first, so that none is left to come alone at the end.
    let mut files: Vec<&ModelFile> = model.files.iter().collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.size.unwrap_or(0)));
    thread::scope(|scope| {
        let (sender, events) = mpsc::channel();
        for _ in 0..options.jobs.clamp(1, files.len().max(1)) {
            let (sender, download, files) = (sender.clone(), &download, &files);
            scope.spawn(move || download.work(files, &sender));
        }
        drop(sender);
        for event in events {
            if on_progress(event).is_break() {
                download.stopped.store(true, Ordering::Relaxed);
            }
        }
    });
    let state = download.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (failures, paths) in &state.detours {
        // Whether to stop is no question any more.
        let _ = on_progress(Progress::Note { text: format!("{} came after {failures}", paths.join(", ")) });
    }
    if let Some(error) = state.fatal {
        return Err(error);
    }
    if !state.missing.is_empty() {
        let count: usize = state.missing.values().map(Vec::len).sum();
        let missing = state.missing.iter().map(|(failures, paths)| format!("{} ({failures})", paths.join(", ")));
        let missing = missing.collect::<Vec<_>>().join("; ");
        bail!("{count} of {} files of {} could not be downloaded: {missing}", files.len(), model.name);
    }
    Ok(())
}

impl Download<'_> {
    /// Takes up file after file until none is left or something stops everything.
    fn work(&self, files: &[&ModelFile], events: &Sender<Progress>) {
        loop {
            let file = {
                let mut state = locked(&self.state);
                let next = files.get(state.taken).filter(|_| state.fatal.is_none());
                state.taken += 1;
                match next {
                    Some(file) => *file,
                    None => return,
                }
            };
            let reporter = Reporter { file: &file.path, events: events.clone(), stopped: &self.stopped };
            if let Err(error) = reporter.check().map_err(Into::into).and_then(|()| self.obtain(file, &reporter)) {
                locked(&self.state).fatal.get_or_insert(error);
            }
        }
    }

    /// One file, from wherever it is offered; an error is one that would meet every other file too.
    fn obtain(&self, file: &ModelFile, reporter: &Reporter<'_>) -> Result<()> {
        let target = self.dir.join(&file.path);
        let recorded = locked(&self.record).files.get(&file.path).cloned();
        let known = file.sha256.as_deref();
        if target.is_file() {
            match record::check(&target, file, known.or(recorded.as_ref().map(|entry| &*entry.sha256))) {
                Ok(_) if recorded.is_some() => return Ok(()),
                Ok(sha256) => return self.enter(file, sha256, "was there"),
                Err(reason) => reporter.say(format!("{reason:#}; downloading it again")),
            }
        }
        let parent = target.parent().unwrap_or(self.dir);
        fs::create_dir_all(parent).with_context(|| format!("the folder {} cannot be created", parent.display()))?;
        let mut failures = Vec::new();
        for candidate in self.candidates(file) {
            match record::check(&candidate, file, known) {
                Ok(sha256) => {
                    let how = record::place(&candidate, &target)?;
                    reporter.say(format!("{how} from {}", candidate.display()));
                    return self.enter(file, sha256, &candidate.display().to_string());
                }
                Err(reason) => failures.push(format!("{reason:#}")),
            }
        }
        let came = if self.environment.offline {
            failures.push("HF_HUB_OFFLINE forbids the network, and no folder or cache here has it".to_owned());
            false
        } else {
            self.ask_sources(file, &target, reporter, &mut failures)?
        };
        if !failures.is_empty() {
            let mut state = locked(&self.state);
            let of = if came { &mut state.detours } else { &mut state.missing };
            of.entry(failures.join(", ")).or_default().push(file.path.clone());
        }
        Ok(())
    }

    /// Where on this machine the file may be. In the cache of another revision only a known hash can make it acceptable.
    fn candidates(&self, file: &ModelFile) -> Vec<PathBuf> {
        let revisions = if file.sha256.is_some() { usize::MAX } else { 1 };
        let cached = |source| self.environment.snapshots(source).into_iter().take(revisions);
        let folders = self.options.from.iter().cloned().chain(self.model.sources_of(file).iter().flat_map(cached));
        folders.map(|folder| folder.join(&file.path)).filter(|path| path.is_file()).collect()
    }

    /// Whether one of the sources gave the file; those that did not are named in `failures`.
    fn ask_sources(
        &self,
        file: &ModelFile,
        target: &Path,
        reporter: &Reporter<'_>,
        failures: &mut Vec<String>,
    ) -> Result<bool> {
        let known = file.sha256.as_deref();
        let mut partial = Partial::open(target)?;
        for source in self.model.sources_of(file) {
            let address = self.environment.address(source, &file.path);
            let request = Request {
                address: &address,
                token: self.environment.token_for(source),
                size: file.size,
                hash_is_known: known.is_some(),
                wait: self.options.wait,
            };
            match self.ask_source(&request, file, &mut partial, reporter) {
                Ok(sha256) => {
                    let length = partial.len()?;
                    partial.finish(target).with_context(|| format!("{} cannot be written", target.display()))?;
                    let note = if known.is_some() { String::new() } else { format!(", sha256 {sha256} recorded") };
                    reporter.say(format!("{} from {source}{note}", size(length)));
                    self.enter(file, sha256, &address)?;
                    return Ok(true);
                }
                Err(Failure::Source(reason)) => {
                    reporter.say(format!("{source}: {reason}"));
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

    /// Transfers and checks; returns the hash.
    fn ask_source(
        &self,
        request: &Request<'_>,
        file: &ModelFile,
        partial: &mut Partial,
        reporter: &Reporter<'_>,
    ) -> Result<String, Failure> {
        loop {
            let resumed = partial.len()? > 0;
            transfer::transfer(&self.agent, request, partial, reporter)?;
            match record::check(&partial.path, file, file.sha256.as_deref()) {
                Ok(sha256) => return Ok(sha256),
                Err(reason) => {
                    partial.clear()?;
                    // What was there before may have been the bad part: the source is owed a fresh start.
                    if !resumed {
                        return Err(Failure::Source(format!("{reason:#}")));
                    }
                    reporter.say("what an earlier download left was damaged; starting over");
                }
            }
        }
    }

    fn enter(&self, file: &ModelFile, sha256: String, source: &str) -> Result<()> {
        let size = fs::metadata(self.dir.join(&file.path))?.len();
        locked(&self.record).enter(&file.path, Entry { size, sha256, source: source.to_owned() })
    }
}
