//! The pages, and what their buttons do.

pub(crate) mod compare;
pub(crate) mod gallery;
pub(crate) mod generate;
pub(crate) mod home;
pub(crate) mod run;
pub(crate) mod teach;
