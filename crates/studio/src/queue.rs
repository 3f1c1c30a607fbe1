//! The queue: which job is done next, what runs, and what its user wants of it.
//!
//! A training gives way to a shorter job: SIGTERM makes it save a checkpoint after its step and end, and it is resumed, exactly, when the
//! other is done.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::{Signal, pidfd_send_signal};
use serde_json::Value;
use tokio::sync::watch;

use crate::jobs::{Job, Jobs, Kind, Progress, State};
use crate::name::Name;
use crate::process::Ended;

/// The program's exit code when it was interrupted, and may be called again.
pub(crate) const INTERRUPTED: i32 = 75;
/// Notes of a job that are kept.
const NOTES: usize = 20;

/// Why a job's process is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    /// To go on when the device is free again.
    Yield,
    /// To go on when its user says so.
    Pause,
    /// To leave the queue.
    Stop,
}

/// A job that is being done.
#[derive(Debug, Default)]
struct Running {
    /// None before the process has started.
    process: Option<OwnedFd>,
    intent: Option<Intent>,
}

impl Running {
    fn end(&mut self, intent: Intent) {
        let first = self.intent.is_none();
        // Who pauses or stops what is giving way wants it to stay so. A second signal would end it without a checkpoint.
        if first || self.intent == Some(Intent::Yield) {
            self.intent = Some(intent);
        }
        if first && let Some(process) = &self.process {
            // It may have ended by itself.
            let _ = pidfd_send_signal(process, Signal::TERM);
        }
    }

    fn started(&mut self, process: OwnedFd) {
        if self.intent.is_some() {
            let _ = pidfd_send_signal(&process, Signal::TERM);
        }
        self.process = Some(process);
    }
}

struct Inner {
    jobs: Jobs,
    running: HashMap<u64, Running>,
    /// Devices that wait for a job, and those of them that keep a model.
    idle: usize,
    keeping: usize,
    stopping: bool,
}

/// What a device is to do.
#[derive(Debug)]
pub(crate) enum Taken {
    Job(Box<Job>),
    /// There was no job in time.
    Nothing,
    /// The studio stops.
    End,
}

/// The jobs, those that wait and those that run.
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
    changes: watch::Sender<u64>,
}

impl Queue {
    pub(crate) fn new(jobs: Jobs) -> Self {
        let inner = Inner { jobs, running: HashMap::new(), idle: 0, keeping: 0, stopping: false };
        Self { inner: Mutex::new(inner), wake: Condvar::new(), changes: watch::Sender::new(0) }
    }

    /// Looks at the jobs.
    pub(crate) fn jobs<T>(&self, look: impl FnOnce(&Jobs) -> T) -> T {
        look(&self.lock().jobs)
    }

    /// A number that changes whenever a job does.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Adds a job; a training gives way to any other kind.
    ///
    /// # Errors
    /// When the queue cannot be saved.
    pub(crate) fn add(&self, job: Job) -> Result<u64> {
        let mut inner = self.lock();
        let kind = job.kind;
        let id = inner.jobs.add(job)?;
        if kind != Kind::Train && inner.idle == 0 {
            inner.make_room();
        }
        self.changed();
        Ok(id)
    }

    /// Adds the training of a new run, of which there may be one.
    ///
    /// # Errors
    /// When another has the name, or the queue cannot be saved.
    pub(crate) fn add_training(&self, job: Job) -> Result<u64> {
        let mut inner = self.lock();
        if let Some(run) = job.run.as_ref().filter(|run| inner.jobs.training(run).is_some()) {
            bail!("a run called {:?} is in the queue already; choose another name", run.as_str());
        }
        let id = inner.jobs.add(job)?;
        drop(inner);
        self.changed();
        Ok(id)
    }

    /// Puts the training of a run into the queue, which is on the disk already.
    ///
    /// # Errors
    /// As [`Queue::add`].
    pub(crate) fn resume(&self, run: &Name) -> Result<()> {
        let mut inner = self.lock();
        match inner.jobs.training(run).map(|job| (job.id, job.state)) {
            Some((id, State::Paused)) => inner.jobs.update(id, |job| {
                job.state = State::Waiting;
                job.said.clear();
            })?,
            Some(_) => {}
            None => {
                inner.jobs.add(Job::new(Kind::Train, format!("Train {run}"), Some(run.clone()), Vec::new()))?;
            }
        }
        self.changed();
        Ok(())
    }

