//! What the crate promises, against transformers and against folders that are wrong.
#![allow(clippy::unwrap_used)]
#![allow(clippy::single_range_in_vec_init, reason = "one span is a list of spans")]

mod common;
mod folder;
mod placeholder;
mod transformers;
