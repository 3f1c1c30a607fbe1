//! `cargo xtask weights verify`: every byte of the files that are here.

use std::path::Path;

use anyhow::{bail, ensure};

use super::local;
use super::lock::Lock;
use super::manifest::Model;

pub(super) fn run(models: &[&Model], dir: &Path) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    for model in models {
        let dir = dir.join(&model.name);
        ensure!(dir.is_dir(), "{} is not in {}: fetch it first", model.name, dir.display());
        let lock = Lock::read(&dir)?;
        for file in &model.files {
            let path = dir.join(&file.path);
            let recorded = lock.get(&file.path).map(|entry| &*entry.sha256);
            let known = file.sha256.as_deref().or(recorded);
            let verdict =
                if !path.is_file() { Err(anyhow::anyhow!("missing")) } else { local::check(&path, file, known) };
            let verdict = match verdict {
                Ok(_) if file.sha256.is_some() => "right, as published".to_owned(),
                Ok(_) if recorded.is_some() => "unchanged since it was fetched".to_owned(),
                Ok(found) => format!("nothing to compare sha256 {found} with"),
                Err(reason) => {
                    wrong.push(format!("{}/{}", model.name, file.path));
                    format!("WRONG: {reason:#}")
                }
            };
            terminal::output!("{}/{}: {verdict}", model.name, file.path);
        }
    }
    if !wrong.is_empty() {
        bail!(
            "{} files are not as they should be ({}): `cargo xtask weights fetch` mends them",
            wrong.len(),
            wrong.join(", ")
        );
    }
    Ok(())
}
