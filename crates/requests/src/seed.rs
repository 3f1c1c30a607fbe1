//! `--seed`.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A seed; on the command line, -1 stands for a random one, as in other programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seed {
    value: u64,
    random: bool,
}

impl Seed {
    /// The seed.
    pub fn get(self) -> u64 {
        self.value
    }

    /// Whether it was chosen at random, so that a user has to be told.
    pub fn is_random(self) -> bool {
        self.random
    }
}

impl From<u64> for Seed {
    fn from(value: u64) -> Self {
        Self { value, random: false }
    }
}

impl FromStr for Seed {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "-1" {
            // 32 bits, as other programs take no more.
            let value = getrandom::u32().context("the system gives no random numbers; give a seed")?.into();
            return Ok(Self { value, random: true });
        }
        let value = text.parse::<u64>();
        value.map(Self::from).map_err(|_| Error::msg("a seed is a whole number from 0, or -1 for a random one"))
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl Serialize for Seed {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(self.value)
    }
}

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        u64::deserialize(from).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_one_is_another_seed_each_time() {
        let seeds = [(); 3].map(|()| "-1".parse::<Seed>().unwrap());
        assert!(seeds.iter().all(|seed| seed.random && seed.get() <= u32::MAX.into()));
        assert!(seeds[0] != seeds[1] || seeds[1] != seeds[2], "{seeds:?}");
        assert_eq!("18446744073709551615".parse::<Seed>().unwrap(), Seed::from(u64::MAX));
        for wrong in ["-2", "1.5", "", "18446744073709551616", "random"] {
            assert!(wrong.parse::<Seed>().unwrap_err().to_string().contains("-1 for a random one"));
        }
    }
}
