//! A reference photo of the subject, at which each pass of the U-Net looks, as a method has learned it.

use std::fmt::Debug;

use anyhow::{Context, Result, ensure};
use images::RgbImage;
use tch::{Kind, Tensor};
use unet::{AttentionObserver, KvCache, UNet};
use vae::AutoencoderKl;

use crate::image_to_tensor;

/// How the U-Net looks at a reference, as a method has learned it.
pub trait ReferenceConditioning: Debug + Send {
    /// What the U-Net makes of `noisy` latents [batch, 4, h, w]; `observer` sees their pass alone.
    ///
    /// # Errors
    /// What the U-Net refuses.
    fn predict(
        &self,
        unet: &UNet,
        noisy: &Tensor,
        pass: &ReferencePass<'_>,
        observer: Option<&mut dyn AttentionObserver>,
    ) -> Result<Tensor>;

    /// Where the reference shows the subject of a pass's first image, as each part of the method sees it.
    ///
    /// # Errors
    /// What the U-Net refuses.
    fn masks(&self, unet: &UNet, pass: &ReferencePass<'_>) -> Result<Vec<ReferenceMask>>;
}

/// What a pass has beside noisy latents.
#[derive(Debug)]
pub struct ReferencePass<'a> {
    /// The reference's latents [1, 4, h, w], without noise, in the dtype of computation.
    pub reference: &'a Tensor,
    /// Of shape [], the same for all.
    pub timestep: &'a Tensor,
    /// Of each row of the batch its text.
    pub text: &'a KvCache,
    /// The ids of the prompts of the rows; with guidance those of the negative prompts come first.
    pub ids: &'a [Vec<i64>],
    /// The images: as many rows as the batch has, or with guidance half as many.
    pub images: usize,
}

impl<'a> ReferencePass<'a> {
    /// The ids of the prompt that names the subject of a row's image: with guidance both rows of an image have the same.
    pub fn prompt(&self, row: usize) -> &'a [i64] {
        &self.ids[self.ids.len() - self.images + row % self.images]
    }
}

/// Where a reference shows the subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceMask {
    /// The part of the U-Net that sees it so, such as `up_blocks.1.attentions.1`.
    pub place: String,
    /// Rows of the mask.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// Row by row, where the subject is.
    pub subject: Vec<bool>,
}

/// A method's conditioning, and the reference where there is one.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) conditioning: Box<dyn ReferenceConditioning>,
    /// [1, 4, h, w], f32.
    latents: Option<Tensor>,
}

impl Reference {
    pub(crate) fn new(conditioning: Box<dyn ReferenceConditioning>) -> Self {
        Self { conditioning, latents: None }
    }

    /// The means of the photo's latents, by the VAE in a dtype.
    pub(crate) fn set(&mut self, vae: &AutoencoderKl, photo: &RgbImage, to: (Kind, tch::Device)) -> Result<()> {
        let factor = vae.config().downscale_factor();
        let (width, height) = photo.dimensions();
        ensure!(
            [width, height].iter().all(|side| *side > 0 && i64::from(*side) % factor == 0),
            "the reference photo has {width}x{height} pixels, but its sides must be multiples of {factor}"
        );
        let image = image_to_tensor(photo).to_device(to.1).to_kind(to.0);
        let latents = libtorch::catch(|| {
            tch::no_grad(|| anyhow::Ok(vae.scale_latents(vae.encode(&image)?.mean()).to_kind(Kind::Float)))
        })??;
        self.latents = Some(latents);
        Ok(())
    }

    pub(crate) fn latents(&self) -> Result<&Tensor> {
        self.latents.as_ref().context(
            "this model looks at a reference photo of the subject, but has none: give `generate` one with --reference, or put the run's \
             reference.png back into its folder",
        )
    }
}
