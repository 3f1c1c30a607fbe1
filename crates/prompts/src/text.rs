//! Files of lines, and names that may be files.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The text of a user's file, without a byte-order mark; `what` is in it.
pub(crate) fn read(what: &str, path: &Path) -> Result<String> {
    let bytes = limits::read(path).with_context(|| format!("cannot read the {what} {}", path.display()))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text.trim_start_matches('\u{feff}').to_owned()),
        Err(_) => bail!("the {what} {} are not UTF-8 text; save them as such", path.display()),
    }
}

/// The lines that are not empty and do not begin with `#`.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The name of a file, without its ending.
pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The text of one of the `sets` by its name, or of a user's file; a set is `a_set`, and what is in it is `contents`.
///
/// # Errors
/// When there is neither, or the file cannot be read.
pub(crate) fn named(
    [a_set, contents]: [&str; 2],
    sets: &[(&'static str, &'static str)],
    name_or_file: &str,
) -> Result<Cow<'static, str>> {
    let path = Path::new(name_or_file);
    match sets.iter().find(|(name, _)| *name == name_or_file) {
        Some((_, text)) => Ok(Cow::Borrowed(text)),
        None if path.exists() => Ok(Cow::Owned(read(contents, path)?)),
        None => Err(unknown(a_set, name_or_file, &sets.iter().map(|(name, _)| *name).collect::<Vec<_>>())),
    }
}

/// Says that `name` is neither one of the `known` names of a `what` nor a file.
pub(crate) fn unknown(what: &str, name: &str, known: &[&str]) -> anyhow::Error {
    let (name, known) = (terminal::shortened(name), known.join(", "));
    anyhow::anyhow!("there is no {what} and no file called {name:?}; use a file or one of {known}")
}
