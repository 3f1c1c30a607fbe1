//! The CLIP that scores images.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use runs::ClipName;

/// Where `weights fetch clip-vit-b32` puts the paper's CLIP, and under which name others keep it.
const VIT_B32: [&str; 2] = ["models/clip-vit-b32", "models/clip-vit-base-patch32"];

/// The name of the CLIP in a folder.
pub fn clip_name(folder: &Path) -> ClipName {
    // A link or `.` says less than what it leads to.
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let part = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut name = part(&folder);
    // A base model's own: miniature/judge.
    if let Some(parent) = folder.parent().filter(|_| ["judge", "clip"].contains(&name.as_str())) {
        name = format!("{}/{name}", part(parent));
    }
    ClipName { name, folder }
}

/// The folder of the CLIP to use: `given`; or `judge/` or `clip/` in the folder of the base model, which has one if others know too
/// little or too much of its world; or the paper's, ViT-B/32, if it is below `models/` of the working folder.
///
/// # Errors
/// When there is none; says how to get one.
pub fn find_clip(given: Option<&Path>, base_model: &Path) -> Result<PathBuf> {
    if let Some(folder) = given {
        if !folder.is_dir() {
            bail!("there is no CLIP folder {}; give one with config.json and model.safetensors", folder.display());
        }
        return Ok(folder.to_owned());
    }
    // A single file has no CLIP beside its components.
    let own = ["judge", "clip"].into_iter().filter(|_| !base_model.is_file()).map(|own| base_model.join(own));
    let places: Vec<PathBuf> = own.chain(VIT_B32.map(PathBuf::from)).collect();
    if let Some(folder) = places.iter().find(|place| place.join("config.json").exists()) {
        return Ok(folder.clone());
    }
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    bail!(
        "there is no CLIP to score images with in {}; get one by `weights fetch clip-vit-b32`, or name a folder with \
         --clip",
        places.join(" or ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_models_own_clip_is_found_and_named_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("miniature");
        let error = find_clip(None, &model).unwrap_err().to_string();
        assert!(error.contains("--clip") && error.contains("miniature/clip"), "{error}");
        std::fs::create_dir_all(model.join("clip")).unwrap();
        std::fs::write(model.join("clip/config.json"), "{}").unwrap();
        let found = find_clip(None, &model).unwrap();
        assert_eq!(clip_name(&found).name, "miniature/clip");
        assert_eq!(find_clip(Some(folder.path()), &model).unwrap(), folder.path());
        std::fs::create_dir_all(model.join("judge")).unwrap();
        std::fs::write(model.join("judge/config.json"), "{}").unwrap();
        assert_eq!(clip_name(&find_clip(None, &model).unwrap()).name, "miniature/judge");
        let error = find_clip(Some(Path::new("/no/clip")), &model).unwrap_err().to_string();
        assert!(error.contains("no CLIP folder /no/clip"), "{error}");
    }
}
