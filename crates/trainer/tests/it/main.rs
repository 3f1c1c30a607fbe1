//! All tests of the crate that use it as others do, in one program, which is linked once.
#![allow(clippy::unwrap_used)]

mod accumulation;
mod common;
mod companions;
mod continued;
mod hostile;
mod methods;
mod options;
mod resume;
mod resume_methods;
mod sdxl;
mod session;
mod stop;
mod trajectory;
mod views;
