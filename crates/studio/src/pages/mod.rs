//! The pages, and what their buttons do.

pub(crate) mod attention;
pub(crate) mod compare;
pub(crate) mod deletion;
pub(crate) mod exports;
pub(crate) mod gallery;
pub(crate) mod generate;
pub(crate) mod home;
pub(crate) mod photos;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod teach;
