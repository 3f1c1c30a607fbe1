//! All tests of the crate that use it as others do, in one program, which is linked once.
#![allow(clippy::unwrap_used)]

mod daam;
mod display;
mod properties;
