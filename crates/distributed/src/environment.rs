//! What whoever starts the processes has set.

use anyhow::{Context, Result, bail, ensure};

/// More processes than any run has use for.
const MOST: usize = 4096;

/// This process's place among several, as `torchrun` and others give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The number of this process, from 0.
    pub rank: usize,
    /// How many there are, at least two.
    pub size: usize,
    /// Its number on its machine, by which it chooses a GPU.
    pub local_rank: usize,
    /// Where they meet: the machine of rank 0.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Whether somebody else, such as `torchrun`, serves the store there.
    pub served: bool,
}

impl Environment {
    /// Reads the variables by `get`; none where `WORLD_SIZE` is not set or 1.
    ///
    /// # Errors
    /// Names the variable that is missing or is no such number.
    pub fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let number = |name: &str| -> Result<Option<usize>> {
            let parse = |value: String| {
                value.trim().parse().with_context(|| format!("{name} is {value:?}, but must be a whole number"))
            };
            get(name).map(parse).transpose()
        };
        let (rank, size) = match (number("RANK")?, number("WORLD_SIZE")?) {
            (None, None) | (Some(0) | None, Some(1)) => return Ok(None),
            (Some(rank), Some(size)) => (rank, size),
            (Some(rank), None) => bail!("RANK is {rank}, but WORLD_SIZE is not set: {HINT}"),
            (None, Some(size)) => bail!("WORLD_SIZE is {size}, but RANK is not set: {HINT}"),
        };
        ensure!((1..=MOST).contains(&size), "WORLD_SIZE is {size}, but must be from 1 to {MOST}");
        ensure!(
            rank < size,
            "RANK is {rank}, but with a WORLD_SIZE of {size} ranks are numbered from 0 to {}",
            size - 1
        );
        let address =
            get("MASTER_ADDR").with_context(|| format!("WORLD_SIZE is {size}, but MASTER_ADDR is not set: {HINT}"))?;
        let port = number("MASTER_PORT")?
            .with_context(|| format!("WORLD_SIZE is {size}, but MASTER_PORT is not set: {HINT}"))?;
        let port = u16::try_from(port).ok().filter(|port| *port > 0);
        let port = port.context("MASTER_PORT must be from 1 to 65535")?;
        let local_rank = number("LOCAL_RANK")?.unwrap_or(0);
        ensure!(local_rank < size, "LOCAL_RANK is {local_rank}, but WORLD_SIZE is {size}");
        // As torch.distributed's rendezvous has it.
        let served = get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        Ok(Some(Self { rank, size, local_rank, address, port, served }))
    }
}

const HINT: &str = "several processes that learn together need RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun sets them; \
                    one alone needs none of them";

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(&str, &str); 5] =
        [("RANK", "1"), ("WORLD_SIZE", "3"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "node-0"), ("MASTER_PORT", "29500")];

    /// What is read where some of them are otherwise.
    fn read(changes: &[(&str, Option<&str>)]) -> Result<Option<Environment>> {
        Environment::read(&|name| match changes.iter().find(|(changed, _)| *changed == name) {
            Some((_, value)) => value.map(str::to_owned),
            None => ALL.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
        })
    }

    #[test]
    fn what_torchrun_sets_is_read_and_one_process_is_alone() {
        let address = "node-0".to_owned();
        let expected = Environment { rank: 1, size: 3, local_rank: 1, address, port: 29500, served: false };
        assert_eq!(read(&[]).unwrap(), Some(expected.clone()));
        assert_eq!(read(&[("LOCAL_RANK", None)]).unwrap(), Some(Environment { local_rank: 0, ..expected.clone() }));
        let served = read(&[("TORCHELASTIC_USE_AGENT_STORE", Some("True"))]).unwrap();
        assert_eq!(served, Some(Environment { served: true, ..expected }));
        for alone in [
            &[("RANK", None), ("WORLD_SIZE", None)][..],
            &[("RANK", Some("0")), ("WORLD_SIZE", Some("1")), ("MASTER_ADDR", None)],
            &[("RANK", Some("")), ("WORLD_SIZE", Some(""))],
        ] {
            assert_eq!(read(alone).unwrap(), None);
        }
    }

    #[test]
    fn what_is_missing_or_no_number_is_named() {
        for (name, value, words) in [
            ("RANK", None, "RANK is not set"),
            ("WORLD_SIZE", None, "WORLD_SIZE is not set"),
            ("MASTER_ADDR", None, "WORLD_SIZE is 3, but MASTER_ADDR is not set"),
            ("MASTER_ADDR", Some(""), "MASTER_ADDR is not set"),
            ("MASTER_PORT", None, "MASTER_PORT is not set"),
            ("MASTER_PORT", Some("0"), "MASTER_PORT must be"),
            ("MASTER_PORT", Some("70000"), "MASTER_PORT must be"),
            ("RANK", Some("3"), "from 0 to 2"),
            ("RANK", Some("-1"), "RANK is \"-1\""),
            ("WORLD_SIZE", Some("many"), "WORLD_SIZE is \"many\""),
            ("WORLD_SIZE", Some("1000000"), "from 1 to 4096"),
            ("WORLD_SIZE", Some("0"), "from 1 to 4096"),
            ("LOCAL_RANK", Some("7"), "LOCAL_RANK is 7"),
        ] {
            let error = format!("{:#}", read(&[(name, value)]).unwrap_err());
            assert!(error.contains(words) && !error.contains('\n'), "{error}");
        }
    }
}
