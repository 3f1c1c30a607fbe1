//! Everything that `attndreambooth` can do as typed calls: a request in, a result out, one stream of events on the way.
//!
//! ```no_run
//! use operations::{Context, Event, Stop};
//! use requests::{Generate, Train};
//!
//! let stop = Stop::default(); // another thread may ask a clone of it to stop
//! let show = |event: Event| println!("{}", serde_json::to_string(&event).expect("events are plain data"));
//! let context = Context::new(&show, stop);
//!
//! let mut train = Train { out: Some("runs/rex".into()), ..Train::default() };
//! train.options.model = Some("fixtures/miniature".into());
//! train.options.concept = Some("photos/rex".into());
//! train.options.category = Some("dog".to_owned());
//! let trained = operations::train(&train, &context)?;
//!
//! let generate = Generate { run: Some(trained.run), ..Generate::new("a [V] dog on the moon") };
//! println!("{:?}", operations::generate(&generate, &context)?.images);
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: prints nothing; what is known to be wrong is found before anything slow or lasting is done; no operation calls
//! another through a command line; what LibTorch raises is an error, and memory that has run out is explained.

mod ablate;
mod attend;
mod batch;
mod bench;
mod check_judge;
mod compare;
mod compute;
mod config;
mod context;
mod destination;
mod evaluate;
mod export;
mod generate;
mod inputs;
mod inspect;
mod loras;
mod memory;
mod merge;
mod models;
mod pieces;
mod pretrain;
mod probe;
mod profiling;
mod report;
mod results;
mod same_run;
mod table;
mod train;
mod weights;

use anyhow::{Context as _, Result};
use memory::guarded;
use requests::Command;
use serde::Serialize;

pub use ablate::Ablated;
pub use attend::Attended;
pub use batch::Batched;
pub use bench::Benched;
pub use check_judge::ExaminedJudge;
pub use compare::Compared;
pub use config::Configured;
pub use context::{Context, Deferral, Event, Interrupted, Stop, is_interruption};
pub use evaluate::Evaluated;
pub use export::Exported;
pub use generate::{Generated, Generator};
pub use inspect::Inspected;
pub use judge::Agreement;
pub use merge::Merged;
pub use pretrain::Pretrained;
pub use probe::{Probed, ProbedTensor};
pub use report::Reported;
pub use results::FinishedResults;
pub use table::{TablePlanned, Tabled};
pub use train::{Planned, PlannedPhase, Trained};
pub use weights::{PublishedModel, PublishedModels};

/// What a command has come to.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each is what the function of its name returns")]
pub enum Outcome {
    Train(Trained),
    Batch(Batched),
    Plan(Planned),
    Generate(Generated),
    Evaluate(Box<Evaluated>),
    CheckJudge(Box<ExaminedJudge>),
    Ablate(Box<Ablated>),
    Table(Tabled),
    Attend(Attended),
    Inspect(Box<Inspected>),
    Report(Reported),
    Compare(Compared),
    Export(Exported),
    Merge(Merged),
    Weights(PublishedModels),
    Config(Configured),
    Probe(Probed),
    Pretrain(Box<Pretrained>),
    Bench(Benched),
    /// This process has done its share for rank 0, whose outcome it is.
    Shared,
}

