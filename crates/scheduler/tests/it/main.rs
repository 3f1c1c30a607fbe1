//! All tests of the crate that use it as others do, in one program, which is linked once.
#![allow(clippy::unwrap_used)]

mod config;
mod forward;
mod hostile;
mod steps;
mod timesteps;
mod trajectories;
