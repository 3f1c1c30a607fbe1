//! What has happened, counted.

use std::collections::BTreeMap;
use std::fmt;

/// How a case disturbs the program.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Killed at a random moment, then called again
    Kills,
    /// Interrupted once or twice at a random moment
    Signals,
    /// A failing system call on files, or killed at one (needs strace)
    Faults,
    /// Damaged weights, configurations, photos, logs and prompts
    Inputs,
}

/// What one case has shown.
#[derive(Debug)]
pub(super) struct Verdict {
    /// What was done, such as `train` or `unet/config.json`.
    pub(super) what: String,
    /// How it ended, such as `exit 75`; for counting.
    pub(super) outcome: String,
    /// What should not be.
    pub(super) wrong: Option<String>,
}

/// The counts of a campaign.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<(Kind, String), Row>);

#[derive(Debug, Default)]
struct Row {
    cases: usize,
    failures: usize,
    outcomes: BTreeMap<String, usize>,
}

impl Tally {
    pub(super) fn add(&mut self, kind: Kind, verdict: Verdict) {
        let row = self.0.entry((kind, verdict.what)).or_default();
        row.cases += 1;
        row.failures += usize::from(verdict.wrong.is_some());
        *row.outcomes.entry(verdict.outcome).or_default() += 1;
    }

    pub(super) fn failures(&self) -> usize {
        self.0.values().map(|row| row.failures).sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<8}  {:<38}  {:>5}  {:>6}  outcomes", "kind", "what", "cases", "failed")?;
        for ((kind, what), Row { cases, failures, outcomes }) in &self.0 {
            let outcomes: Vec<_> = outcomes.iter().map(|(name, count)| format!("{name}: {count}")).collect();
            let kind = format!("{kind:?}").to_lowercase();
            writeln!(f, "{kind:<8}  {what:<38}  {cases:>5}  {failures:>6}  {}", outcomes.join(", "))?;
        }
        let cases: usize = self.0.values().map(|row| row.cases).sum();
        write!(f, "{:<8}  {:<38}  {cases:>5}  {:>6}", "all", "", self.failures())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_counted_by_what_and_how() {
        let mut tally = Tally::default();
        for (outcome, wrong) in [("exit 0", None), ("exit 75", None), ("exit 0", Some("half a file".to_owned()))] {
            tally.add(Kind::Kills, Verdict { what: "train".to_owned(), outcome: outcome.to_owned(), wrong });
        }
        assert_eq!(tally.failures(), 1);
        let table = tally.to_string();
        assert!(table.contains("exit 0: 2, exit 75: 1") && table.lines().count() == 3, "{table}");
    }
}
