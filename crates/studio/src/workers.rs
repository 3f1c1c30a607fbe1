//! The jobs' processes: a thread for each device, which starts the program and reads its events.
//!
//! A training gives way to a shorter job: SIGTERM makes it save a checkpoint after its step and end, and it is resumed, exactly, when the
//! other is done. A process outlives a studio that is killed; the next one waits for it and goes on from there.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use options::DeviceChoice;
use runs::{Lock, holds_run};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use tokio::sync::watch;

use crate::jobs::{Job, Jobs, Kind, Progress, State};
use crate::name::Name;

/// The program's exit code when it was interrupted, and may be called again.
const INTERRUPTED: i32 = 75;
/// Notes of a job that are kept, and characters of what a process has said at last.
const NOTES: usize = 20;
const LAST_WORDS: usize = 2000;

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
    idle: usize,
    stopping: bool,
}

/// What is called for each job.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// Options of all its commands.
    pub(crate) options: &'static [&'static str],
}

struct Shared {
    program: Program,
    runs: PathBuf,
    inner: Mutex<Inner>,
    wake: Condvar,
    changes: watch::Sender<u64>,
}

/// The jobs and those who do them.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// Goes on with `jobs`, one at a time on each device; `program` is called for them; runs are in the folder `runs`.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(crate) fn start(program: Program, runs: &Path, jobs: Jobs, devices: &[DeviceChoice]) -> Result<Self> {
        let inner = Inner { jobs, running: HashMap::new(), idle: 0, stopping: false };
        let shared = Arc::new(Shared {
            program,
            runs: runs.to_owned(),
            inner: Mutex::new(inner),
            wake: Condvar::new(),
            changes: watch::Sender::new(0),
        });
        let start = |device: &DeviceChoice| {
            let (shared, device) = (shared.clone(), *device);
            thread::Builder::new().name(format!("jobs on {device}")).spawn(move || shared.work(device))
        };
        let threads = devices.iter().map(start).collect::<std::io::Result<Vec<_>>>();
        Ok(Self { shared, threads: Mutex::new(threads.context("the studio's threads cannot be started")?) })
    }

    /// Looks at the jobs.
    pub(crate) fn jobs<T>(&self, look: impl FnOnce(&Jobs) -> T) -> T {
        look(&self.shared.lock().jobs)
    }

    /// A number that changes whenever a job does.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Adds a job; a training gives way to any other kind.
    ///
    /// # Errors
    /// When the queue cannot be saved.
    pub(crate) fn add(&self, job: Job) -> Result<u64> {
        let mut inner = self.shared.lock();
        let kind = job.kind;
        let id = inner.jobs.add(job)?;
        if kind != Kind::Train && inner.idle == 0 {
            inner.make_room();
        }
        self.shared.changed();
        Ok(id)
    }

    /// Adds the training of a new run, of which there may be one.
    ///
    /// # Errors
    /// When another has the name, or the queue cannot be saved.
    pub(crate) fn add_training(&self, job: Job) -> Result<u64> {
        let mut inner = self.shared.lock();
        if let Some(run) = job.run.as_ref().filter(|run| inner.jobs.training(run).is_some()) {
            bail!("a run called {:?} is in the queue already; choose another name", run.as_str());
        }
        let id = inner.jobs.add(job)?;
        drop(inner);
        self.shared.changed();
        Ok(id)
    }

    /// Puts the training of a run into the queue, which is on the disk already.
    ///
    /// # Errors
    /// As [`Workers::add`].
    pub(crate) fn resume(&self, run: &Name) -> Result<()> {
        let mut inner = self.shared.lock();
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
        self.shared.changed();
        Ok(())
    }

    /// Pauses or stops a job, whether its process has started or not.
    ///
    /// # Errors
    /// When there is no such job, or the queue cannot be saved.
    pub(crate) fn end(&self, id: u64, intent: Intent) -> Result<()> {
        let mut inner = self.shared.lock();
        let Some(state) = inner.jobs.get(id).map(|job| job.state) else { bail!("this job is over already") };
        match inner.running.get_mut(&id) {
            Some(running) => running.end(intent),
            None if state.is_over() => {}
            None if intent == Intent::Pause => inner.jobs.update(id, |job| job.state = State::Paused)?,
            None => inner.jobs.remove(id)?,
        }
        self.shared.changed();
        Ok(())
    }

    /// Takes a job that is over out of the list.
    ///
    /// # Errors
    /// When the list cannot be saved.
    pub(crate) fn dismiss(&self, id: u64) -> Result<()> {
        let mut inner = self.shared.lock();
        if inner.jobs.get(id).is_some_and(|job| job.state.is_over()) {
            inner.jobs.remove(id)?;
        }
        drop(inner);
        self.shared.changed();
        Ok(())
    }

    /// Moves a waiting training forward by one place.
    ///
    /// # Errors
    /// When the queue cannot be saved.
    pub(crate) fn advance(&self, id: u64) -> Result<()> {
        let moved = self.shared.lock().jobs.advance(id);
        self.shared.changed();
        moved
    }

    /// Ends all processes, trainings with a checkpoint, and waits for them; the queue stays as it is.
    pub(crate) fn stop(&self) {
        {
            let mut inner = self.shared.lock();
            inner.stopping = true;
            inner.running.values_mut().for_each(|running| running.end(Intent::Yield));
        }
        self.shared.wake.notify_all();
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // A worker that has panicked has nothing to wait for.
            let _ = thread.join();
        }
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