/// Does what a command asks for.
///
/// # Errors
/// As the function of the command's name.
pub fn execute(command: &Command, context: &Context<'_>) -> Result<Outcome> {
    if let Some(environment) = context.environment() {
        let shared = match command {
            Command::Train(request) => !request.dry_run && request.batch.is_none(),
            Command::Generate(_) => true,
            Command::Evaluate(request) => !request.check_judge,
            _ => false,
        };
        anyhow::ensure!(
            shared,
            "WORLD_SIZE is {}, but only the training of one subject, `generate` and `evaluate` are done by several processes \
             together: unset RANK and WORLD_SIZE; subjects and cells are shared out by --index and --shard",
            environment.size
        );
    }
    Ok(match command {
        Command::Train(request) if request.dry_run => Outcome::Plan(plan(request, context)?),
        Command::Train(request) if request.batch.is_some() => Outcome::Batch(train_batch(request, context)?),
        Command::Train(request) => match guarded(|| train::run(request, context))? {
            Some(trained) => Outcome::Train(trained),
            None => Outcome::Shared,
        },
        Command::Generate(request) => match guarded(|| generate::run(request, context))? {
            Some(generated) => Outcome::Generate(generated),
            None => Outcome::Shared,
        },
        Command::Evaluate(request) if request.check_judge => Outcome::CheckJudge(Box::new(check_judge(request)?)),
        Command::Evaluate(request) => match guarded(|| evaluate::run(request, context))? {
            Some(evaluated) => Outcome::Evaluate(Box::new(evaluated)),
            None => Outcome::Shared,
        },
        Command::Ablate(request) => Outcome::Ablate(Box::new(ablate(request, context)?)),
        Command::Table(request) => Outcome::Table(table(request, context)?),
        Command::Attend(request) => Outcome::Attend(attend(request, context)?),
        Command::Inspect(request) => Outcome::Inspect(Box::new(inspect(request, context)?)),
        Command::Report(request) => Outcome::Report(report(request, context)?),
        Command::Compare(request) => Outcome::Compare(compare(request, context)?),
        Command::Export(request) => Outcome::Export(export(request, context)?),
        Command::Merge(request) => Outcome::Merge(merge(request, context)?),
        Command::Config(request) => Outcome::Config(config(request)?),
        Command::Probe(request) => Outcome::Probe(probe(request, context)?),
        Command::Pretrain(request) => Outcome::Pretrain(Box::new(pretrain(request, context)?)),
        Command::Bench(request) => Outcome::Bench(bench(request)?),
        Command::Weights(request) => Outcome::Weights(weights(request, context)?),
        Command::Generator => {
            anyhow::bail!("command lines are read by the program, which has them from standard input")
        }
        Command::Studio(_) => anyhow::bail!("the studio is served by the program, whose commands it starts"),
        Command::Completions { .. } => anyhow::bail!("completions are printed by the program that is completed"),
    })
}

/// Learns a subject from photos, and shows the finished run beside its base model.
///
/// # Errors
/// [`Interrupted`] when it was asked to stop, with a checkpoint saved; else what is wrong with the configuration, the photos, the
/// model or the folder, or lack of memory or disk.
pub fn train(request: &requests::Train, context: &Context<'_>) -> Result<Trained> {
    guarded(|| train::run(request, context)?.context("rank 0 has the run"))
}

/// Learns each subject of a file in a run of its own, as far as that has not been done; processes and machines that share the folder
/// share the work.
///
/// # Errors
/// Lists the subjects that failed, after the others are done; [`Interrupted`]; a file that is none of subjects, or a folder with runs
/// of other options.
pub fn train_batch(request: &requests::Train, context: &Context<'_>) -> Result<Batched> {
    guarded(|| match &request.batch {
        Some(file) => batch::run(request, file, context),
        None => anyhow::bail!("no file of subjects is given"),
    })
}

/// What training would take: checks everything, and takes two steps of each phase whose results are thrown away. Nothing is
/// written but the contact sheet, where one is asked for.
///
/// # Errors
/// As [`train`].
pub fn plan(request: &requests::Train, context: &Context<'_>) -> Result<Planned> {
    guarded(|| train::plan(request, context))
}

/// Generates images from prompts into numbered files, with their parameters in them and in generate.jsonl.
///
/// # Errors
/// [`Interrupted`], with all finished images written; or an unusable model, run, prompt or folder.
pub fn generate(request: &requests::Generate, context: &Context<'_>) -> Result<Generated> {
    guarded(|| generate::run(request, context)?.context("rank 0 has the images"))
}

/// What the judge of a base model can see of pictures whose captions are known.
///
/// # Errors
/// When the model has no such judge, or a file is damaged.
pub fn check_judge(request: &requests::Evaluate) -> Result<ExaminedJudge> {
    guarded(|| check_judge::run(request))
}

