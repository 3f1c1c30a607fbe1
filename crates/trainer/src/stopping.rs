//! Ending the last phase by what is measured on the way, with one of its snapshots.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use photos::Photo;
use runs::{Ending, Measurement, Reason, Stop, StopRecord, TimestepBin, layout};

use crate::checkpoint::{self, State};
use crate::fixed_batch::FixedBatch;
use crate::outputs::make_parent;
use crate::phase_run::{PhaseRun, Trainer};
use crate::stop_rule;
use crate::text_alignment::TextAlignment;

/// Measures while the last phase is trained, keeps what may yet be taken, and takes it in the end. All of it follows from the
/// run's seed and its parameters, and changes neither: the steps are those of a run that does not stop.
#[derive(Debug)]
pub(crate) struct Stopping {
    stop: Stop,
    /// The phase that is ended, and the most steps that it has.
    number: usize,
    steps: usize,
    run: PathBuf,
    fixed: FixedBatch,
    alignment: Option<TextAlignment>,
    record: StopRecord,
}

impl Stopping {
    /// For the trainer's configuration, if its run is to stop; the trainer's model is as before the first step. A run that is
    /// `resumed` has the measurements until then.
    ///
    /// # Errors
    /// What the models refuse, or when the record of a run that is resumed is gone or damaged.
    pub(crate) fn open(
        trainer: &Trainer,
        alignment: Option<TextAlignment>,
        photos: &[Vec<Photo>],
        run: &Path,
        resumed: Option<&State>,
    ) -> Result<Option<Self>> {
        let Some(stop) = trainer.config.stop.clone() else { return Ok(None) };
        let (number, name, phase) = trainer.config.last_phase().context("no phase of the configuration has steps")?;
        let fixed = FixedBatch::new(trainer, number, photos, stop.batch())?;
        let mut record = match StopRecord::read(run)? {
            Some(record) => record,
            None => {
                let bin = |([from, to], base_loss): ([i64; 2], f64)| TimestepBin { from, to, base_loss };
                let bins: Vec<TimestepBin> = fixed.timesteps().zip(fixed.base_losses(trainer)?).map(bin).collect();
                let unusable = bins.iter().find(|bin| !(bin.base_loss.is_finite() && bin.base_loss > 0.0));
                ensure!(
                    unusable.is_none(),
                    "the base model's loss on the fixed batch of --stop is {}, which nothing can be compared with: leave --stop out",
                    unusable.map_or(f64::NAN, |bin| bin.base_loss)
                );
                let text_alignment = alignment.as_ref().map(|alignment| alignment.of(trainer, false)).transpose()?;
                let phase = name.to_owned();
                StopRecord { phase, bins, text_alignment, measurements: Vec::new(), ending: None }
            }
        };
        // What came after the checkpoint comes again.
        let reached = |at: &Measurement| resumed.is_some_and(|state| state.number == number && at.step <= state.step);
        record.measurements.retain(reached);
        record.ending = None;
        let expected = resumed.filter(|state| state.number == number && state.step > 0);
        ensure!(
            expected.is_none() || !record.measurements.is_empty(),
            "{} is not as the run has left it, and the run cannot resume without its measurements: start a new one",
            run.join(layout::STOP).display()
        );
        let stopping = Self { stop, number, steps: phase.steps, run: run.to_owned(), fixed, alignment, record };
        stopping.keep_snapshots(&stopping.record.measurements.iter().map(|at| at.step).collect::<Vec<_>>())?;
        stopping.save()?;
        Ok(Some(stopping))
    }

    /// Whether it ends the phase of this number.
    pub(crate) fn ends(&self, number: usize) -> bool {
        self.number == number
    }

    /// Whether a measurement is to be made when so many steps are done.
    pub(crate) fn is_due(&self, done: usize) -> bool {
        let measured = self.record.measurements.last().is_some_and(|last| last.step >= done);
        !measured && !self.ended() && (done.is_multiple_of(self.stop.every()) || done == self.steps)
    }

    /// Measures the model as it would be if the phase ended now, and keeps a snapshot where it may be taken.
    ///
    /// # Errors
    /// When a loss is not a number, or the disk is full.
    pub(crate) fn measure(&mut self, trainer: &Trainer, phase_run: &mut PhaseRun) -> Result<Measurement> {
        let start = Instant::now();
        let step = phase_run.done();
        phase_run.with_average(|| self.measure_model(trainer, step))?;
        let measured = self.record.measurements.last_mut().context("nothing was measured")?;
        measured.seconds = start.elapsed().as_secs_f64();
        Ok(measured.clone())
    }

