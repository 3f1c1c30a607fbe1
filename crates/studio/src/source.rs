//! What images are generated with.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, bail};

use crate::name::Name;

/// What images are generated with, as pages name it: `run:NAME` or `model:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Source {
    Run(Name),
    Model(Name),
}

impl Source {
    pub(crate) fn name(&self) -> &Name {
        match self {
            Self::Run(name) | Self::Model(name) => name,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(name) => write!(f, "run:{name}"),
            Self::Model(name) => write!(f, "model:{name}"),
        }
    }
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            Some(("run", name)) => Ok(Self::Run(name.parse()?)),
            Some(("model", name)) => Ok(Self::Model(name.parse()?)),
            _ => bail!("{:?} is neither run:NAME nor model:NAME", terminal::shortened(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_names() {
        for text in ["run:my-dog", "model:sd2.1-base"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        for text in ["", "run:", "run:../x", "model:/etc", "file:x", "my-dog", "run:.studio"] {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
    }
}
