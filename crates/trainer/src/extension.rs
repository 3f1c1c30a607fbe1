//! A finished run as the beginning of a longer one.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use runs::{Extends, Phase, layout};

use crate::checkpoint::Checkpoint;
use crate::finished_run::FinishedRun;
use crate::outputs::{Outputs, make_parent};
use crate::phase_run::Trainer;

/// What a run extends, where the trainer's has more steps than a finished one.
///
/// # Errors
/// When that was made of other phases, or has as many steps.
pub(crate) fn of(finished: &FinishedRun, trainer: &Trainer) -> Result<Extends> {
    let run = finished.folder();
    ensure!(
        finished.config.stop.is_none() && trainer.config.stop.is_none(),
        "the run in {} cannot be extended: a run with --stop has as many steps as it needs; start a new one",
        terminal::path(run)
    );
    let (number, name, phase) = last_phase(trainer)?;
    let steps = phase.steps;
    let before = finished.config.phases.get_index(number).filter(|(before, _)| *before == name);
    let (_, before) = before.with_context(|| {
        format!("the run in {} has no phase {name} to extend: leave its phases as they are", terminal::path(run))
    })?;
    ensure!(
        steps > before.steps,
        "the run in {} has {} steps of phase {name}, and the longer one {steps}: give more with --extend-steps",
        terminal::path(run),
        before.steps
    );
    let run = std::path::absolute(run).with_context(|| format!("cannot find {}", run.display()))?;
    let optimizer = checkpoint(&run, number, before.steps)?.is_some();
    Ok(Extends { run, steps: before.steps, optimizer })
}

/// Writes into the folder of the longer run what it goes on from: a checkpoint, and what the shorter one has written on the
/// way.
pub(crate) fn begin(extends: &Extends, trainer: &Trainer, out: &Path) -> Result<()> {
    let Extends { run, steps, .. } = extends;
    let (number, name, _) = last_phase(trainer)?;
    let phase_run = match checkpoint(run, number, *steps)? {
        Some(checkpoint) => trainer.resume(&checkpoint)?,
        None => {
            Outputs::new(run).restore(trainer)?;
            trainer.start_at(number, *steps)?
        }
    };
    for (number, (name, _)) in trainer.config.phases.iter().enumerate().take(number) {
        for group in Outputs::repeated(&trainer.config, number) {
            copy(run, out, &Outputs::file_after(name, group))?;
        }
    }
    copy(run, out, layout::LOG.as_ref())?;
    phase_run.save(trainer, &out.join(layout::CHECKPOINTS).join(Checkpoint::folder_name(name, *steps)))
}

fn last_phase(trainer: &Trainer) -> Result<(usize, &str, &Phase)> {
    trainer.config.last_phase().context("no phase of the configuration has steps")
}

/// The checkpoint of the run's end, if it has kept that.
fn checkpoint(run: &Path, number: usize, steps: usize) -> Result<Option<Checkpoint>> {
    let latest = Checkpoint::latest(&run.join(layout::CHECKPOINTS))?;
    Ok(latest.filter(|latest| (latest.state.number, latest.state.step) == (number, steps)))
}

fn copy(from: &Path, to: &Path, file: &Path) -> Result<()> {
    let (from, to) = (from.join(file), to.join(file));
    make_parent(&to)?;
    fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
