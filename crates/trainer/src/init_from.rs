//! Starting from what another run has learned: its embedding and its LoRA, from its folder or from a file.

use std::collections::HashMap;
use std::path::Path;

use adapters::{Lora, Networks};
use anyhow::{Context, Result, bail, ensure};
use methods::Learned;
use runs::{Group, TrainConfig};
use sampling::PipelineParameters;
use tch::Tensor;
use weights::Archive;

use crate::checkpoint::restore;
use crate::finished_run::FinishedRun;
use crate::outputs::Outputs;
use crate::phase_run::Trainer;
use crate::start;

/// Gives what is to be learned the values that `init_from` names: those of the run's own copy in the folder `out`, where
/// there is one.
///
/// # Errors
/// When there is nothing that fits; names both sides.
pub(crate) fn apply(trainer: &Trainer, out: &Path) -> Result<Vec<String>> {
    let Trainer { config, pipeline, learned, .. } = trainer;
    let Some(from) = &config.init_from else { return Ok(Vec::new()) };
    if start::restore(pipeline, learned, out)? {
        return Ok(Vec::new());
    }
    ensure!(
        learned.mapper.is_none(),
        "the method {} begins with a mapper of its own, whose frequencies are the seed's, and takes no other start: leave out \
         --init-from",
        config.method
    );
    ensure!(learned.more.is_empty(), "--init-from is for a run of one subject, but this one has several: leave it out");
    let notes = match from.is_dir() {
        true => of_run(trainer, from),
        false => of_file(trainer, from),
    };
    notes.with_context(|| format!("cannot start from {} (--init-from)", from.display()))
}

/// The embedding and the adapter of a finished run.
fn of_run(trainer: &Trainer, from: &Path) -> Result<Vec<String>> {
    let Trainer { config, learned, .. } = trainer;
    let run = FinishedRun::open(from)?;
    let mut notes = Vec::new();
    let mut taken = Vec::new();
    if let (Some(mine), Some(theirs)) = (&learned.embedding, &run.embedding) {
        copy_embedding(mine, theirs)?;
        taken.push("embedding");
    }
    if learned.image_attention.is_some() && run.has_image_attention() {
        restore(&trainer.parameters(Group::Adapter), &from.join(Outputs::file(Group::Adapter)))?;
        taken.push("adapter");
    }
    if learned.adapters.is_some() && run.groups().contains(&Group::Adapter) {
        let theirs = run.config.adapter.as_ref();
        ensure!(
            theirs == config.adapter.as_ref(),
            "its adapter is {}, and this run's {}: give both the same",
            adapter(&run.config),
            adapter(config)
        );
        restore(&trainer.parameters(Group::Adapter), &from.join(Outputs::file(Group::Adapter)))?;
        taken.push("adapter");
    }
    ensure!(!taken.is_empty(), "it has neither an embedding nor an adapter that this run could start from");
    let rest: Vec<&str> = run.groups().into_iter().map(Group::name).filter(|name| !taken.contains(name)).collect();
    if !rest.is_empty() {
        notes.push(format!(
            "of {} the {} is taken, but not what it has learned else ({}); `export` makes that a model for --model",
            terminal::path(from),
            taken.join(" and the "),
            rest.join(", ")
        ));
    }
    Ok(notes)
}

/// The values of a configuration's adapter.
fn adapter(config: &TrainConfig) -> String {
    serde_json::to_string(&config.adapter).unwrap_or_default()
}

/// A LoRA, with the embedding that it may bring, what `export --format vico` wrote, or an embedding alone.
fn of_file(trainer: &Trainer, from: &Path) -> Result<Vec<String>> {
    let Trainer { config, pipeline, learned, .. } = trainer;
    let (is_lora, is_vico) = {
        let archive = Archive::open(from)?;
        (archive.shapes().any(|(name, _)| name.contains("lora")), vico::is_vico(&archive))
    };
    if is_vico {
        return of_vico(trainer, from);
    }
    if !is_lora {
        let mine = embedding(config, learned)?;
        let (_, theirs) = export::load_embeddings(from, &pipeline.token_widths())?;
        copy_embedding(mine, &theirs)?;
        return Ok(Vec::new());
    }
    let lora = Lora::read(from, networks(&pipeline.parameters))?;
    let adapters = learned.adapters.as_ref().with_context(|| {
        format!("it is a LoRA, but the method {} has no adapter: give --method lora", config.method)
    })?;
    lora.load_into(adapters)?;
    match (lora.embeddings.values().next(), lora.embeddings.len()) {
        (Some(theirs), 1) => copy_embedding(embedding(config, learned)?, theirs)?,
        (None, _) => {}
        (Some(_), count) => bail!("it brings embeddings of {count} tokens, but a run starts from one"),
    }
    Ok(Vec::new())
}

/// ViCo's blocks, with the embedding of their token.
fn of_vico(trainer: &Trainer, from: &Path) -> Result<Vec<String>> {
    let Trainer { config, pipeline, learned, .. } = trainer;
    ensure!(
        learned.image_attention.is_some(),
        "it has the blocks of ViCo, but the method {} has none: give --method vico",
        config.method
    );
    let width = pipeline.text_encoder.config().hidden_size;
    let (blocks, _, embedding_of_token) = vico::read(from, &pipeline.unet, width, pipeline.placement().1)?;
    // `read` has seen that the model's blocks are those of the file.
    let theirs: HashMap<&str, &Tensor> = blocks.parameters().iter().map(|(name, t)| (name.as_str(), t)).collect();
    libtorch::catch(|| {
        tch::no_grad(|| {
            for (name, mine) in trainer.parameters(Group::Adapter) {
                mine.shallow_clone().copy_(theirs[name]);
            }
        });
    })?;
    copy_embedding(embedding(config, learned)?, &embedding_of_token)?;
    Ok(Vec::new())
}

fn networks(parameters: &PipelineParameters) -> Networks<'_> {
    let PipelineParameters { unet, text_encoder, text_encoder_2, .. } = parameters;
    Networks { unet, text_encoder, text_encoder_2: text_encoder_2.as_ref() }
}

fn embedding<'a>(config: &TrainConfig, learned: &'a Learned) -> Result<&'a Tensor> {
    learned.embedding.as_ref().with_context(|| {
        format!(
            "it is of a new token, but this run's token {} is a word of the model's: set new_token to true",
            terminal::shortened(&config.placeholder)
        )
    })
}

fn copy_embedding(mine: &Tensor, theirs: &Tensor) -> Result<()> {
    let ((vectors, width), found) = (mine.size2()?, theirs.size());
    ensure!(
        found == [vectors, width],
        "its embedding has the shape {found:?}, and this run's [{vectors}, {width}]: set vectors to the same number, and use \
         the same base model"
    );
    libtorch::catch(|| tch::no_grad(|| mine.shallow_clone().copy_(theirs)))?;
    Ok(())
}