/// How a process has ended.
struct Ended {
    code: i32,
    said: String,
    result: Option<Value>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|number| *number += 1);
        self.wake.notify_all();
    }

    /// Does job after job on a device.
    fn work(&self, device: DeviceChoice) {
        while let Some(job) = self.take() {
            let ended = self.execute(&job, device).unwrap_or_else(|error| Ended {
                code: 2,
                said: format!("{error:#}"),
                result: None,
            });
            self.settle(&job, ended);
        }
    }

    /// Waits for a job, until the studio stops.
    fn take(&self) -> Option<Job> {
        let mut inner = self.lock();
        inner.idle += 1;
        let job = loop {
            if inner.stopping {
                break None;
            }
            if let Some(job) = inner.jobs.next().cloned() {
                // Where this cannot be written, it is tried again at the next change.
                if inner.jobs.update(job.id, |job| job.state = State::Running).is_ok() {
                    break Some(job);
                }
                let waited = self.wake.wait_timeout(inner, Duration::from_secs(5));
                inner = waited.unwrap_or_else(PoisonError::into_inner).0;
            } else {
                inner = self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
        };
        inner.idle -= 1;
        if let Some(job) = &job {
            inner.running.insert(job.id, Running::default());
        }
        drop(inner);
        self.changed();
        job
    }

    fn settle(&self, job: &Job, ended: Ended) {
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

    fn execute(&self, job: &Job, device: DeviceChoice) -> Result<Ended> {
        let mut command = Command::new(&self.program.path);
        command.arg("--json").args(self.program.options);
        match (&job.run, job.kind) {
            (Some(run), Kind::Train) => {
                let folder = self.runs.join(run.as_str());
                self.wait_for_others(job.id, &folder)?;
                if self.intent(job.id).is_some() {
                    return Ok(Ended { code: INTERRUPTED, said: String::new(), result: None });
                }
                if holds_run(&folder) {
                    command.arg("train").arg("--out").arg(&folder).arg("--resume");
                } else {
                    command.args(&job.arguments);
                }
            }
            _ => {
                command.args(&job.arguments);
            }
        }
        if job.kind != Kind::Export {
            command.arg("--device").arg(device.to_string());
        }
        self.run(job.id, command)
    }

    fn intent(&self, id: u64) -> Option<Intent> {
        self.lock().running.get(&id).and_then(|running| running.intent)
    }

    /// Waits for a process that works in a run's folder already: of a studio that was killed, or of the command line.
    fn wait_for_others(&self, id: u64, folder: &Path) -> Result<()> {
        while let Some(process) = Lock::holder(folder) {
            let opened =
                i32::try_from(process).ok().and_then(Pid::from_raw).map(|id| pidfd_open(id, PidfdFlags::empty()));
            // Only this program is asked to end; the number may be another's by now.
            if let Some(Ok(opened)) = opened
                && fs::read_link(format!("/proc/{process}/exe")).is_ok_and(|program| self.is_program(&program))
                && let Some(running) = self.lock().running.get_mut(&id).filter(|running| running.process.is_none())
            {
                running.started(opened);
            }
            // One that is not this program's is left alone.
            if self.lock().running.get(&id).is_some_and(|running| running.intent.is_some() && running.process.is_none())
            {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(300));
        }
        if let Some(running) = self.lock().running.get_mut(&id) {
            running.process = None;
        }
        Ok(())
    }

    fn is_program(&self, other: &Path) -> bool {
        fs::canonicalize(&self.program.path).is_ok_and(|program| program == other)
    }

    /// Runs the program, and shows what it tells.
    fn run(&self, id: u64, mut command: Command) -> Result<Ended> {
        // A Ctrl-C at the terminal is for the studio, which then tells its processes.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = command.spawn();
        let mut child = started.with_context(|| format!("{} cannot be started", self.program.path.display()))?;
        let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process has no number")?;
        let process = pidfd_open(process, PidfdFlags::empty()).context("a process cannot be followed")?;
        if let Some(running) = self.lock().running.get_mut(&id) {
            running.started(process);
        }
        let last_words = child.stderr.take().map(|stderr| thread::spawn(move || tail(stderr)));
        let (mut said, mut result) = (String::new(), None);
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                let Ok(mut event) = serde_json::from_slice::<Value>(&line) else { continue };
                match event["event"].as_str() {
                    Some("result") => result = Some(event["result"].take()),
                    Some("error" | "interrupted") => said = text(&event, "text"),
                    _ => self.show(id, &event),
                }
            }
        }
        let status = child.wait().context("a process cannot be waited for")?;
        let last_words = last_words.and_then(|thread| thread.join().ok()).unwrap_or_default();
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        if said.is_empty() && code != 0 {
            said = match status.signal() {
                Some(signal) => format!("its process was ended by signal {signal}{}", said_at_last(&last_words)),
                None => format!("its process ended with code {code}{}", said_at_last(&last_words)),
            };
        }
        Ok(Ended { code, said: said.trim_start_matches("error: ").to_owned(), result })
    }

    /// What a process tells on its way.
    fn show(&self, id: u64, event: &Value) {
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

fn text(event: &Value, key: &str) -> String {
    event[key].as_str().unwrap_or_default().to_owned()
}

/// The end of what a process writes, however much that is.
fn tail(mut from: impl Read) -> String {
    let (mut last, mut read) = (Vec::new(), [0; 4096]);
    while let Ok(bytes @ 1..) = from.read(&mut read) {
        last.extend_from_slice(&read[..bytes]);
        let more = last.len().saturating_sub(LAST_WORDS);
        last.drain(..more);
    }
    String::from_utf8_lossy(&last).into_owned()
}

fn said_at_last(words: &str) -> String {
    words.lines().rfind(|line| !line.trim().is_empty()).map_or(String::new(), |line| format!(": {}", line.trim()))
}
