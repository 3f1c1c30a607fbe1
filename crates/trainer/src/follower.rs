//! A process that computes its share of another's run, and writes nothing.

use std::path::Path;

use anyhow::Result;
use distributed::Group as Processes;
use photos::Photo;
use runs::{ConfigLayers, layout};
use tch::Device;

use crate::event::Outcome;
use crate::memory;
use crate::prior::PriorImages;
use crate::session::{Checked, Opening};
use crate::{Checkpoint, PhotoBatches, Share, Trainer};

/// A process of several but rank 0, whose run it takes part in: the same model, its own samples of each batch, and all gradients.
/// Its calls to the other processes are those of [`Session`](crate::Session), in the same order.
#[derive(Debug)]
pub struct Follower {
    trainer: Trainer,
    photos: Vec<Vec<Photo>>,
    prior: Vec<PriorImages>,
    checkpoint: Option<Checkpoint>,
    learned: bool,
}

impl Follower {
    /// Prepares what rank 0 prepares, and waits until that is done.
    ///
    /// # Errors
    /// As [`Session::open_leading`](crate::Session::open_leading).
    pub fn open(
        layers: ConfigLayers,
        out: &Path,
        device: Device,
        opening: Opening<'_>,
        processes: &Processes,
    ) -> Result<Self> {
        let prepare = || {
            let checked = Checked::new(layers, out, device, opening, processes).map_err(memory::explain)?;
            processes.wait()?;
            let checkpoint = match opening {
                Opening::New => None,
                _ => Checkpoint::latest(&out.join(layout::CHECKPOINTS))?,
            };
            let Checked { trainer, photos, prior, learned, .. } = checked;
            Ok(Self { trainer, photos, prior, checkpoint, learned })
        };
        processes.telling(prepare)
    }

    /// Takes part in the run to its last step, or until any process is asked to stop.
    ///
    /// # Errors
    /// As [`Session::run`](crate::Session::run).
    pub fn run(self, stop: &dyn Fn() -> bool) -> Result<Outcome> {
        let processes = self.trainer.processes.clone();
        processes.telling(|| {
            let outcome = self.learn(stop).map_err(memory::explain)?;
            processes.leave()?;
            Ok(outcome)
        })
    }

    fn learn(self, stop: &dyn Fn() -> bool) -> Result<Outcome> {
        let Self { trainer, photos, mut prior, checkpoint, learned } = self;
        let Trainer { config, pipeline, processes, .. } = &trainer;
        if learned {
            return Ok(Outcome::Finished);
        }
        for images in &mut prior {
            if !images.generate(pipeline, config, processes, stop, &mut |_| {})? {
                return Ok(Outcome::Stopped);
            }
        }
        let prior = prior.into_iter().map(PriorImages::into_photos).collect();
        let mut batches = PhotoBatches::shared(config, pipeline, photos, prior, Share::of(processes))?;
        let start = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.state.number);
        for number in start..config.phases.len() {
            let mut phase_run = match &checkpoint {
                Some(checkpoint) if number == start => trainer.resume(checkpoint)?,
                _ => trainer.start(number)?,
            };
            let [mut ended] = processes.any([false])?;
            while phase_run.done() < config.phases[number].steps && !ended {
                phase_run.step(&trainer, &mut batches)?.wait()?;
                let asked;
                [asked, ended] = processes.any([stop(), false])?;
                if asked {
                    return Ok(Outcome::Stopped);
                }
            }
            phase_run.finish(&trainer)?;
            libtorch::release_cached_memory(pipeline.placement().1)?;
        }
        Ok(Outcome::Finished)
    }
}
