//! Images as DINO sees them.

use std::path::Path;

use anyhow::{Result, ensure};
use clip::ImageProcessor;
use dino::ViT;
use rayon::ThreadPool;
use tch::{Device, Kind, Tensor};

use crate::ImageFile;
use crate::encoding::{prepare, preparers, unit};

/// Images that the encoder sees at once.
const BATCH_SIZE: usize = 32;

/// A DINO with all that it needs to take features of image files.
#[derive(Debug)]
pub struct DinoFeatures {
    model: ViT,
    processor: ImageProcessor,
    device: Device,
    preparers: ThreadPool,
}

impl DinoFeatures {
    /// Loads a folder in transformers' layout, such as that of facebook/dino-vits16: config.json, the weights and
    /// preprocessor_config.json. It computes in f32.
    ///
    /// # Errors
    /// When the folder lacks a file, or its parts do not fit each other.
    pub fn open(folder: &Path, device: Device) -> Result<Self> {
        let (model, _) = ViT::from_folder(folder, (Kind::Float, device))?;
        let processor = dino::image_processor(folder)?;
        let (grey, side) = (processor.process_rgb8(&[128; 3], 1, 1)?, model.config().image_size);
        ensure!(
            grey.size() == [3, side, side],
            "preprocessor_config.json in {} makes images of shape {:?}, but the image encoder takes [3, {side}, {side}]",
            folder.display(),
            grey.size()
        );
        Ok(Self { model, processor, device, preparers: preparers()? })
    }

    /// The features of images: [images, width] of length 1, f32.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub(crate) fn images(&self, images: &[ImageFile], on_image: &mut dyn FnMut(usize)) -> Result<Tensor> {
        let Self { model, processor, device, preparers } = self;
        let mut features = Vec::new();
        for chunk in images.chunks(BATCH_SIZE) {
            let batch = preparers.install(|| prepare(chunk, processor))?.to_device(*device);
            features.push(unit(|| model.features(&batch))?);
            on_image(chunk.len());
        }
        Ok(Tensor::cat(&features, 0))
    }
}
