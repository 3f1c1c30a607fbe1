//! How far a run is, whoever trains it.

use anyhow::Result;
use runs::{Entry, Lock, SavedRun, StopRecord, TrainConfig, layout};

use crate::jobs::{Job, Progress, State};
use crate::name::Name;
use crate::studio::Studio;

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Training,
    /// In the queue.
    Waiting,
    Paused,
    Failed,
    /// Nobody trains it, and it is not finished.
    Interrupted,
    Finished,
}

impl Doing {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Finished => "finished",
        }
    }
}

/// A run at one moment.
#[derive(Debug, Clone)]
pub(crate) struct RunState {
    pub(crate) name: Name,
    pub(crate) config: TrainConfig,
    pub(crate) doing: Doing,
    /// Steps that are done, and all.
    pub(crate) done: u64,
    pub(crate) steps: u64,
    /// The phase of the last step.
    pub(crate) phase: String,
    /// Seconds of the steps that are left, as fast as the last ones were.
    pub(crate) left: Option<f64>,
    /// Its place in the queue.
    pub(crate) job: Option<Job>,
}

impl RunState {
    /// # Errors
    /// When there is no such run, or its record or its log is damaged.
    pub(crate) fn of(studio: &Studio, name: &Name) -> Result<Self> {
        let folder = studio.library.known_run(name)?;
        let config = SavedRun::read(&folder)?.record.config;
        let (done, phase, each) = studio.library.log(&folder, |log| {
            let last = log.last();
            (last.map_or(0, |entry| entry.step), last.map_or(String::new(), |entry| entry.phase.clone()), pace(log))
        })?;
        let ended = StopRecord::read(&folder)?.is_some_and(|record| record.ending.is_some());
        let steps = if ended { done } else { config.steps() as u64 };
        let job = studio.queue.jobs(|jobs| jobs.last_training(name).cloned());
        let complete = folder.join(layout::CURVES).is_file()
            && (config.keep_checkpoint || !folder.join(layout::CHECKPOINTS).exists());
        let doing = match job.as_ref().map(|job| job.state) {
            Some(State::Running) => Doing::Training,
            _ if Lock::holder(&folder).is_some() => Doing::Training,
            Some(State::Waiting) => Doing::Waiting,
            Some(State::Paused) => Doing::Paused,
            Some(State::Failed) => Doing::Failed,
            _ if complete => Doing::Finished,
            _ => Doing::Interrupted,
        };
        let left = each.filter(|_| doing == Doing::Training && done < steps).map(|each| each * (steps - done) as f64);
        Ok(Self { name: name.clone(), config, doing, done, steps, phase, left, job })
    }

    /// What is going on beside the steps, such as the images at the end.
    pub(crate) fn beside(&self) -> Option<&Progress> {
        let progress = self.job.as_ref()?.progress.as_ref()?;
        (!progress.task.starts_with("phase ")).then_some(progress)
    }
}

/// Seconds of a step, by the clock: of the last ones, without pauses.
fn pace(log: &[Entry]) -> Option<f64> {
    const LAST: usize = 50;
    let last = &log[log.len().saturating_sub(LAST)..];
    let mut seconds: Vec<f64> = last.windows(2).map(|pair| pair[1].wall_time - pair[0].wall_time).collect();
    seconds.sort_by(f64::total_cmp);
    let median = *seconds.get(seconds.len() / 2)?;
    // A checkpoint or an image now and then belongs to it, a night in between does not.
    seconds.retain(|&of| of < 20.0 * median.max(0.05));
    Some(seconds.iter().sum::<f64>() / seconds.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_last_steps_without_pauses() {
        let entry =
            |step: u64, wall_time: f64| Entry { step, phase: String::new(), wall_time, values: Default::default() };
        let log: Vec<Entry> = (0..10).map(|step| entry(step, step as f64 * 2.0)).collect();
        assert_eq!((pace(&log), pace(&log[..1]), pace(&[])), (Some(2.0), None, None));
        let later: Vec<Entry> = (10..20).map(|step| entry(step, 36_000.0 + step as f64 * 2.0)).collect();
        assert_eq!(pace(&[log, later].concat()), Some(2.0));
    }
}
