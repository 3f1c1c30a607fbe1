//! What each command of `attndreambooth` takes: one typed definition with its help and its defaults.
//!
//! The command line parses it, the library `operations` executes it, `cargo xtask` shows its help, and a program that has
//! neither builds it directly or reads it as JSON:
//!
//! ```
//! use requests::{Command, Train, parse};
//!
//! let line = "attndreambooth train --instance_data_dir photos/rex --category dog --out runs/rex";
//! let Command::Train(train) = parse(line.split(' '))?.command else { unreachable!() };
//! assert_eq!(train.options.concept, Some("photos/rex".into()));
//! let same: Train = serde_json::from_value(serde_json::to_value(&train)?)?;
//! assert_eq!(same.out, train.out);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariants: needs neither LibTorch nor a file; a default stands in one place, where clap shows it.
#![allow(rustdoc::broken_intra_doc_links, reason = "help texts say [V]")]

mod ablate;
mod attend;
mod bench;
mod bounded;
mod compare;
mod concept;
mod config;
mod evaluate;
mod export;
mod generate;
mod inspect;
mod lora;
mod merge;
mod pieces;
mod pretrain;
mod probe;
mod report;
mod seed;
mod shared;
mod studio;
mod table;
mod train;
mod weights;

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

pub use ablate::{Ablate, AblatedSubject, AblationVariant, TrainOptionsAfterDashes};
pub use attend::{Attend, ColorScale};
pub use bench::{Bench, Procedural};
pub use clap_complete::Shell;
pub use compare::Compare;
pub use concept::AddedConcept;
pub use config::{Config, ConfigAction, ConfigFormat};
pub use evaluate::{Evaluate, MaskBackground};
pub use export::{Export, ExportFormat, FileDtype, LoraExport};
pub use generate::Generate;
pub use inspect::Inspect;
pub use lora::LoraFile;
pub use merge::Merge;
pub use pieces::{Pieces, Shard, Share};
pub use pretrain::{Part, Pretrain};
pub use probe::{Probe, ProbedComponent};
pub use report::Report;
pub use seed::Seed;
pub use shared::{Compute, Profiling, Sampler, SingleFile, Size};
pub use studio::Studio;
pub use table::{Keep, Table, TableAction, TableFolder, TableFormat};
pub use train::{METHODS, NO_RESULTS, PhaseFlags, Preset, StopKind, Train, TrainOptions};
pub use weights::{Weights, WeightsAction};

/// Personalise Stable Diffusion with a few photos, by attention-aligned DreamBooth (arXiv 2406.05000)
#[derive(Parser, Debug, Clone)]
#[command(name = "attndreambooth", after_help = EXIT_CODES, disable_help_subcommand = true)]
#[command(subcommand_help_heading = "Commands", max_term_width = 100)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command and its options.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Write events and the result as JSON lines to standard output, and nothing else there
    #[arg(long, global = true)]
    pub json: bool,
    /// Show no progress and no messages, only notes, errors and results
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Write a log to standard error; -vv for more. RUST_LOG chooses in detail
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Do not mark generated images as such
    ///
    /// Images carry XMP metadata with IPTC's digital source type trainedAlgorithmicMedia, by which platforms recognise what
    /// a model has generated.
    #[arg(long, global = true)]
    pub no_digital_source_type: bool,
}

/// What the program can do.
#[derive(Subcommand, Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each has the help of its arguments")]
pub enum Command {
    Train(Box<Train>),
    Generate(Box<Generate>),
    Evaluate(Box<Evaluate>),
    Ablate(Box<Ablate>),
    Table(Table),
    Attend(Box<Attend>),
    Inspect(Box<Inspect>),
    Report(Report),
    Compare(Compare),
    Export(Export),
    Merge(Merge),
    Weights(Weights),
    Studio(Studio),
    /// Generate images for one request after another, and keep the model in memory for the next
    ///
    /// Each line of standard input is the command line of a `generate` as a JSON array of its words. With --json each is answered by
    /// its events, the last of which is a result or an error. It ends with its input.
    #[command(hide = true)]
    #[serde(skip)]
    Generator,
    Config(Box<Config>),
    Probe(Probe),
    Pretrain(Pretrain),
    Bench(Bench),
    /// Print a shell's completion script
    #[serde(skip)]
    Completions {
        /// The shell
        shell: Shell,
    },
}

