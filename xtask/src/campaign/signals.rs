//! Interrupted once or twice at random moments.

use std::time::{Duration, Instant};

use super::case::{Case, half_written};
use super::child::Ending;
use super::prepared::{WORKS, Work};
use super::tally::Verdict;

const SIGNALS: [(&str, i32); 3] = [("HUP", 1), ("INT", 2), ("TERM", 15)];
/// The state is kept; the same command resumes.
const KEPT: i32 = 75;
/// The exit code of a second signal is 128 and its number.
const SECOND: i32 = 128;
/// A second signal stops at once; a busy machine may take this long to notice.
const AT_ONCE: Duration = Duration::from_secs(2);
/// From the beginning of `main` until its handlers stand.
const UNPREPARED: Duration = Duration::from_millis(300);

/// How many of the commands are interrupted fully, and how often the others.
const FULLY: u32 = 3;
const ROUND: u64 = 9 * FULLY as u64 + WORKS.len() as u64;

/// All cases of a count: so many for each of the first three commands, and a tenth for each other.
pub(super) fn cases(times: u32) -> u32 {
    FULLY * times + (WORKS.len() as u32 - FULLY) * others(times)
}

fn others(times: u32) -> u32 {
    times.div_ceil(10)
}

/// Which command a case of a count interrupts: of a round, ten times each of the first three and once each other.
fn work(number: u64) -> &'static Work {
    let (full, place) = (FULLY as usize, (number % ROUND) as usize);
    if place < 10 * full { &WORKS[place % full] } else { &WORKS[place - 9 * full] }
}

pub(super) fn run(case: &Case<'_>, number: Option<u64>) -> anyhow::Result<Verdict> {
    let chosen = case.chance(|chance| chance.next() % ROUND);
    let work = work(number.unwrap_or(chosen));
    let (share, twice, gap) = case.chance(|chance| (chance.unit(), chance.below(2) == 1, chance.unit()));
    let [first, second] = case.chance(|chance| [*chance.pick(&SIGNALS), *chance.pick(&SIGNALS)]);
    let moment = case.prepared.time(work).mul_f64(share);
    case.note(format!("{} after {:.3} s", first.0, moment.as_secs_f64()));

    let mut running = case.start(case.prepared.command(&case.prepared.arguments(work, false)))?;
    let mut begun: Option<Instant> = None;
    while running.elapsed() < moment && running.wait(Duration::from_millis(1))? {
        if begun.is_none() && running.has_begun() {
            begun = Some(Instant::now());
        }
    }
    let prepared = begun.is_some_and(|begun| begun.elapsed() > UNPREPARED);
    running.signal(first.0);
    let mut after_second = None;
    if twice && running.wait(Duration::from_secs_f64(0.05 * gap))? {
        case.note(format!("{} after another {:.3} s", second.0, 0.05 * gap));
        running.signal(second.0);
        after_second = Some(Instant::now());
    }
    let ended = running.end()?;
    let late = after_second.map(|sent| sent.elapsed()).filter(|time| *time > AT_ONCE);

    let signals: &[(&str, i32)] = if after_second.is_some() { &[first, second] } else { &[first] };
    let (outcome, wrong) = match ended.ending {
        Ending::Code(0) => ("exit 0".to_owned(), None),
        Ending::Code(KEPT) => ("exit 75".to_owned(), None),
        Ending::Code(code) if after_second.is_some() && signals.iter().any(|(_, signal)| SECOND + signal == code) => {
            (format!("exit {code}"), None)
        }
        Ending::Signal(signal) if signals.iter().any(|(_, sent)| *sent == signal) => {
            let wrong = prepared.then(|| format!("it died of signal {signal}, which it should have taken"));
            (format!("signal {signal}"), wrong)
        }
        other => {
            let last = ended.said.lines().last().unwrap_or_default();
            (format!("{other:?}"), Some(format!("it ended with {other:?} after {}: {last}", first.0)))
        }
    };
    let wrong = wrong
        .or_else(|| late.map(|time| format!("a second signal took {:.1} s", time.as_secs_f64())))
        .or_else(|| ended.left_behind.then(|| "it left a process behind".to_owned()))
        .or_else(|| ended.said.contains("panicked at").then(|| "it panicked".to_owned()))
        .or(half_written(&case.folder())?);
    // What was kept must resume, which takes longer than the rest: now and then.
    let again = wrong.is_none() && case.chance(|chance| chance.below(8)) == 0;
    let wrong = if again { case.again(work)? } else { wrong };
    Ok(Verdict { what: work.name.to_owned(), outcome, wrong })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_has_ten_times_as_many_of_those_that_take_long() {
        assert_eq!(cases(200), 3 * 200 + 9 * 20);
        let count = |name: &str| (0..u64::from(cases(200))).filter(|number| work(*number).name == name).count();
        assert_eq!(["train", "generate", "evaluate"].map(count), [200; 3]);
        assert!(WORKS[3..].iter().all(|work| count(work.name) == 20));
    }
}
