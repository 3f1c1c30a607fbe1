//! All tests of the crate that use it as others do, in one program, which is linked once.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod common;
mod custom_diffusion;
mod embeddings;
mod folder;
mod loaded;
mod names;
mod single_file;
