//! What is to be done, is being done and was done: a list on the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::name::Name;

/// A command of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Learning a subject. It gives way to all others, and goes on after them.
    Train,
    /// What that would take.
    Plan,
    /// Images.
    Generate,
    /// Attention maps.
    Attend,
    /// Scores.
    Evaluate,
    /// Files for other programs.
    Export,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Waiting,
    Running,
    /// It waits for its user.
    Paused,
    Done,
    Failed,
}

impl State {
    /// Whether nothing more happens by itself or by a click.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// What is counted in a running job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    pub(crate) task: String,
    pub(crate) done: u64,
    pub(crate) total: u64,
}

/// One call of the program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    /// For people.
    pub(crate) title: String,
    /// The run that it makes or uses.
    pub(crate) run: Option<Name>,
    /// The command line without what the studio adds: the device, and how a run is resumed.
    pub(crate) arguments: Vec<String>,
    pub(crate) state: State,
    /// What went wrong, or why it waits.
    #[serde(default)]
    pub(crate) said: String,
    /// What is taken otherwise than a user may expect.
    #[serde(default)]
    pub(crate) notes: Vec<String>,
    /// The images that it has made: for whoever waits for them. A thousand are not written again with every change of the list.
    #[serde(skip)]
    pub(crate) images: Vec<PathBuf>,
    /// What the program gave as its result.
    #[serde(default)]
    pub(crate) result: Option<Value>,
    /// When it was asked for, in seconds since 1970.
    pub(crate) time: f64,
    #[serde(skip)]
    pub(crate) progress: Option<Progress>,
    /// What its image is on the way to: a JPEG in base64.
    #[serde(skip)]
    pub(crate) preview: Option<Arc<str>>,
}

impl Job {
    /// A job without its number.
    pub(crate) fn new(kind: Kind, title: impl Into<String>, run: Option<Name>, arguments: Vec<String>) -> Self {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Self {
            id: 0,
            kind,
            title: title.into(),
            run,
            arguments,
            state: State::Waiting,
            said: String::new(),
            notes: Vec::new(),
            images: Vec::new(),
            result: None,
            time,
            progress: None,
            preview: None,
        }
    }
}

/// Jobs that are over are kept for people to look at, but no more than so many.
const KEPT: usize = 100;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Saved {
    /// The number of the last job.
    last: u64,
    jobs: Vec<Job>,
}

/// All jobs, in their order; every change is on the disk before it is true.
#[derive(Debug)]
pub(crate) struct Jobs {
    file: PathBuf,
    saved: Saved,
}

