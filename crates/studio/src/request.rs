//! Command lines of what pages ask for.

use anyhow::{Result, bail};

/// `--name=value` for each that is given.
pub(crate) fn given(values: &[(&str, &String)]) -> Vec<String> {
    let given = values.iter().filter(|(_, value)| !value.trim().is_empty());
    given.map(|(name, value)| format!("--{name}={}", value.trim())).collect()
}

/// Whether the program takes a command line.
///
/// # Errors
/// What is wrong with it, in the program's words.
pub(crate) fn check(arguments: &[String]) -> Result<()> {
    let line = std::iter::once("attndreambooth").chain(arguments.iter().map(String::as_str));
    match requests::parse(line) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let first = text.split("\n\n").next().unwrap_or_default();
            let words: Vec<&str> = first.trim_start_matches("error: ").split_whitespace().collect();
            bail!("{}", words.join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_the_programs_words() {
        let line = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        check(&line("generate --model=m --prompt=--help --steps=3")).unwrap();
        let error = check(&line("generate --model=m --prompt=x --images=0")).unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid value '0' for '--images <N>': it must be from 1 to 10000: all of them are generated"
        );
        let values = [("steps", &String::new()), ("seed", &" 3 ".to_owned())];
        assert_eq!(given(&values), ["--seed=3"]);
    }
}
