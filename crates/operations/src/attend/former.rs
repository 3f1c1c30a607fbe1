//! Images of an earlier call.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use runs::{Attention, AttentionRow};

/// Removes the images that the record of the call before lists and that `rows`, those of this call, do not list. No other
/// file is touched. To be called before the new record is written: until then, another call can do the same.
///
/// # Errors
/// When one of them cannot be removed.
pub(super) fn remove(folder: &Path, rows: &[AttentionRow]) -> Result<()> {
    // A record that is damaged lists nothing.
    let former = Attention::read(folder).ok().flatten().map(|former| former.rows).unwrap_or_default();
    for name in files(&former).difference(&files(rows)) {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.with_context(|| format!("cannot remove {} of the call before", path.display()))?,
        }
    }
    Ok(())
}

/// The names of the rows' files; a path into another folder is none that a record has been given.
fn files(rows: &[AttentionRow]) -> BTreeSet<&Path> {
    let files = rows.iter().flat_map(AttentionRow::files);
    files.filter(|file| file.file_name().is_some_and(|name| name == file.as_os_str())).collect()
}

#[cfg(test)]
mod tests {
    use options::GenerationSettings;
    use runs::{AttentionArguments, HeatMapSettings, Overlay};
    use serde_json::Map;

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
        let row = |image: &str, files: &[&str]| {
            let overlay = |file: &&str| Overlay { word: "dog".to_owned(), file: file.into(), mean: 0.0, max: 0.0 };
            let overlays = files.iter().map(overlay).collect();
            AttentionRow { name: String::new(), title: String::new(), image: image.into(), passes: 1, overlays }
        };
        let now = [row("unet.png", &[])];
        remove(&inside, &now).unwrap();
        fs::write(&record, "{").unwrap();
        remove(&inside, &now).unwrap();
        assert_eq!(left().len(), 4);

        let files = ["base-01-dog.png", "../own.png", "gone.png", ".."];
        let settings =
            GenerationSettings { steps: 1, guidance_scale: 1.0, height: 8, width: 8, scheduler: None, eta: None };
        Attention {
            arguments: AttentionArguments { prompt: "a dog".to_owned(), others: Map::new() },
            settings,
            scheduler: String::new(),
            heat_maps: HeatMapSettings { factors: vec![1], mid: false, normalize: false },
            device: String::new(),
            dtype: String::new(),
            versions: runs::Versions::new(),
            seconds: 0.0,
            tokens: Vec::new(),
            words: Vec::new(),
            rows: vec![row("base.png", &files), row("unet.png", &[])],
        }
        .write(&inside)
        .unwrap();
        remove(&inside, &now).unwrap();
        assert_eq!(left(), ["own.png", "unet.png"].map(str::to_owned).into());
        assert!(outside.exists());
    }
}
