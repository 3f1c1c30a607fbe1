//! What a run would take, before it starts.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use images::RgbImage;
use photos::Photo;
use runs::{ConfigLayers, TrainConfig};
use tch::Device;

use crate::fixed_batch::FixedBatch;
use crate::session::{Checked, Opening};
use crate::text_alignment::TextAlignment;
use crate::{BatchIndex, PhotoBatches, Trainer, memory, outputs, space};

/// What a run would take, found by checking everything and by steps whose results are thrown away. Nothing is written.
#[derive(Debug)]
pub struct Rehearsal {
    /// The configuration, with what the model decides.
    pub config: TrainConfig,
    /// The first augmented crops that the model would be trained on.
    pub contact_sheet: RgbImage,
    /// What the user should know before the run.
    pub notes: Vec<String>,
    /// The numbers of the phases that have steps, from 0, each with the seconds of a step.
    pub seconds_per_step: Vec<(usize, f64)>,
    /// The most memory in use, in bytes: of tensors on a GPU, of the process on a CPU.
    pub peak_memory: u64,
    /// The most bytes that the run has on its disk while it trains, images of the class noun not counted.
    pub disk: u64,
}

impl Rehearsal {
    /// Checks a run and takes two steps of each of its phases, of which the second is timed.
    ///
    /// # Errors
    /// As [`Session::open`](crate::Session::open), and lack of memory.
    pub fn of(layers: ConfigLayers, out: &Path, device: Device, opening: Opening<'_>) -> Result<Self> {
        Self::rehearse(layers, out, device, opening).map_err(memory::explain)
    }

    fn rehearse(layers: ConfigLayers, out: &Path, device: Device, opening: Opening<'_>) -> Result<Self> {
        let Checked { trainer, photos, prior, alignment, mut notes, .. } =
            Checked::new(layers, out, device, opening, &distributed::Group::alone())?;
        // Images of the class noun may not be there yet; of others, a step takes as long.
        let prior = if prior.is_empty() { Vec::new() } else { photos.clone() };
        notes.extend(measuring(&trainer, alignment, &photos)?);
        let mut batches = PhotoBatches::new(&trainer.config, &trainer.pipeline, photos, prior)?;
        let crops = batches.crops(BatchIndex { phase: 0, step: 0, part: 0 })?;
        let contact_sheet = outputs::contact_sheet(&crops);
        let mut seconds_per_step = Vec::new();
        for (number, phase) in trainer.config.phases.values().enumerate().filter(|(_, phase)| phase.steps > 0) {
            let mut phase_run = trainer.start(number)?;
            let mut seconds = 0.0;
            for _ in 0..phase.steps.min(2) {
                let start = Instant::now();
                phase_run.step(&trainer, &mut batches)?.wait()?;
                seconds = start.elapsed().as_secs_f64();
            }
            phase_run.finish(&trainer)?;
            libtorch::release_cached_memory(device)?;
            seconds_per_step.push((number, seconds));
        }
        let (peak_memory, disk) = (libtorch::peak_memory(device)?, space::peak(&trainer));
        Ok(Self { disk, config: trainer.config, contact_sheet, notes, seconds_per_step, peak_memory })
    }
}

/// What measuring adds, if the run does so.
fn measuring(trainer: &Trainer, alignment: Option<TextAlignment>, photos: &[Vec<Photo>]) -> Result<Option<String>> {
    let (Some(stop), Some((number, name, phase))) = (&trainer.config.stop, trainer.config.last_phase()) else {
        return Ok(None);
    };
    let fixed = FixedBatch::new(trainer, number, photos, stop.batch())?;
    let start = Instant::now();
    fixed.base_losses(trainer)?;
    let each = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let images = match (alignment, stop.clip()) {
        (Some(alignment), Some(clip)) => {
            alignment.of(trainer, false)?;
            format!(", and {:.1} s more for the images of one in {}", start.elapsed().as_secs_f64(), clip.every)
        }
        _ => String::new(),
    };
    let most = phase.steps.div_ceil(stop.every()) + 1;
    Ok(Some(format!(
        "phase {name} has at most {} steps; it is measured at most {most} times, in {each:.1} s each{images}",
        phase.steps
    )))
}
