//! What a run leaves in its folder for people and for other programs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use photos::{Photo, View};
use pictures::Grid;
use sampling::{Request, Settings};

use crate::checkpoint;
use crate::{Stage, TrainConfig, Trainer, Validation};

/// Side of a picture on the contact sheet in pixels.
const THUMBNAIL: u32 = 192;

/// The files of a run.
#[derive(Debug)]
pub(crate) struct Outputs {
    folder: PathBuf,
}

impl Outputs {
    /// The learned embedding: `{placeholder: [vectors, width]}`.
    pub(crate) const EMBEDDING: &str = "learned_embeds.safetensors";
    /// The U-Net's folder, in the diffusers layout.
    pub(crate) const UNET: &str = "unet";
    /// Its weights, which are written last of all that a finished run must have.
    pub(crate) const UNET_WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";
    /// What stage 2 trains, as it was after stage 2; the rest of the U-Net was the base model's.
    pub(crate) const CROSS_ATTENTION: &str = "stages/cross_attention.safetensors";

    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// `contact_sheet.png`: the first views that the model will see.
    pub(crate) fn contact_sheet(&self, views: &[(&Photo, View)]) -> Result<()> {
        let sheet = photos::contact_sheet(views, 4, THUMBNAIL);
        pictures::save_png(&self.folder.join("contact_sheet.png"), &sheet.draw(), &[])
    }

    /// `learned_embeds.safetensors`.
    pub(crate) fn embedding(&self, trainer: &Trainer) -> Result<()> {
        let path = self.folder.join(Self::EMBEDDING);
        export::save_embeddings(&path, &trainer.config.placeholder, &trainer.subject.embedding)
    }

    /// `stages/cross_attention.safetensors`, by which the stages can be compared when the run is over.
    pub(crate) fn cross_attention(&self, trainer: &Trainer) -> Result<()> {
        let path = self.folder.join(Self::CROSS_ATTENTION);
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        weights::save(&path, trainer.trained(Stage::CrossAttention))
    }

    /// `unet/`: config and weights.
    pub(crate) fn unet(&self, trainer: &Trainer) -> Result<()> {
        let folder = self.folder.join(Self::UNET);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let config = serde_json::to_vec_pretty(trainer.pipeline.unet.config())?;
        atomic::write(&folder.join("config.json"), config)?;
        trainer.pipeline.parameters.unet.save(&self.folder.join(Self::UNET_WEIGHTS))
    }

    /// Whether all that is to be learned has been, and was written.
    pub(crate) fn learned(&self) -> bool {
        [Self::EMBEDDING, Self::UNET_WEIGHTS].iter().all(|file| self.folder.join(file).exists())
    }

    /// Gives the trainer what was learned and written.
    pub(crate) fn restore(&self, trainer: &Trainer) -> Result<()> {
        let embedding = [(trainer.config.placeholder.as_str(), &trainer.subject.embedding)];
        checkpoint::restore(&embedding, &self.folder.join(Self::EMBEDDING))?;
        let unet: Vec<_> = trainer.pipeline.parameters.unet.iter().collect();
        checkpoint::restore(&unet, &self.folder.join(Self::UNET_WEIGHTS))
    }

    /// `validation/`: the prompts at one step of a stage.
    pub(crate) fn validation(&self, trainer: &Trainer, stage: Stage, step: usize) -> Result<()> {
        let grid = draw(trainer)?;
        let folder = self.folder.join("validation");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        pictures::save_generated(&folder.join(format!("{}-{stage}-{step:05}.png", stage.number())), &grid.draw(), &[])
    }

    /// `curves.png`: the losses over all steps of the log.
    pub(crate) fn curves(&self) -> Result<()> {
        let curves = journal::draw_curves(&journal::read_log(&self.folder)?);
        pictures::save_png(&self.folder.join("curves.png"), &curves, &[])
    }

    /// `samples.png`: the prompts at the end.
    pub(crate) fn samples(&self, trainer: &Trainer) -> Result<()> {
        pictures::save_generated(&self.folder.join("samples.png"), &draw(trainer)?.draw(), &[])
    }
}

/// Makes sure that a new run writes over nothing: a model's folder, say, has a `unet/` as well.
pub(crate) fn ensure_empty(out: &Path) -> Result<()> {
    for entry in fs::read_dir(out).with_context(|| format!("cannot read {}", out.display()))? {
        let name = entry.with_context(|| format!("cannot read {}", out.display()))?.file_name();
        // The lock; and the user may have put photos of the category where the run looks for them.
        let expected = name.as_encoded_bytes().starts_with(b".") || name == "prior";
        ensure!(
            expected,
            "{} is not empty: it has {name:?}; a new run needs a folder of its own (--out)",
            out.display()
        );
    }
    Ok(())
}

/// How validation pictures are drawn.
pub(crate) fn settings(trainer: &Trainer) -> Settings {
    let Validation { steps, guidance_scale, .. } = trainer.config.validation;
    Settings { steps, guidance_scale, ..trainer.pipeline.default_settings() }
}

/// One picture of each validation prompt, from the configured seed; no random number of the run is touched.
fn draw(trainer: &Trainer) -> Result<Grid> {
    let TrainConfig { validation, .. } = &trainer.config;
    let settings = settings(trainer);
    let mut grid = Grid::new(validation.prompts.len().min(4));
    for prompt in &validation.prompts {
        let prompt = trainer.config.fill(prompt);
        let pictures = trainer.pipeline.generate(&[Request::new(&prompt, validation.seed)], &settings, &mut |_| {})?;
        for picture in pictures {
            grid.push(picture, &prompt);
        }
    }
    Ok(grid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_run_needs_a_folder_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".lock"), "").unwrap();
        fs::create_dir(folder.path().join("prior")).unwrap();
        ensure_empty(folder.path()).unwrap();
        fs::create_dir(folder.path().join("unet")).unwrap();
        let error = ensure_empty(folder.path()).unwrap_err().to_string();
        assert!(
            error.ends_with(r#"is not empty: it has "unet"; a new run needs a folder of its own (--out)"#),
            "{error}"
        );
    }
}
