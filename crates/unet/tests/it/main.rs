//! All tests of the crate that use it as others do, in one program, which is linked once.
//! What measures the memory of the whole process is a program of its own, beside this folder.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod checkpointing;
mod full;
mod hostile;
mod properties;
mod tiny;
mod variants;
