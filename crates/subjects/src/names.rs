//! Names that become names of folders.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};

/// Refuses what cannot name a folder, and names that are the same; `what` each of them is, such as `subject`.
///
/// # Errors
/// Says which name, and what is wrong with it.
pub fn check_names<T: AsRef<str>>(what: &str, names: impl IntoIterator<Item = T>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for name in names {
        let name = name.as_ref();
        let odd = |c: char| c.is_control() || ['/', '\\', ':'].contains(&c);
        if name.trim().is_empty() || name.starts_with('.') || name.contains(odd) || name.len() > 100 {
            bail!("a {what}'s name is {:?}, but it must be fit for a folder's name", terminal::shortened(name));
        }
        ensure!(seen.insert(name.to_lowercase()), "two {what}s are called {name}");
    }
    Ok(())
}
