//! Those who do the jobs: a thread for each device, which starts the program and shows what it tells.
//!
//! A process outlives a studio that is killed; the next one waits for it and goes on from there. The process that generates images
//! stays for a while, with its model: other jobs of its device end it, which need the memory, and so does time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use options::DeviceChoice;
use runs::{Lock, holds_run};

use crate::jobs::{Job, Kind};
use crate::process::{self, Ended, Process, Program};
use crate::queue::{INTERRUPTED, Queue, Taken};

/// How long a process that generates is kept for the next request.
const KEPT: Duration = Duration::from_secs(300);

/// The threads of all devices.
pub(crate) struct Workers {
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// Does the jobs of a queue, one at a time on each device; `program` is called for them; runs are in the folder `runs`.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(crate) fn start(program: Program, runs: &Path, queue: &Arc<Queue>, devices: &[DeviceChoice]) -> Result<Self> {
        let program = Arc::new(program);
        let start = |device: &DeviceChoice| {
            let device = *device;
            let mut worker = Worker {
                program: program.clone(),
                runs: runs.to_owned(),
                queue: queue.clone(),
                device: device.to_string(),
                generator: None,
            };
            thread::Builder::new().name(format!("jobs on {device}")).spawn(move || worker.work())
        };
        let threads = devices.iter().map(start).collect::<std::io::Result<Vec<_>>>();
        let threads = threads.context("the studio's threads cannot be started")?;
        Ok(Self { queue: queue.clone(), threads: Mutex::new(threads) })
    }

    /// Ends all processes, trainings with a checkpoint, and waits for them; the queue stays as it is.
    pub(crate) fn stop(&self) {
        self.queue.stop();
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // A worker that has panicked has nothing to wait for.
            let _ = thread.join();
        }
    }
}

/// The thread of a device.
struct Worker {
    program: Arc<Program>,
    runs: PathBuf,
    queue: Arc<Queue>,
    device: String,
    /// A process that has generated images, and waits for a request since then.
    generator: Option<(Process, Instant)>,
}

impl Worker {
    /// Does job after job.
    fn work(&mut self) {
        loop {
            match self.queue.take(self.generator.as_ref().map(|(_, since)| *since + KEPT)) {
                Taken::Job(job) => {
                    let failed = |error| Ended { code: 2, said: format!("{error:#}"), result: None };
                    let ended = self.execute(&job).unwrap_or_else(failed);
                    self.queue.settle(&job, ended);
                }
                Taken::Nothing => self.end_generator(),
                Taken::End => return self.end_generator(),
            }
        }
    }

    fn end_generator(&mut self) {
        if let Some((process, _)) = self.generator.take() {
            process.kill();
        }
    }

    fn execute(&mut self, job: &Job) -> Result<Ended> {
        if job.kind == Kind::Generate {
            return self.generate(job);
        }
        self.end_generator();
        let mut command = self.program.command();
        match (&job.run, job.kind) {
            (Some(run), Kind::Train) => {
                let folder = self.runs.join(run.as_str());
                self.wait_for_others(job.id, &folder)?;
                if self.queue.running(job.id).1.is_some() {
                    return Ok(Ended { code: INTERRUPTED, ..Ended::default() });
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
            command.arg("--device").arg(&self.device);
        }
        let mut process = Process::start(&mut command)?;
        self.queue.started(job.id, process.handle()?);
        let told = process.follow(&mut |event| self.queue.show(job.id, event));
        process.wait(told)
    }

    /// Generates images by the process that has done so before, if there is one.
    fn generate(&mut self, job: &Job) -> Result<Ended> {
        let words: Vec<&str> =
            job.arguments.iter().map(String::as_str).chain(["--device", self.device.as_str()]).collect();
        let line = serde_json::to_string(&words)?;
        let kept = self.generator.take().map(|(process, _)| process);
        // One that was ended meanwhile, for want of memory, has done no harm.
        let kept = kept.and_then(|mut process| process.tell(&line).is_ok().then_some(process));
        let mut process = match kept {
            Some(process) => process,
            None => {
                let mut process = Process::start_listening(self.program.command().arg("generator"))?;
                // If it ends before it has read this, its end says why.
                let _ = process.tell(&line);
                process
            }
        };
        self.queue.started(job.id, process.handle()?);
        match process.follow(&mut |event| self.queue.show(job.id, event)) {
            // One that was asked to end does so any moment.
            Some(ended) if self.queue.running(job.id).1.is_some() => {
                process.kill();
                Ok(ended)
            }
            Some(ended) => {
                self.generator = Some((process, Instant::now()));
                Ok(ended)
            }
            None => process.wait(None),
        }
    }

    /// Waits for a process that works in a run's folder already: of a studio that was killed, or of the command line.
    fn wait_for_others(&self, id: u64, folder: &Path) -> Result<()> {
        while let Some(process) = Lock::holder(folder) {
            // Only this program is asked to end; the number may be another's by now.
            if !self.queue.running(id).0
                && self.program.is_of(process)
                && let Ok(handle) = process::handle(process)
            {
                self.queue.started(id, handle);
            }
            // One that is not this program's is left alone.
            if matches!(self.queue.running(id), (false, Some(_))) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(300));
        }
        self.queue.ended(id);
        Ok(())
    }
}
