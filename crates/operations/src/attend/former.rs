//! Images of an earlier call.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// Removes the images that the record of the call before lists and that `rows`, those of this call, do not list. No
/// other file is touched. To be called before the new record is written: until then, another call can do the same.
///
/// # Errors
/// When one of them cannot be removed.
pub(super) fn remove(record: &Path, rows: &[Value]) -> Result<()> {
    // A record that is not there or damaged lists nothing.
    let former: Value = limits::read(record).ok().and_then(|text| json::parse(&text).ok()).unwrap_or_default();
    let former = former["rows"].as_array().map_or(&[][..], Vec::as_slice);
    for name in files(former).difference(&files(rows)) {
        let path = record.with_file_name(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.with_context(|| format!("cannot remove {} of the call before", path.display()))?,
        }
    }
    Ok(())
}

/// The names of the rows' files; a path into another folder is none that a record has been given.
fn files(rows: &[Value]) -> BTreeSet<&str> {
    let files = rows.iter().flat_map(|row| {
        let overlays = row["overlays"].as_array().into_iter().flatten();
        overlays.map(|overlay| &overlay["file"]).chain([&row["picture"]])
    });
    let files = files.filter_map(Value::as_str);
    files.filter(|file| Path::new(file).file_name().is_some_and(|name| name == *file)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_the_record_lists_goes() {
        let folder = tempfile::tempdir().unwrap();
        let [inside, outside] = [folder.path().join("attend"), folder.path().join("own.png")];
        fs::create_dir(&inside).unwrap();
        fs::write(&outside, "").unwrap();
        for name in ["base.png", "base-01-dog.png", "unet.png", "own.png"] {
            fs::write(inside.join(name), "").unwrap();
        }
        let record = inside.join("attend.json");
        let left = || {
            let names = fs::read_dir(&inside).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name != "attend.json").collect::<BTreeSet<_>>()
        };
        let now = [json!({"picture": "unet.png", "overlays": []})];
        remove(&record, &now).unwrap();
        fs::write(&record, "{").unwrap();
        remove(&record, &now).unwrap();
        assert_eq!(left().len(), 4);

        let overlays =
            json!([{"file": "base-01-dog.png"}, {"file": "../own.png"}, {"file": "gone.png"}, {"file": ".."}]);
        let rows = json!([{"picture": "base.png", "overlays": overlays}, {"picture": "unet.png"}]);
        fs::write(&record, json!({ "rows": rows }).to_string()).unwrap();
        remove(&record, &now).unwrap();
        assert_eq!(left(), ["own.png", "unet.png"].map(str::to_owned).into());
        assert!(outside.exists());
    }
}
