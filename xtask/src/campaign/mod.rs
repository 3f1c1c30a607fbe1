//! `cargo xtask campaign`: the program under hostile conditions, for a given time.
//!
//! Kinds of cases take turns until the time is up. A case follows from its seed alone, starts from the same prepared
//! folder as every other, and leaves its folder behind where something is wrong. What must hold in all of them: the
//! program ends in time and within memory by one of its own exit codes, never by a panic or a crash; no file that has its
//! final name is half-written; and where work was interrupted, the same command resumes to the same bytes.

mod case;
mod chance;
mod child;
mod faults;
mod inputs;
mod kills;
mod mutate;
mod prepared;
mod signals;
mod tally;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::{program, workspace};
use case::Case;
use prepared::Prepared;
use tally::{Kind, Tally};

/// Kill, interrupt and starve the program, and feed it damaged files, until the time is up
///
/// Each failure is printed with its seed and its folder is kept in target/campaign/failures; `--only KIND --seed SEED
/// --times 1` does it again.
#[derive(clap::Args)]
pub(crate) struct Campaign {
    /// Minutes to run
    #[arg(long, default_value_t = 2.0, value_parser = minutes)]
    minutes: f64,
    /// Cases of each kind instead of a time; of signals, as many for each of train, generate and evaluate, and a tenth for
    /// each other command
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "minutes")]
    times: Option<u32>,
    /// Seed of the first case, the next has the next seed; unset, another one each time
    #[arg(long)]
    seed: Option<u64>,
    /// Only this kind of case; can be repeated
    #[arg(long, value_enum, value_name = "KIND")]
    only: Vec<Kind>,
    /// Another build of the program than the release build, such as target/debug/attndreambooth, which checks arithmetic
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

const KINDS: [Kind; 4] = [Kind::Kills, Kind::Signals, Kind::Faults, Kind::Inputs];

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if (0.0..=100_000.0).contains(&minutes) => Ok(minutes),
        _ => Err("give a number of minutes from 0 to 100000".to_owned()),
    }
}

impl Campaign {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let program = match &self.program {
            Some(program) => std::path::absolute(program)?,
            None => {
                program::build()?;
                program::path()
            }
        };
        ensure!(program.is_file(), "there is no program {}", program.display());
        let kinds = self.kinds()?;
        let prepared = Prepared::new(&program)?;
        let seed = self.seed.unwrap_or_else(|| chance::seed_of_now() % 1_000_000_000);
        terminal::say!("cases from seed {seed} on, in {}", workspace::display(prepared.folder()));

        let mut tally = Tally::default();
        let outcome = self.cases(&prepared, &kinds, seed, &mut tally);
        // What was counted until then is of interest however it ends.
        terminal::output!("{tally}");
        outcome?;
        let failures = tally.failures();
        if failures > 0 {
            bail!("{failures} cases went wrong; their folders are in {}", workspace::display(&prepared.failures()));
        }
        Ok(())
    }

    fn cases(&self, prepared: &Prepared, kinds: &[Kind], seed: u64, tally: &mut Tally) -> anyhow::Result<()> {
        match self.times {
            Some(times) => {
                for &kind in kinds {
                    let cases = if kind == Kind::Signals { signals::cases(times) } else { times };
                    for number in 0..u64::from(cases) {
                        prepared.case(kind, seed.wrapping_add(number), Some(number), tally)?;
                    }
                }
            }
            None => {
                // The kind that has had the least time is next, so that slow cases do not crowd out quick ones.
                let started = Instant::now();
                let mut spent = vec![(Duration::ZERO, 0_u64); kinds.len()];
                while started.elapsed().as_secs_f64() < 60.0 * self.minutes {
                    let Some(next) = (0..kinds.len()).min_by_key(|&kind| spent[kind]) else { break };
                    let begun = Instant::now();
                    prepared.case(kinds[next], seed.wrapping_add(spent[next].1), None, tally)?;
                    spent[next] = (spent[next].0 + begun.elapsed(), spent[next].1 + 1);
                }
            }
        }
        Ok(())
    }

    /// Those that were asked for; all that this machine can do otherwise.
    fn kinds(&self) -> anyhow::Result<Vec<Kind>> {
        let mut kinds = if self.only.is_empty() { KINDS.to_vec() } else { self.only.clone() };
        kinds.sort();
        kinds.dedup();
        if kinds.contains(&Kind::Faults)
            && let Err(error) = faults::tools()
        {
            if !self.only.is_empty() {
                return Err(error);
            }
            terminal::note!("no faults are injected: {error:#}");
            kinds.retain(|kind| *kind != Kind::Faults);
        }
        Ok(kinds)
    }
}

impl Prepared {
    /// One case, which goes into the tally; an error is one of the campaign itself.
    fn case(&self, kind: Kind, seed: u64, number: Option<u64>, tally: &mut Tally) -> anyhow::Result<()> {
        let case = Case::new(self, kind, seed).with_context(|| format!("cannot prepare case {seed}"))?;
        let verdict = match kind {
            Kind::Kills => kills::run(&case),
            Kind::Signals => signals::run(&case, number),
            Kind::Faults => faults::run(&case),
            Kind::Inputs => inputs::run(&case),
        };
        let verdict = verdict.with_context(|| format!("cannot do case {seed} of {kind:?}"))?;
        if let Some(wrong) = &verdict.wrong {
            let kept = case.keep(&verdict)?;
            let name = format!("{kind:?}").to_lowercase();
            terminal::say!(
                "FAILED --only {name} --seed {seed} --times 1: {}: {wrong} ({})",
                verdict.what,
                workspace::display(&kept)
            );
        }
        tally.add(kind, verdict);
        Ok(())
    }
}
