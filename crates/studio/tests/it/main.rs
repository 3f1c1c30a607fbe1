//! The studio over HTTP, with a stand-in for the program that it starts.
#![allow(clippy::unwrap_used)]

mod client;
mod deletion;
mod pages;
mod queue;
mod safety;
mod stand_in;
