//! `train`: learn a subject from photos.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use distributed::Group;
use options::DeviceChoice;
use prompts::PromptSet;
use requests::{NO_RESULTS, Share, Train};
use runs::{Ending, ModelFingerprint, Stop, TrainConfig};
use serde::Serialize;
use tch::Device;
use trainer::{FinishedRun, Follower, Opening, Rehearsal, Session};

use crate::context::{Context, Event, Interrupted};
use crate::evaluate::scoring_clip;
use crate::profiling::Profiler;
use crate::results::FinishedResults;
use crate::{config, inputs, results};

/// A finished run.
#[derive(Debug, Clone, Serialize)]
pub struct Trained {
    /// Its folder.
    pub run: PathBuf,
    /// What it is shown with, unless that was switched off.
    pub results: Option<FinishedResults>,
}

/// What a run would take.
#[derive(Debug, Clone, Serialize)]
pub struct Planned {
    /// The folder that it would have.
    pub run: PathBuf,
    /// Its phases that have steps.
    pub phases: Vec<PlannedPhase>,
    /// The time of all steps. Images and files come on top.
    pub seconds: f64,
    /// The most memory in use, in bytes: of tensors on a GPU, of the process on a CPU.
    pub peak_memory: u64,
    /// The most bytes on disk while it trains, images of the class noun not counted.
    pub disk: u64,
}

/// What a phase would take.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedPhase {
    /// Its name.
    pub phase: String,
    /// Its number, from 1.
    pub number: usize,
    /// Its steps.
    pub steps: usize,
    /// The time of one.
    pub seconds_per_step: f64,
}

/// Checks everything and takes two steps of each phase, whose results are thrown away.
pub(crate) fn plan(request: &Train, context: &Context<'_>) -> Result<Planned> {
    check_share(request)?;
    let (run, device) = (request.folder(), libtorch::resolve(request.device)?);
    let layers = config::of_train(request, &run)?;
    let rehearsal = Rehearsal::of(layers, &run, device, opening(request))?;
    context.notes(rehearsal.notes);
    check_results(&rehearsal.config)?;
    if let Some(path) = &request.contact_sheet {
        images::save_png(path, &rehearsal.contact_sheet, &[])?;
    }
    let planned = |(number, seconds_per_step): (usize, f64)| {
        let (name, phase) = rehearsal.config.phases.get_index(number)?;
        Some(PlannedPhase { phase: name.clone(), number: number + 1, steps: phase.steps, seconds_per_step })
    };
    let mut phases: Vec<PlannedPhase> = rehearsal.seconds_per_step.into_iter().filter_map(planned).collect();
    if let Some(more) = request.extend_steps {
        // All others are done.
        phases.drain(..phases.len().saturating_sub(1));
        phases.iter_mut().for_each(|last| last.steps = more);
    }
    let seconds = phases.iter().map(|phase| phase.steps as f64 * phase.seconds_per_step).sum();
    Ok(Planned { run, phases, seconds, peak_memory: rehearsal.peak_memory, disk: rehearsal.disk })
}

/// One run cannot be shared out.
fn check_share(request: &Train) -> Result<()> {
    ensure!(
        request.share == Share::default(),
        "--index, --shard and --upload-checkpoints are of a batch: give --batch as well"
    );
    Ok(())
}

/// How the run begins.
fn opening(request: &Train) -> Opening<'_> {
    match &request.extend {
        Some(run) => Opening::Extending(run),
        None if request.resume => Opening::Resumed,
        None => Opening::New,
    }
}

/// Makes sure that the finished run can be shown.
fn check_results(config: &TrainConfig) -> Result<()> {
    if config.validation.results == NO_RESULTS {
        return Ok(());
    }
    PromptSet::load(&config.validation.results).context("the prompts of the finished run (--results)")?;
    // Where nobody can score it, that is said when the run is finished.
    let scoring = config.stop.as_ref().and_then(Stop::clip).zip(scoring_clip(None, &config.model).ok());
    if let Some((clip, scoring)) = scoring {
        let same = ModelFingerprint::of_weights(&clip.model)?.shares_file(&ModelFingerprint::of_weights(&scoring)?);
        ensure!(
            !same,
            "the CLIP in {} scores the finished run, and is no longer impartial where it has stopped it: name another with \
             --stop-clip, or give --results none",
            clip.model.display()
        );
    }
    Ok(())
}

