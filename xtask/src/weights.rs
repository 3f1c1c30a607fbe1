//! `cargo xtask weights`: published model files, from whoever still offers them.
//!
//! Which files, from where, how large and with which hash stands in `crates/hub/data/manifest.json`. A file gets its
//! final name only after its check; what has no published hash is recorded in a lock file beside the model when first
//! obtained, so that later changes are seen.

mod download;
mod fetch;
mod local;
mod lock;
mod manifest;
mod progress;
mod source;
mod verify;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::workspace;
use fetch::Fetch;
use lock::Lock;
use manifest::{Manifest, Model};
use progress::size;

/// List, fetch and verify published models (Stable Diffusion, CLIP)
#[derive(clap::Args)]
pub(crate) struct Weights {
    #[command(subcommand)]
    action: Action,
    /// The folder that holds a folder for each model, instead of `models` in the workspace
    #[arg(long, global = true, default_value_os_t = workspace::root().join("models"), hide_default_value = true)]
    dir: PathBuf,
    /// Another list of models than crates/hub/data/manifest.json
    #[arg(long, global = true, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Name every model, its size, its licence and whether it is here
    List,
    /// Fetch a model, or what is missing or wrong of it; an interrupted fetch goes on where it stopped
    ///
    /// HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and the Hugging Face cache (HF_HUB_CACHE, HF_HOME) are honoured.
    Fetch {
        name: String,
        /// A folder that may have the files already, laid out as the model's own
        #[arg(long, value_name = "FOLDER")]
        from: Option<PathBuf>,
        /// How many files at a time
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=32))]
        jobs: u16,
        /// How long to wait before a source is asked again, in milliseconds; each next wait is four times as long
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(0..=60_000))]
        retry_wait: u32,
    },
    /// Compare a model's files, or all models' that are here, with their hashes
    Verify { name: Option<String> },
}

impl Weights {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let path = self.manifest.unwrap_or_else(|| workspace::root().join("crates/hub/data/manifest.json"));
        let manifest = Manifest::read(&path)?;
        match self.action {
            Action::List => {
                for model in &manifest.models {
                    list(model, &self.dir.join(&model.name))?;
                }
                Ok(())
            }
            Action::Fetch { name, from, jobs, retry_wait } => {
                let model = manifest.model(&name)?;
                if let Some(folder) = from.as_ref().filter(|folder| !folder.is_dir()) {
                    bail!("--from is {}, which is not a folder", folder.display());
                }
                let wait = Duration::from_millis(retry_wait.into());
                Fetch { model, dir: self.dir.join(&model.name), from, jobs: jobs.into(), wait }.run()
            }
            Action::Verify { name } => {
                let models: Vec<&Model> = match &name {
                    Some(name) => vec![manifest.model(name)?],
                    None => manifest.models.iter().filter(|model| self.dir.join(&model.name).exists()).collect(),
                };
                if models.is_empty() {
                    bail!(
                        "no model is in {}: `cargo xtask weights fetch NAME` gets one",
                        workspace::display(&self.dir)
                    );
                }
                verify::run(&models, &self.dir)
            }
        }
    }
}

fn list(model: &Model, dir: &std::path::Path) -> anyhow::Result<()> {
    let here = model.files.iter().filter(|file| dir.join(&file.path).is_file()).count();
    let state = match here {
        0 => "not here".to_owned(),
        all if all == model.files.len() => format!("in {}", workspace::display(dir)),
        some => format!("{some} of {} files in {}", model.files.len(), workspace::display(dir)),
    };
    // Damage to the record is worth an error here too, before someone fetches for an hour.
    Lock::read(dir).with_context(|| format!("the record of {} cannot be used", model.name))?;
    let bytes = size(model.files.iter().filter_map(|file| file.size).sum());
    terminal::output!("{:<18} {:>8}  {}; {}; {state}", model.name, bytes, model.title, model.licence.name);
    Ok(())
}
