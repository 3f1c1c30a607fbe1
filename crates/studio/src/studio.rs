//! What all pages share.

use std::sync::{Arc, Mutex};

use crate::library::Library;
use crate::live::Live;
use crate::queue::Queue;
use crate::source::Source;

/// The studio behind its pages.
pub(crate) struct Studio {
    pub(crate) library: Library,
    pub(crate) queue: Arc<Queue>,
    pub(crate) live: Arc<Live>,
    /// What clients of A1111's API have chosen.
    pub(crate) checkpoint: Mutex<Option<Source>>,
}