/// None in a process that has learned with rank 0, whose run it is.
pub(crate) fn run(request: &Train, context: &Context<'_>) -> Result<Option<Trained>> {
    ensure!(!request.dry_run, "a dry run is a plan, and trains nothing");
    check_share(request)?;
    let run = request.folder();
    let processes = context.connect()?;
    if !processes.leads() {
        follow(request, &run, &processes, context)?;
        return Ok(None);
    }
    lead(request, &run, &processes, context)?;
    let finished = FinishedRun::open(&run)?;
    let shown = finished.config.validation.results != NO_RESULTS;
    let results = shown.then(|| results::show(&run, &finished.config.validation, request.device, context));
    Ok(Some(Trained { run, results: results.transpose()? }))
}

/// Everything but the results of the finished run.
///
/// # Errors
/// [`Interrupted`] where it was asked to stop.
pub(crate) fn learn(request: &Train, out: &Path, context: &Context<'_>) -> Result<()> {
    lead(request, out, &Group::alone(), context)
}

/// What the other processes do that learn with rank 0: nothing of it is shown, or written.
fn follow(request: &Train, out: &Path, processes: &Group, context: &Context<'_>) -> Result<()> {
    let device = libtorch::resolve(context.device(request.device))?;
    let layers = config::of_train(request, out)?;
    let follower = Follower::open(layers, out, device, opening(request), processes)?;
    let _deferral = context.stop().defer();
    match follower.run(&|| context.stop().asked())? {
        trainer::Outcome::Finished => Ok(()),
        trainer::Outcome::Stopped => Err(Interrupted("rank 0 has saved the progress".to_owned()).into()),
    }
}

fn lead(request: &Train, out: &Path, processes: &Group, context: &Context<'_>) -> Result<()> {
    let device = libtorch::resolve(context.device(request.device))?;
    request.options.seed.map(|seed| context.seed(seed));
    let profiler = Profiler::start(request.profiling, device);
    inputs::of_options(&request.options, context)?;
    let config = config::of_train(request, out)?.finish()?;
    check_results(&config)?;
    let open = || Session::open_leading(config::of_train(request, out)?, out, device, opening(request), processes);
    let session = tracing::trace_span!("train/load").in_scope(open)?;
    context.message(match (device, request.device) {
        (Device::Cpu, DeviceChoice::Auto) => {
            format!("computing on the CPU: {}", libtorch::cuda_unavailable().unwrap_or("there is no GPU"))
        }
        (Device::Cpu, _) => "computing on the CPU, as asked".to_owned(),
        (device, _) => format!("computing on {device:?} in {}", config.dtype),
    });
    if processes.size() > 1 {
        context.message(format!("each batch is shared by {} processes", processes.size()));
    }
    context.notes(session.notes());
    let mut deferral = Some(context.stop().defer());
    let mut prior = context.progress("images of the class noun");
    let outcome = session.run(&|| context.stop().asked(), &mut |event| match event {
        trainer::Event::Prior { done, images } => prior.reach(done, images, ""),
        trainer::Event::Phase { phase, number, phases, done, steps } => {
            context.tell(Event::Phase { phase, number, phases, done, steps });
        }
        trainer::Event::Note { text } => context.note(text),
        trainer::Event::Step { report, peak_memory } => context.tell(Event::Step {
            phase: report.phase,
            step: report.step as u64,
            losses: report.losses,
            peak_memory,
        }),
        trainer::Event::Measured { phase, measurement } => context.tell(Event::Measured { phase, measurement }),
        trainer::Event::Ended { phase, steps, ending: Ending { reason, done, taken } } => context.message(format!(
            "phase {phase} has ended after {done} of {steps} steps, as {}; step {taken} is taken",
            reason.text()
        )),
        // All that is left to do can be done again at any time.
        trainer::Event::Learned => deferral = None,
    });
    drop(deferral);
    let run = terminal::path(out);
    let ended = outcome.and_then(|outcome| match outcome {
        trainer::Outcome::Finished => {
            context.message(format!("done; everything is in {run}"));
            Ok(())
        }
        trainer::Outcome::Stopped => {
            Err(Interrupted(format!("progress saved. Resume with: train --out {run} --resume")).into())
        }
    });
    // Where the time went is of interest however it ends.
    let profiled = profiler.finish(out, context);
    ended.and(profiled)
}
