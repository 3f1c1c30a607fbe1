//! How long a server is waited for.

use std::time::Duration;

/// How long a server is asked again that refuses for the moment, or does not answer.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How often at most.
    pub retries: usize,
    /// How long in all.
    pub total: Duration,
    /// The wait for an answer, or for more of it.
    pub answer: Duration,
}

impl Patience {
    /// For files.
    pub const LONG: Self = Self { retries: 14, total: Duration::from_secs(120), answer: Duration::from_secs(60) };
    /// For heartbeats: one that fails takes less than the time between two, so that a worker knows in time that it has lost its lease.
    pub const SHORT: Self = Self { retries: 3, total: Duration::from_secs(2), answer: Duration::from_secs(2) };
}
