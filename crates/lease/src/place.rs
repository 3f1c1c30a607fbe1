//! Where leases of a piece of work are kept.

use std::time::Duration;

use anyhow::Result;

use crate::Holder;

/// The last lease of a piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1.
    pub number: u64,
    /// Whose it is.
    pub holder: Holder,
    /// How long ago it was written, by the clock of the place.
    pub age: Duration,
}

/// A folder or a bucket that all workers see.
pub trait Place: Send + Sync {
    /// The lease with the highest number.
    ///
    /// # Errors
    /// When it cannot be read, or is not of this program.
    fn last(&self) -> Result<Option<Entry>>;

    /// Writes a lease that must be new; returns whether it is.
    ///
    /// # Errors
    /// When it cannot be written.
    fn create(&self, number: u64, holder: &Holder) -> Result<bool>;

    /// Writes a lease again.
    ///
    /// # Errors
    /// When it cannot be written.
    fn replace(&self, number: u64, holder: &Holder) -> Result<()>;

    /// Removes leases that are lower than `number`; those that stay do no harm.
    fn remove_below(&self, number: u64);
}
