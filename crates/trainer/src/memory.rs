//! What helps when memory runs out.

use std::fmt;

/// Stands over an error where a run needs more memory than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeedsMemory;

impl fmt::Display for NeedsMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "this run needs more memory than there is (its checkpoints are as they were): start a new one with \
             --gradient-checkpointing, --dtype bf16, or a smaller --batch-size with as much more --gradient-accumulation",
        )
    }
}

/// Adds [`NeedsMemory`] where memory has run out.
pub(crate) fn explain(error: anyhow::Error) -> anyhow::Error {
    match error.chain().any(|cause| matches!(cause.downcast_ref(), Some(libtorch::Error::OutOfMemory(_)))) {
        true => error.context(NeedsMemory),
        false => error,
    }
}
