//! A folder that a command writes its results into, and nobody else's.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::folder::foreign;

/// A folder for the results of a command: new, empty, or one that the same command has made, so that nothing is replaced
/// that it has not written.
#[derive(Debug)]
pub struct ResultsFolder {
    path: PathBuf,
    command: &'static str,
}

impl ResultsFolder {
    /// The file that says which command writes into a folder.
    pub const MARK: &str = ".attndreambooth";

    /// Looks whether `command` may write into the folder; nothing is written. `made` are files, relative to the folder,
    /// of which the command alone makes one: they tell its folders of earlier versions, which have no mark.
    ///
    /// # Errors
    /// Says what is in the folder instead.
    pub fn check(path: &Path, command: &'static str, made: &[&str]) -> Result<Self> {
        let this = Self { path: path.to_owned(), command };
        let shown = path.display();
        if let Some(other) = this.mark()? {
            if other.trim() == command {
                return Ok(this);
            }
            bail!(
                "{shown} has results of {:?}, and {command:?} would mix its own with them: choose another --out",
                other.trim()
            );
        }
        match foreign(path, &[])? {
            Some(name) if !made.iter().any(|made| path.join(made).is_file()) => bail!(
                "{shown} is not empty (it has {name:?}) and not a folder that {command:?} has made: choose a new folder \
                 for --out"
            ),
            _ => Ok(this),
        }
    }

    /// Creates the folder if missing, and marks it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.path).with_context(|| format!("cannot create the folder {}", self.path.display()))?;
        match self.mark()? {
            Some(_) => Ok(()),
            None => atomic::write(&self.path.join(Self::MARK), format!("{}\n", self.command)),
        }
    }

    fn mark(&self) -> Result<Option<String>> {
        let path = self.path.join(Self::MARK);
        if !path.is_file() {
            return Ok(None);
        }
        let mut text = Vec::new();
        let read = fs::File::open(&path).and_then(|file| file.take(64).read_to_end(&mut text));
        read.with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_writes_into_its_own_folders_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("above/folder");
        let check = |command, made: &[&str]| ResultsFolder::check(&path, command, made);
        check("attend", &[]).unwrap();
        assert!(!parent.path().join("above").exists());
        check("attend", &[]).unwrap().create().unwrap();
        fs::write(path.join("grid.png"), "").unwrap();
        check("attend", &[]).unwrap().create().unwrap();
        let error = check("inspect", &["grid.png"]).unwrap_err().to_string();
        assert!(error.contains(r#"has results of "attend""#), "{error}");

        // Of an earlier version, or somebody else's.
        fs::remove_file(path.join(ResultsFolder::MARK)).unwrap();
        let error = check("attend", &["attend.json"]).unwrap_err().to_string();
        assert!(error.contains(r#"(it has "grid.png")"#), "{error}");
        check("attend", &["none", "grid.png"]).unwrap().create().unwrap();
        check("attend", &[]).unwrap();
        fs::write(parent.path().join("file"), "").unwrap();
        assert!(ResultsFolder::check(&parent.path().join("file"), "attend", &[]).is_err());
    }
}