/// Generates what is missing of an evaluation and scores it, in scores.json.
///
/// # Errors
/// As [`generate`]; a folder that holds images of another configuration, or a CLIP that cannot be used.
pub fn evaluate(request: &requests::Evaluate, context: &Context<'_>) -> Result<Evaluated> {
    guarded(|| evaluate::run(request, context)?.context("rank 0 has the scores"))
}

/// Trains and evaluates every variant of the method for every subject and seed, as far as that has not been done.
///
/// # Errors
/// As [`train`] and [`evaluate`]; a run that was made with other options.
pub fn ablate(request: &requests::Ablate, context: &Context<'_>) -> Result<Ablated> {
    guarded(|| ablate::run(request, context))
}

/// Plans, computes or collects a table of methods over subjects, seeds and prompts.
///
/// # Errors
/// As [`train`] and [`evaluate`]; a plan that cannot be done, or cells that another plan has made.
pub fn table(request: &requests::Table, context: &Context<'_>) -> Result<Tabled> {
    guarded(|| table::run(request, context))
}

/// Writes attention heat maps of a prompt's words.
///
/// # Errors
/// As [`generate`]; words that the prompt does not have.
pub fn attend(request: &requests::Attend, context: &Context<'_>) -> Result<Attended> {
    guarded(|| attend::run(request, context))
}

/// Compares a learned embedding with its initial value and the vocabulary, in inspect.json and images.
///
/// # Errors
/// As [`generate`].
pub fn inspect(request: &requests::Inspect, context: &Context<'_>) -> Result<Inspected> {
    guarded(|| inspect::run(request, context))
}

/// Writes a run as a page.
///
/// # Errors
/// When there is no run, a file in it is damaged, or the page cannot be written.
pub fn report(request: &requests::Report, context: &Context<'_>) -> Result<Reported> {
    guarded(|| report::run(request, context))
}

/// Writes several runs as one page with a blind study, or counts the study's answers.
///
/// # Errors
/// When a folder holds no run, or a file in it is damaged.
pub fn compare(request: &requests::Compare, context: &Context<'_>) -> Result<Compared> {
    guarded(|| compare::run(request, context))
}

/// Writes what a run has learned for other programs.
///
/// # Errors
/// When the run is not finished, or there is something at the destination.
pub fn export(request: &requests::Export, context: &Context<'_>) -> Result<Exported> {
    guarded(|| export::run(request, context))
}

/// Merges finished runs of Custom Diffusion into one model.
///
/// # Errors
/// Names a run that is of another method or base model, or a token that two runs have; when the captions are too few, or there
/// is something at the destination.
pub fn merge(request: &requests::Merge, context: &Context<'_>) -> Result<Merged> {
    guarded(|| merge::run(request, context))
}

/// Lists, downloads or verifies published models.
///
/// # Errors
/// [`Interrupted`], with what has come kept; a name that nothing has, no network, or files that are not as published.
pub fn weights(request: &requests::Weights, context: &Context<'_>) -> Result<PublishedModels> {
    weights::run(request, context)
}

/// The configuration of a run before it starts, or the schema of all.
///
/// # Errors
/// Names a value that is not valid, or a file that cannot be read.
pub fn config(request: &requests::Config) -> Result<Configured> {
    config::run(request)
}

/// Runs one component on tensors from a file.
///
/// # Errors
/// When inputs are missing or of other shapes than the component takes.
pub fn probe(request: &requests::Probe, context: &Context<'_>) -> Result<Probed> {
    guarded(|| probe::run(request, context))
}

/// Trains the miniature base model, assembles and measures it.
///
/// # Errors
/// [`Interrupted`], with a checkpoint saved; or sources that cannot be read.
pub fn pretrain(request: &requests::Pretrain, context: &Context<'_>) -> Result<Pretrained> {
    guarded(|| pretrain::run(request, context))
}

/// Times a piece of work, or makes what it is timed on.
///
/// # Errors
/// When the model cannot do the work.
pub fn bench(request: &requests::Bench) -> Result<Benched> {
    guarded(|| bench::run(request))
}
