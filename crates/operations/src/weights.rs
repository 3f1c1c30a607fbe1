//! `weights`: published models, listed, downloaded and verified.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use hub::{Hub, Progress, Verdict};
use requests::{Weights, WeightsAction};
use serde::Serialize;

use crate::context::{Context, Interrupted};

/// What is known of published models.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PublishedModels {
    /// All of them.
    Listed(Vec<PublishedModel>),
    /// One is complete.
    Downloaded {
        /// Its name.
        name: String,
        /// Its folder or file.
        path: PathBuf,
    },
    /// All files that were compared are as they should be.
    Verified {
        /// How many.
        files: usize,
    },
}

/// A published model.
#[derive(Debug, Clone, Serialize)]
pub struct PublishedModel {
    /// What `--model` and `--clip` call it.
    pub name: String,
    /// Its full name.
    pub title: String,
    /// Its licence.
    pub licence: String,
    /// Bytes of its files.
    pub size: u64,
    /// Its files.
    pub files: usize,
    /// Those that are here.
    pub present: usize,
    /// Its folder, which need not exist.
    pub folder: PathBuf,
}

pub(crate) fn run(request: &Weights, context: &Context<'_>) -> Result<PublishedModels> {
    let mut hub = Hub::from_env()?.with_models(&request.dir);
    if let Some(manifest) = &request.manifest {
        hub = hub.with_manifest(manifest)?;
    }
    match &request.action {
        WeightsAction::List => {
            let models = hub.list()?.into_iter().map(|hub::Listed { model, folder, present }| PublishedModel {
                name: model.name.clone(),
                title: model.title.clone(),
                licence: model.licence.name.clone(),
                size: model.files.iter().filter_map(|file| file.size).sum(),
                files: model.files.len(),
                present,
                folder,
            });
            Ok(PublishedModels::Listed(models.collect()))
        }
        WeightsAction::Download { name, from, jobs, retry_wait } => {
            let wait = Duration::from_millis((*retry_wait).into());
            let options = hub::Options { from: from.clone(), jobs: (*jobs).into(), wait };
            let mut bytes = BTreeMap::new();
            let mut progress = context.progress(format!("{name}, MB"));
            let found = hub.download(name, &options, &mut |event| {
                match event {
                    Progress::Bytes { file, done, total } => {
                        bytes.insert(file.clone(), (done, total.unwrap_or(done)));
                        let sum = |of: fn(&(u64, u64)) -> u64| bytes.values().map(of).sum::<u64>() / 1_000_000;
                        progress.reach(sum(|bytes| bytes.0), sum(|bytes| bytes.1), file);
                    }
                    Progress::Ended { .. } => {}
                    Progress::Note { text } => context.note(text),
                    event => context.message(event.to_string()),
                }
                if context.stop().asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            let found = found.map_err(|error| match error.is::<hub::Stopped>() {
                true => Interrupted("what has come is kept, and the same command resumes".to_owned()).into(),
                false => error,
            })?;
            Ok(PublishedModels::Downloaded { name: name.clone(), path: found.path })
        }
        WeightsAction::Verify { name } => {
            let mut files = 0;
            hub.verify(name.as_deref(), &mut |model, file, verdict| {
                files += 1;
                let verdict = match verdict {
                    Verdict::Published => "right, as published".to_owned(),
                    Verdict::Recorded => "unchanged since it was downloaded".to_owned(),
                    Verdict::Unknown(found) => format!("nothing to compare sha256 {found} with"),
                    Verdict::Wrong(reason) => format!("WRONG: {reason}"),
                };
                context.message(format!("{model}/{file}: {verdict}"));
            })?;
            Ok(PublishedModels::Verified { files })
        }
    }
}