    /// Pauses or stops a job, whether its process has started or not.
    ///
    /// # Errors
    /// When there is no such job, or the queue cannot be saved.
    pub(crate) fn end(&self, id: u64, intent: Intent) -> Result<()> {
        let mut inner = self.lock();
        let Some(state) = inner.jobs.get(id).map(|job| job.state) else { bail!("this job is over already") };
        match inner.running.get_mut(&id) {
            Some(running) => running.end(intent),
            None if state.is_over() => {}
            None if intent == Intent::Pause => inner.jobs.update(id, |job| job.state = State::Paused)?,
            None => inner.jobs.remove(id)?,
        }
        self.changed();
        Ok(())
    }

    /// Takes a job that is over out of the list.
    ///
    /// # Errors
    /// When the list cannot be saved.
    pub(crate) fn dismiss(&self, id: u64) -> Result<()> {
        let mut inner = self.lock();
        if inner.jobs.get(id).is_some_and(|job| job.state.is_over()) {
            inner.jobs.remove(id)?;
        }
        drop(inner);
        self.changed();
        Ok(())
    }

    /// Moves a waiting training forward by one place.
    ///
    /// # Errors
    /// When the queue cannot be saved.
    pub(crate) fn advance(&self, id: u64) -> Result<()> {
        let moved = self.lock().jobs.advance(id);
        self.changed();
        moved
    }

    /// Does something that no job is to see half done, if no job is about it.
    ///
    /// # Errors
    /// When a job is about it, or what was done says so.
    pub(crate) fn without_jobs<T>(
        &self,
        is_about: impl Fn(&Job) -> bool,
        act: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let inner = self.lock();
        let job = inner.jobs.all().iter().find(|job| !job.state.is_over() && is_about(job));
        if let Some(job) = job {
            bail!("{:?} is in the queue: stop it first", job.title);
        }
        act()
    }

    /// Takes all jobs of a run that are over out of the list.
    ///
    /// # Errors
    /// When the list cannot be saved.
    pub(crate) fn forget(&self, run: &Name) -> Result<()> {
        let forgotten = self.lock().jobs.forget(run);
        self.changed();
        forgotten
    }

