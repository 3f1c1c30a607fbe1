//! What all pages share.

use std::sync::{Arc, Mutex};

use crate::library::{Library, Source};
use crate::live::Live;
use crate::workers::Workers;

/// The studio behind its pages.
pub(crate) struct Studio {
    pub(crate) library: Library,
    pub(crate) workers: Workers,
    pub(crate) live: Arc<Live>,
    /// What clients of A1111's API have chosen.
    pub(crate) checkpoint: Mutex<Option<Source>>,
}
