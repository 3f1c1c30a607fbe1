//! All tests of the crate that use it as others do, in one program, which is linked once.
#![allow(clippy::unwrap_used)]

mod attend;
mod batch;
mod common;
mod cuda;
mod evaluate;
mod export;
mod finite;
mod folders;
mod generate;
mod generator;
mod inspect;
mod interface;
mod interrupts;
mod lora;
mod merge;
mod methods;
mod miniature;
mod moved;
mod notes;
mod prior;
mod probe;
mod processes;
mod profile;
mod remote;
mod report;
mod sdxl;
mod single_file;
mod table;
mod train;
