//! All tests of the crate that use it as others do, in one program, which is linked once.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod conditioning;
mod diffusers;
mod finite;
mod sdxl;
