//! What a command may write over: what it has written itself.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::Value;

/// Whether a file is a record of this program, which says by which version it was written.
pub(crate) fn is_record(path: &Path) -> bool {
    let record: Option<Value> = fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    record.is_some_and(|record| record["versions"]["attndreambooth"].is_string())
}

/// Makes sure that a command can write `names` into `folder`: they are not there, or its `record` shows that an earlier call
/// has written them.
pub(crate) fn ensure_own(folder: &Path, record: &str, names: &[&str]) -> Result<()> {
    if is_record(&folder.join(record)) {
        return Ok(());
    }
    if let Some(name) = names.iter().chain([&record]).find(|name| fs::symlink_metadata(folder.join(name)).is_ok()) {
        bail!(
            "{} has a file {name} that is not of an earlier call, of which {record} would tell; choose another --out",
            folder.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_an_earlier_call_are_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let check = || ensure_own(folder.path(), "attend.json", &["grid.png"]);
        check().unwrap();
        fs::write(folder.path().join("other.png"), "").unwrap();
        check().unwrap();
        fs::write(folder.path().join("grid.png"), "").unwrap();
        assert!(check().unwrap_err().to_string().contains("has a file grid.png that is not of an earlier call"));
        fs::write(folder.path().join("attend.json"), "{}").unwrap();
        check().unwrap_err();
        fs::write(folder.path().join("attend.json"), r#"{"versions": {"attndreambooth": "0.1.0"}}"#).unwrap();
        check().unwrap();
    }
}