    fn measure_model(&mut self, trainer: &Trainer, step: usize) -> Result<()> {
        let losses = self.fixed.losses(trainer)?;
        let gains: Vec<f64> =
            losses.iter().zip(&self.record.bins).map(|(loss, bin)| 1.0 - loss / bin.base_loss).collect();
        let gain = gains.iter().sum::<f64>() / gains.len() as f64;
        ensure!(
            gain.is_finite(),
            "the loss on the fixed batch of --stop is no number after step {step} of phase {}; the last checkpoint is good, but \
             would come here again: start a new run with a lower learning_rate, or with dtype fp32",
            self.record.phase
        );
        self.record.measurements.push(Measurement { step, gains, gain, text_alignment: None, seconds: 0.0 });
        let Stop::Auto(auto) = &self.stop else { return Ok(()) };
        if let (Some(alignment), Some(clip), Some(base)) = (&self.alignment, &auto.clip, self.record.text_alignment) {
            let place = self.record.measurements.len() - 1;
            let last = step == self.steps || self.ended();
            if last || place.is_multiple_of(clip.every) {
                // Their quotient; of a CLIP that finds none, whose cosine is below zero, less is less all the same.
                let part = 1.0 + (alignment.of(trainer, true)? - base) / base.abs();
                self.record.measurements[place].text_alignment = Some(part);
            }
        }
        let curve = &self.record.measurements;
        let open: Vec<usize> = stop_rule::open(auto, curve).into_iter().map(|place| curve[place].step).collect();
        if open.contains(&step) {
            let path = self.snapshot(step);
            make_parent(&path)?;
            weights::save(&path, trainer.trained(self.number)?)?;
        }
        self.keep_snapshots(&open)
    }

    /// Whether the phase has ended.
    pub(crate) fn ended(&self) -> bool {
        self.reason().is_some()
    }

    fn reason(&self) -> Option<Reason> {
        let curve = &self.record.measurements;
        let ended = match &self.stop {
            Stop::Auto(auto) => stop_rule::ended(auto, curve),
            Stop::Dvar(dvar) => {
                // Of after each step, as the paper has it.
                let gains: Vec<f64> = curve.iter().filter(|at| at.step > 0).map(|at| at.gain).collect();
                stop_rule::varies_little(dvar, &gains).then_some(Reason::Variance)
            }
        };
        ended.or_else(|| curve.last().is_some_and(|last| last.step == self.steps).then_some(Reason::Steps))
    }

    /// Gives the trainer's parameters the values of the snapshot that is taken; the phase is finished.
    ///
    /// # Errors
    /// When the snapshot is gone.
    pub(crate) fn take(&mut self, trainer: &Trainer) -> Result<Ending> {
        let curve = &self.record.measurements;
        let last = curve.last().context("nothing was measured")?.step;
        let taken = match &self.stop {
            Stop::Dvar(_) => last,
            Stop::Auto(auto) => {
                // The first, which is the choice, unless a GPU has measured otherwise before the run was resumed.
                let steps = stop_rule::open(auto, curve).into_iter().map(|place| curve[place].step);
                let there = steps.map(|step| (step, self.snapshot(step))).find(|(_, path)| path.exists());
                let (step, path) = there.with_context(|| {
                    let folder = self.run.join(layout::SNAPSHOTS);
                    format!("the snapshot that is the result is no longer in {}: start a new run", folder.display())
                })?;
                checkpoint::restore(&trainer.trained(self.number)?, &path)?;
                trainer.method.constrain(&trainer.learned)?;
                step
            }
        };
        let ending = Ending { reason: self.reason().unwrap_or(Reason::Steps), done: last, taken };
        self.record.ending = Some(ending);
        self.save()?;
        Ok(ending)
    }

    /// Writes down what was measured: before each checkpoint, so that a run that resumes from it finds it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn save(&self) -> Result<()> {
        self.record.write(&self.run)
    }

    fn snapshot(&self, step: usize) -> PathBuf {
        self.run.join(layout::SNAPSHOTS).join(format!("{step:05}.safetensors"))
    }

    /// Removes the snapshots of all other steps.
    fn keep_snapshots(&self, steps: &[usize]) -> Result<()> {
        let kept: Vec<PathBuf> = steps.iter().map(|step| self.snapshot(*step)).collect();
        remove_snapshots(&self.run.join(layout::SNAPSHOTS), &kept)
    }
}

/// Removes what no run needs that has taken one.
pub(crate) fn discard_snapshots(run: &Path) -> Result<()> {
    let folder = run.join(layout::SNAPSHOTS);
    remove_snapshots(&folder, &[])?;
    // It stays where somebody has put something else there.
    let _ = fs::remove_dir(folder);
    Ok(())
}

/// Removes the snapshots in a folder but those that are kept.
fn remove_snapshots(folder: &Path, kept: &[PathBuf]) -> Result<()> {
    for path in snapshots(folder)?.into_iter().filter(|path| !kept.contains(path)) {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// The snapshots in a folder: files whose names are numbers.
fn snapshots(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot read {}", folder.display()))?,
    };
    let named = |path: &PathBuf| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        path.extension().is_some_and(|extension| extension == "safetensors") && stem.parse::<usize>().is_ok()
    };
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(named).collect())
}