    /// Asks all processes to end, trainings with a checkpoint; the queue stays as it is.
    pub(crate) fn stop(&self) {
        let mut inner = self.lock();
        inner.stopping = true;
        inner.running.values_mut().for_each(|running| running.end(Intent::Yield));
        drop(inner);
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|number| *number += 1);
        self.wake.notify_all();
    }

    /// Waits for a job, until the studio stops, or until the time that a device keeps a model for. A device that keeps one is the first to
    /// be given images.
    pub(crate) fn take(&self, kept_until: Option<Instant>) -> Taken {
        let mut inner = self.lock();
        let keeps = kept_until.is_some();
        inner.idle += 1;
        inner.keeping += usize::from(keeps);
        let taken = loop {
            if inner.stopping {
                break Taken::End;
            }
            let mut wait = kept_until.map(|until| until.saturating_duration_since(Instant::now()));
            let is_for_this = |job: &&Job| keeps || inner.keeping == 0 || job.kind != Kind::Generate;
            if let Some(job) = inner.jobs.next().filter(is_for_this).cloned() {
                if inner.jobs.update(job.id, |job| job.state = State::Running).is_ok() {
                    break Taken::Job(Box::new(job));
                }
                // The disk is full: it is tried again at the next change, or after a while.
                wait = Some(Duration::from_secs(5));
            } else if wait == Some(Duration::ZERO) {
                break Taken::Nothing;
            }
            inner = match wait {
                Some(wait) => self.wake.wait_timeout(inner, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        };
        inner.idle -= 1;
        inner.keeping -= usize::from(keeps);
        if let Taken::Job(job) = &taken {
            inner.running.insert(job.id, Running::default());
            drop(inner);
            self.changed();
        }
        taken
    }

    /// The process of a running job, by which it can be asked to end.
    pub(crate) fn started(&self, id: u64, process: OwnedFd) {
        if let Some(running) = self.lock().running.get_mut(&id) {
            running.started(process);
        }
    }

    /// Forgets the process of a running job, which has not been this job's own.
    pub(crate) fn ended(&self, id: u64) {
        if let Some(running) = self.lock().running.get_mut(&id) {
            running.process = None;
        }
    }

    /// Whether a running job has a process, and what is wanted of it.
    pub(crate) fn running(&self, id: u64) -> (bool, Option<Intent>) {
        self.lock().running.get(&id).map_or((false, None), |running| (running.process.is_some(), running.intent))
    }

    /// Writes down how a job has ended.
    pub(crate) fn settle(&self, job: &Job, ended: Ended) {
        let mut inner = self.lock();
        let intent = inner.running.remove(&job.id).and_then(|running| running.intent);
        let stopping = inner.stopping;
        let Ended { code, said, result } = ended;
        let training = job.kind == Kind::Train;
        let state = match (code, intent) {
            (0, _) => Some(State::Done),
            (_, Some(Intent::Stop)) => None,
            (_, Some(Intent::Yield)) if training => Some(State::Waiting),
            (_, Some(Intent::Pause)) if training => Some(State::Paused),
            // Somebody else has interrupted it.
            (INTERRUPTED, None) if training => Some(State::Paused),
            _ => Some(State::Failed),
        };
        let settle = |job: &mut Job| {
            (job.result, job.progress, job.preview) = (result, None, None);
            job.state = state.unwrap_or(State::Failed);
            job.said = match job.state {
                State::Failed if stopping => "interrupted, as the studio ended; what was finished is kept".to_owned(),
                State::Failed | State::Paused => said,
                _ => String::new(),
            };
        };
        let settled = match state {
            Some(_) => inner.jobs.update(job.id, settle),
            None => inner.jobs.remove(job.id),
        };
        if let Err(error) = settled {
            // On a full disk: it is true all the same, and is written with the next change.
            inner.jobs.show(job.id, |job| {
                job.state = state.unwrap_or(State::Failed);
                job.said = format!("{error:#}");
            });
        }
        drop(inner);
        self.changed();
    }

    /// What a process tells on its way.
    pub(crate) fn show(&self, id: u64, event: &Value) {
        let number = |key: &str| event[key].as_u64().unwrap_or_default();
        let change = |job: &mut Job| match event["event"].as_str() {
            Some("progress") => {
                let (done, total) = (number("done"), number("total"));
                job.progress = Some(Progress { task: text(event, "task"), done, total });
            }
            Some("phase") => {
                let task = format!("phase {} of {}, {}", number("number"), number("phases"), text(event, "phase"));
                let (done, total) = (number("done"), number("steps"));
                job.progress = Some(Progress { task: task.replace('_', " "), done, total });
            }
            Some("step") => {
                if let Some(progress) = &mut job.progress {
                    progress.done = number("step");
                }
            }
            Some("note") if job.notes.len() < NOTES => {
                let note = text(event, "text");
                if !job.notes.contains(&note) {
                    job.notes.push(note);
                }
            }
            Some("preview") => job.preview = Some(text(event, "jpeg").into()),
            Some("image") => job.images.push(text(event, "path").into()),
            _ => {}
        };
        self.lock().jobs.show(id, change);
        self.changes.send_modify(|number| *number += 1);
    }
}

impl Inner {
    /// Has one training give way, if none does so already.
    fn make_room(&mut self) {
        let training = |jobs: &Jobs, id: &u64| jobs.get(*id).is_some_and(|job| job.kind == Kind::Train);
        let Self { jobs, running, .. } = self;
        if running.iter().any(|(id, running)| running.intent.is_some() && training(jobs, id)) {
            return;
        }
        if let Some((_, running)) = running.iter_mut().find(|(id, _)| training(jobs, id)) {
            running.end(Intent::Yield);
        }
    }
}

fn text(event: &Value, key: &str) -> String {
    event[key].as_str().unwrap_or_default().to_owned()
}
