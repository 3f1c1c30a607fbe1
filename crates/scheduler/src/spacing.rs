//! How a sampler spreads its timesteps (Lin et al. 2023, table 2).

use std::fmt;

use serde::Deserialize;

/// How the sampler's timesteps are spread over the trained ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// Multiples of ⌊T / steps⌋, plus `steps_offset`: ends near 0, starts well below T.
    Leading,
    /// Evenly from T − 1 to 0, both included.
    Linspace,
    /// T − 1 downwards in steps of T / steps: the first step is at full noise.
    Trailing,
}

impl fmt::Display for TimestepSpacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leading => "leading",
            Self::Linspace => "linspace",
            Self::Trailing => "trailing",
        })
    }
}
