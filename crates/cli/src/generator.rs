//! `generator`: the command lines of `generate`, one after another from standard input.

use anyhow::{Context as _, Result, bail};
use operations::{Context, Generator, Outcome, Stop};
use requests::{Command, Generate};

use crate::show::Show;

/// Answers each line, until there are no more; what goes wrong with one is told, and the next one is read.
///
/// # Errors
/// When standard input cannot be read, or it was interrupted.
pub(crate) fn answer_all(show: &Show, stop: &Stop) -> Result<()> {
    let mut generator = Generator::default();
    for line in std::io::stdin().lines() {
        let line = line.context("cannot read standard input")?;
        let events = |event| show.event(event);
        let generated =
            request(&line).and_then(|request| generator.generate(&request, &Context::new(&events, stop.clone())));
        match generated {
            Ok(generated) => show.outcome(&Outcome::Generate(generated))?,
            Err(error) if operations::is_interruption(&error) => return Err(error),
            Err(error) => {
                show.end(&format!("error: {error:#}"), "error", 2);
            }
        }
    }
    Ok(())
}

fn request(line: &str) -> Result<Generate> {
    let words: Vec<String> = serde_json::from_str(line).context("a line is to be a JSON array of words")?;
    match requests::parse(std::iter::once("attndreambooth".to_owned()).chain(words))?.command {
        Command::Generate(request) => Ok(*request),
        _ => bail!("only the command generate is taken"),
    }
}
