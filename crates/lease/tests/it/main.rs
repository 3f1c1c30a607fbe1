//! Leases as workers use them.
#![allow(clippy::unwrap_used)]

mod folders;
mod workers;
