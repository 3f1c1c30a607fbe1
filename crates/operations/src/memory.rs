//! What LibTorch raises as errors, and what helps when memory runs out.

use std::io;

use anyhow::Result;
use trainer::NeedsMemory;

const ADVICE: &str = "there is not enough memory: try --dtype bf16 or fp16, a smaller --batch-size, --height and --width, \
                      or --device cpu if it was a GPU's";

/// LibTorch's exceptions as errors, and memory that has run out with what helps.
pub(crate) fn guarded<T>(operation: impl FnOnce() -> Result<T>) -> Result<T> {
    libtorch::catch(operation).map_err(Into::into).flatten().map_err(explain)
}

/// Adds advice where memory has run out, whichever operation it was; training has its own.
fn explain(error: anyhow::Error) -> anyhow::Error {
    let ran_out = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(libtorch::Error::OutOfMemory(_)))
            || cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::OutOfMemory)
    };
    if error.downcast_ref::<NeedsMemory>().is_some() || !error.chain().any(ran_out) {
        return error;
    }
    error.context(ADVICE)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn only_lack_of_memory_is_explained_and_only_once() {
        let full = || anyhow::Error::new(libtorch::Error::OutOfMemory("8 bytes".to_owned()));
        let error = explain(full().context("cannot load unet"));
        assert!(format!("{error:#}").ends_with("a GPU's: cannot load unet: out of memory: 8 bytes"), "{error:#}");
        let mapped: anyhow::Result<()> = Err(io::Error::from(io::ErrorKind::OutOfMemory)).context("cannot read unet");
        assert!(format!("{:#}", explain(mapped.unwrap_err())).starts_with("there is not enough memory"));
        let training = format!("{:#}", explain(full().context(NeedsMemory)));
        assert!(training.starts_with("this run needs") && !training.contains("there is not enough"), "{training}");
        let other = anyhow::Error::new(libtorch::Error::Torch("shapes".to_owned()));
        assert_eq!(explain(other).to_string(), "LibTorch: shapes");
    }
}
