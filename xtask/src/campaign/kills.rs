//! Killed at random moments, then called again.

use super::case::Case;
use super::chance::Chance;
use super::child::Ending;
use super::prepared::WORKS;
use super::tally::Verdict;

/// Up to three kills, then an undisturbed call.
pub(super) fn run(case: &Case<'_>) -> anyhow::Result<Verdict> {
    // The three that take long, and one of the others.
    let work =
        case.chance(|chance| &WORKS[if chance.below(8) < 7 { chance.below(3) } else { chance.below(WORKS.len()) }]);
    let kills = case.chance(|chance| 1 + chance.below(3));
    let mut killed = 0;
    for kill in 0..kills {
        let share = case.chance(Chance::unit);
        let moment = case.prepared.time(work).mul_f64(share);
        case.note(format!("killed after {:.3} s", moment.as_secs_f64()));
        let mut running = case.start(case.prepared.command(&case.prepared.arguments(work, kill > 0)))?;
        if running.wait(moment)? {
            running.signal("KILL");
        }
        let ended = running.end()?;
        match ended.ending {
            Ending::Signal(9) => killed += 1,
            // It was quicker; `export` refuses what is there already.
            Ending::Code(0) => break,
            Ending::Code(2) if work.name == "export" && kill > 0 => break,
            _ => {
                let wrong =
                    Some(ended.wrong().unwrap_or_else(|| format!("called again, it ended with {:?}", ended.ending)));
                return Ok(Verdict { what: work.name.to_owned(), outcome: "failed".to_owned(), wrong });
            }
        }
    }
    let outcome = if killed == 0 { "done before".to_owned() } else { format!("whole after {killed}") };
    Ok(Verdict { what: work.name.to_owned(), outcome, wrong: case.again(work)? })
}