const EXIT_CODES: &str = "\
Exit codes:
  0      Success
  2      An error that you can mend: an option, a file, a full disk; the message says what
  75     Interrupted by SIGINT (Ctrl-C), SIGTERM, SIGHUP or SIGUSR1: finished work is kept;
         the same command continues it (train: with --resume)
  128+N  Ended at once by a second signal, of number N
  1      A defect of this program";

/// Parses a command line, whose first word is the program's name. Options may be spelt with underscores, as diffusers and
/// kohya's scripts spell them.
///
/// # Errors
/// clap's, which also stand for --help and --version.
pub fn parse<T: Into<OsString>>(line: impl IntoIterator<Item = T>) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.into_iter().map(hyphenated))
}

/// `--instance_data_dir=x` as `--instance-data-dir=x`.
pub fn hyphenated(word: impl Into<OsString>) -> OsString {
    let word = word.into();
    match word.to_str().filter(|word| word.starts_with("--")) {
        Some(word) => match word.split_once('=') {
            Some((name, value)) => format!("{}={value}", name.replace('_', "-")).into(),
            None => word.replace('_', "-").into(),
        },
        None => word,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// clap panics where a parser's type is not the field's.
    #[test]
    fn numbers_have_the_types_of_their_fields() {
        for line in [
            "x inspect --run r --images 2 --nearest 3",
            "x pretrain --drawings d --steps 9 --threads 2 --learning-rate 1e-4 --batch-size 2",
            "x bench unet-step --batch-size 2 --resolution 64 --steps 3 --warm-up 0 --iterations 1 --threads 1",
            "x export --run r --out o --rank 3 --clamp-quantile 0.99",
            "x generate --run r --prompt p --lora a:0.5 --images 2 --seed 3 --batch-size 2 --steps 3 --height 64 --guidance-scale 7",
        ] {
            parse(line.split(' ')).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn names_of_peers_are_understood() {
        let line = "x train --pretrained_model_name_or_path m --instance_data_dir=a_b --output_dir o --train_batch_size 2 \
                    --max_train_steps 7 --lr_warmup_steps=3 --lr_scheduler cosine --mixed_precision bf16 --with_prior_preservation \
                    --num_class_images 9 --checkpointing_steps 5 --gradient_accumulation_steps 2";
        let Command::Train(train) = parse(line.split_whitespace()).unwrap().command else { panic!() };
        assert_eq!((train.out, train.options.concept), (Some("o".into()), Some("a_b".into())));
        assert_eq!((train.options.steps, train.options.batch_size), (Some(7), Some(2)));
    }

    #[test]
    fn what_a_constructor_makes_is_what_clap_makes() {
        let parsed = |line: &str| serde_json::to_value(parse(line.split(' ')).unwrap().command).unwrap();
        let made = |command: Command| serde_json::to_value(command).unwrap();
        assert_eq!(made(Command::Evaluate(Evaluate::new("r").into())), parsed("x evaluate --run r"));
        assert_eq!(made(Command::Generate(Generate::new("a cat").into())), {
            parsed("x generate --model m --prompt a=cat")
                .as_object_mut()
                .map(|command| {
                    command["generate"]["model"] = serde_json::Value::Null;
                    command["generate"]["prompts"] = serde_json::json!(["a cat"]);
                    serde_json::Value::Object(command.clone())
                })
                .unwrap()
        });
        assert_eq!(made(Command::Inspect(Inspect::new("r").into())), parsed("x inspect --run r"));
        let attend = Attend { run: Some("r".into()), ..Attend::new("p") };
        assert_eq!(made(Command::Attend(attend.into())), parsed("x attend --run r --prompt p"));
        assert_eq!(made(Command::Train(Box::default())), parsed("x train"));
    }
}