impl Jobs {
    /// The jobs in a file, none where there is none. What was running when its studio was killed waits again, if it is a training,
    /// which goes on from its last checkpoint; anything else has failed, for half of it may be done.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn open(file: &Path) -> Result<Self> {
        let failed = || format!("cannot read the studio's jobs in {}; remove it to start without them", file.display());
        let mut saved: Saved = match limits::read(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Saved::default(),
            bytes => serde_json::from_slice(&bytes.with_context(failed)?).with_context(failed)?,
        };
        for job in saved.jobs.iter_mut().filter(|job| job.state == State::Running) {
            if job.kind == Kind::Train {
                job.state = State::Waiting;
            } else {
                job.state = State::Failed;
                job.said = "interrupted, as the studio ended; what was finished is kept".to_owned();
            }
        }
        Ok(Self { file: file.to_owned(), saved })
    }

    pub(crate) fn all(&self) -> &[Job] {
        &self.saved.jobs
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Job> {
        self.saved.jobs.iter().find(|job| job.id == id)
    }

    /// The next to be done: the first that is no training, else the first training.
    pub(crate) fn next(&self) -> Option<&Job> {
        let waiting = || self.saved.jobs.iter().filter(|job| job.state == State::Waiting);
        waiting().find(|job| job.kind != Kind::Train).or_else(|| waiting().next())
    }

    /// The training of a run that is not over.
    pub(crate) fn training(&self, run: &Name) -> Option<&Job> {
        let of_run = |job: &&Job| job.kind == Kind::Train && job.run.as_ref() == Some(run) && !job.state.is_over();
        self.saved.jobs.iter().find(of_run)
    }

    /// The training of a run that is not over, else the last one.
    pub(crate) fn last_training(&self, run: &Name) -> Option<&Job> {
        let of_run = |job: &&Job| job.kind == Kind::Train && job.run.as_ref() == Some(run);
        self.training(run).or_else(|| self.saved.jobs.iter().rfind(of_run))
    }

    /// Adds a job at the end. Returns its number.
    ///
    /// # Errors
    /// When the disk is full; then nothing is added.
    pub(crate) fn add(&mut self, job: Job) -> Result<u64> {
        self.change(|saved| {
            saved.last += 1;
            saved.jobs.push(Job { id: saved.last, ..job });
            let over: Vec<u64> = saved.jobs.iter().filter(|job| job.state.is_over()).map(|job| job.id).collect();
            let oldest = &over[..over.len().saturating_sub(KEPT)];
            saved.jobs.retain(|job| !oldest.contains(&job.id));
            saved.last
        })
    }

    /// Changes a job, if it is still there.
    ///
    /// # Errors
    /// As [`Jobs::add`].
    pub(crate) fn update(&mut self, id: u64, change: impl FnOnce(&mut Job)) -> Result<()> {
        self.change(|saved| saved.jobs.iter_mut().find(|job| job.id == id).map(change)).map(|_| ())
    }

    /// Takes a job out.
    ///
    /// # Errors
    /// As [`Jobs::add`].
    pub(crate) fn remove(&mut self, id: u64) -> Result<()> {
        self.change(|saved| saved.jobs.retain(|job| job.id != id))
    }

    /// Takes all jobs of a run out that are over.
    ///
    /// # Errors
    /// As [`Jobs::add`].
    pub(crate) fn forget(&mut self, run: &Name) -> Result<()> {
        self.change(|saved| saved.jobs.retain(|job| !job.state.is_over() || job.run.as_ref() != Some(run)))
    }

    /// Puts a training before or behind its neighbour in the queue.
    ///
    /// # Errors
    /// As [`Jobs::add`].
    pub(crate) fn advance(&mut self, id: u64) -> Result<()> {
        self.change(|saved| {
            let queued: Vec<usize> = (0..saved.jobs.len())
                .filter(|&at| saved.jobs[at].kind == Kind::Train && saved.jobs[at].state == State::Waiting)
                .collect();
            if let Some(pair) = queued.windows(2).find(|pair| saved.jobs[pair[1]].id == id) {
                saved.jobs.swap(pair[0], pair[1]);
            }
        })
    }

    /// What is known of a job while it runs, and goes with the process.
    pub(crate) fn show(&mut self, id: u64, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.saved.jobs.iter_mut().find(|job| job.id == id) {
            change(job);
        }
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut Saved) -> T) -> Result<T> {
        let mut saved = self.saved.clone();
        let changed = change(&mut saved);
        atomic::write(&self.file, serde_json::to_vec_pretty(&saved)?).context("the studio's jobs cannot be saved")?;
        self.saved = saved;
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(file: &Path) -> Jobs {
        Jobs::open(file).unwrap()
    }

    fn job(kind: Kind, run: &str) -> Job {
        Job::new(kind, run, Some(run.parse().unwrap()), vec!["x".into()])
    }

    #[test]
    fn short_jobs_come_first_and_trainings_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut jobs = jobs(&folder.path().join("jobs.json"));
        let [a, b, c] = ["a", "b", "c"].map(|run| jobs.add(job(Kind::Train, run)).unwrap());
        assert_eq!(jobs.next().unwrap().id, a);
        let image = jobs.add(job(Kind::Generate, "a")).unwrap();
        assert_eq!(jobs.next().unwrap().id, image);
        jobs.update(image, |job| job.state = State::Done).unwrap();
        jobs.advance(c).unwrap();
        jobs.advance(c).unwrap();
        jobs.advance(c).unwrap();
        assert_eq!(jobs.all().iter().map(|job| job.id).collect::<Vec<_>>(), [c, a, b, image]);
        jobs.update(c, |job| job.state = State::Paused).unwrap();
        assert_eq!(jobs.next().unwrap().id, a);
        jobs.remove(a).unwrap();
        assert_eq!(jobs.next().unwrap().id, b);
        assert_eq!(jobs.training(&"c".parse().unwrap()).map(|job| job.id), Some(c));
        assert!(jobs.training(&"a".parse().unwrap()).is_none());
    }

    #[test]
    fn a_killed_studios_trainings_wait_again_and_the_rest_has_failed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jobs.json");
        {
            let mut jobs = jobs(&file);
            for kind in [Kind::Train, Kind::Generate, Kind::Train] {
                jobs.add(job(kind, "a")).unwrap();
            }
            for id in [1, 2] {
                jobs.update(id, |job| job.state = State::Running).unwrap();
            }
        }
        let again = jobs(&file);
        assert_eq!(
            again.all().iter().map(|job| job.state).collect::<Vec<_>>(),
            [State::Waiting, State::Failed, State::Waiting]
        );
        assert!(again.get(2).unwrap().said.contains("interrupted"));
        std::fs::write(&file, "{").unwrap();
        assert!(format!("{:#}", Jobs::open(&file).unwrap_err()).contains("jobs.json; remove it to start without them"));
    }

    #[test]
    fn what_cannot_be_written_has_not_happened() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("own/jobs.json");
        let mut jobs = jobs(&file);
        assert!(format!("{:#}", jobs.add(job(Kind::Train, "a")).unwrap_err()).contains("cannot be saved"));
        assert!(jobs.all().is_empty());
        std::fs::create_dir(folder.path().join("own")).unwrap();
        assert_eq!(jobs.add(job(Kind::Train, "a")).unwrap(), 1);
    }

    #[test]
    fn what_is_over_is_forgotten_after_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let mut jobs = jobs(&folder.path().join("jobs.json"));
        let waiting = jobs.add(job(Kind::Train, "a")).unwrap();
        for _ in 0..KEPT + 5 {
            let id = jobs.add(job(Kind::Generate, "a")).unwrap();
            jobs.update(id, |job| job.state = State::Done).unwrap();
        }
        assert_eq!(jobs.all().len(), KEPT + 2);
        assert!(jobs.get(waiting).is_some() && jobs.get(3).is_none());
    }
}
