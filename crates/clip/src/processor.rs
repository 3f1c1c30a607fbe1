//! Preparing images: resize, crop, rescale, normalise.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use images::{Filter, RgbImage};
use libtorch::HostBytes;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Turns images of any size into the tensors that an image encoder takes (`CLIPImageProcessor`), by the rules of
/// a preprocessor_config.json; absent keys have transformers' defaults, which are OpenAI's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageProcessor {
    /// Whether to resize.
    pub do_resize: bool,
    /// The size to resize to.
    pub size: Size,
    /// Pillow's number of the filter; 3, bicubic, is the only one that CLIP uses.
    pub resample: i64,
    /// Whether to crop.
    pub do_center_crop: bool,
    /// The size to crop to; a smaller image gets a black border.
    pub crop_size: Size,
    /// Whether to multiply with `rescale_factor`.
    pub do_rescale: bool,
    /// What brings bytes into 0..=1.
    pub rescale_factor: f64,
    /// Whether to subtract `image_mean` and divide by `image_std`.
    pub do_normalize: bool,
    /// The mean of each channel after rescaling.
    pub image_mean: [f64; 3],
    /// The standard deviation of each channel after rescaling.
    pub image_std: [f64; 3],
    /// Whose arithmetic the resizing has; not a key of the file.
    #[serde(skip)]
    pub resampler: Resampler,
}

/// Whose bicubic resizing to reproduce. The first two are antialiased, work on bytes with fixed-point weights and differ by
/// about one step of 255 in some pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Resampler {
    /// Torchvision's, which transformers' `CLIPImageProcessor` uses since its release 5.
    #[default]
    Torchvision,
    /// Pillow's before its release 13, which transformers before release 5 uses, with its way to crop. OpenAI's code and
    /// open_clip resize alike, but where an odd border is left they may crop one pixel further.
    Pillow,
    /// PyTorch's interpolation of floats without antialiasing, as in Textual Inversion's evaluation.
    Interpolation,
}

/// A size in pixels, as configs write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    /// Both sides; the proportions may change.
    Exact {
        /// The height.
        height: i64,
        /// The width.
        width: i64,
    },
    /// The shorter side; the proportions stay.
    ShortestEdge {
        /// Its length.
        shortest_edge: i64,
    },
    /// One number: the shorter side when resizing, both when cropping.
    Edge(i64),
}

/// The most pixels that an image may have after resizing, reached only by images hundreds of times longer than wide.
const MAX_PIXELS: i64 = 1 << 27;
/// The published image encoders read up to 518 pixels a side.
const MAX_SIDE: i64 = 8192;

impl Default for ImageProcessor {
    fn default() -> Self {
        Self::square(224)
    }
}

impl ImageProcessor {
    /// Pillow's number of bilinear resampling, as configurations say it.
    pub const BILINEAR: i64 = 2;
    /// That of bicubic resampling, which CLIP's images have.
    pub const BICUBIC: i64 = 3;

    /// OpenAI's rules for an image encoder of another `image_size`.
    pub fn square(image_size: i64) -> Self {
        Self {
            do_resize: true,
            size: Size::ShortestEdge { shortest_edge: image_size },
            resample: Self::BICUBIC,
            do_center_crop: true,
            crop_size: Size::Exact { height: image_size, width: image_size },
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            image_mean: [0.48145466, 0.4578275, 0.40821073],
            image_std: [0.26862954, 0.26130258, 0.27577711],
            resampler: Resampler::Torchvision,
        }
    }

    /// Reads preprocessor_config.json in `folder`.
    ///
    /// # Errors
    /// When the file cannot be read or asks for something else than CLIP's preparation.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("preprocessor_config.json");
        let processor: Self = json::read(&path, "the configuration of CLIP's image processor")?;
        processor.validate().with_context(|| format!("{} cannot be followed", path.display()))?;
        Ok(processor)
    }

    /// Checks that the rules can be followed.
    ///
    /// # Errors
    /// Names the key and the value that cannot be.
    pub fn validate(&self) -> Result<()> {
        let resample = self.resample;
        ensure!(
            !self.do_resize || resample == Self::BICUBIC,
            "resample is {resample}, but only 3, bicubic, is supported"
        );
        for (key, size) in [("size", self.size), ("crop_size", self.crop_size)] {
            let (height, width) = match size {
                Size::Exact { height, width } => (height, width),
                Size::ShortestEdge { shortest_edge: edge } | Size::Edge(edge) => (edge, edge),
            };
            for side in [height, width] {
                limits::within(key, side, 1..=MAX_SIDE, "the encoder reads every pixel")?;
            }
        }
        ensure!(self.rescale_factor > 0.0, "rescale_factor is {}, but must be positive", self.rescale_factor);
        ensure!(self.image_std.iter().all(|&std| std > 0.0), "image_std is {:?}, but must be positive", self.image_std);
        Ok(())
    }

    /// Prepares one image from bytes, row by row from the top, red, green, blue. See [`ImageProcessor::process`].
    ///
    /// # Errors
    /// When `rgb` is not 3 x `height` x `width` bytes long, and as [`ImageProcessor::process`].
    pub fn process_rgb8(&self, rgb: &[u8], height: i64, width: i64) -> Result<Tensor> {
        let image = libtorch::tensor_from_bytes(rgb, Kind::Uint8, &[height, width, 3], (Kind::Uint8, Device::Cpu))?;
        self.process(&image.permute([2, 0, 1]))
    }

    /// Prepares one image [3, height, width] of bytes: f32 [3, crop height, crop width] on the CPU, whatever the
    /// image's device.
    ///
    /// # Errors
    /// When the tensor is of another dtype or shape, or so long and thin that its resized form would be enormous.
    pub fn process(&self, image: &Tensor) -> Result<Tensor> {
        let (size, kind) = (image.size(), image.kind());
        ensure!(
            kind == Kind::Uint8 && size.len() == 3 && size[0] == 3 && image.numel() > 0,
            "the image is {kind:?} of shape {size:?} instead of bytes of shape [3, height, width]; convert it to RGB"
        );
        let image = image.to_device(Device::Cpu).contiguous();
        let image = if self.do_resize { self.resize(&image)? } else { image };
        let image = if self.do_center_crop { self.center_crop(&image) } else { image };
        Ok(self.normalize(&image))
    }

    fn resize(&self, image: &Tensor) -> Result<Tensor> {
        let (height, width) = (image.size()[1], image.size()[2]);
        let (new_height, new_width) = match self.size {
            Size::Exact { height, width } => (height, width),
            Size::ShortestEdge { shortest_edge: edge } | Size::Edge(edge) => {
                let long = ((edge * height.max(width)) as f64 / height.min(width) as f64) as i64;
                if width <= height { (long, edge) } else { (edge, long) }
            }
        };
        ensure!(
            new_height.saturating_mul(new_width) <= MAX_PIXELS,
            "an image of {width} x {height} pixels would become one of {new_width} x {new_height}; crop it first"
        );
        if (new_height, new_width) == (height, width) {
            return Ok(image.shallow_clone());
        }
        let (size, bilinear) = ([new_height, new_width], self.resample == Self::BILINEAR);
        match self.resampler {
            Resampler::Torchvision => {
                let batch = image.unsqueeze(0);
                let resized = match bilinear {
                    true => batch.internal_upsample_bilinear2d_aa(size, false, None, None),
                    false => batch.internal_upsample_bicubic2d_aa(size, false, None, None),
                };
                Ok(resized.squeeze_dim(0))
            }
            Resampler::Interpolation => {
                let batch = image.to_kind(Kind::Float).unsqueeze(0);
                let resized = match bilinear {
                    true => batch.upsample_bilinear2d(size, false, None, None),
                    false => batch.upsample_bicubic2d(size, false, None, None),
                };
                Ok(resized.squeeze_dim(0))
            }
            Resampler::Pillow => {
                let filter = if bilinear { Filter::Bilinear } else { Filter::Bicubic };
                let pixels = HostBytes::of(&image.permute([1, 2, 0]))?.to_vec();
                let image = RgbImage::from_raw(width.try_into()?, height.try_into()?, pixels)
                    .context("the image has fewer bytes than pixels")?;
                let resized = images::resize(&image, new_width.try_into()?, new_height.try_into()?, filter);
                let shape = [new_height, new_width, 3];
                let resized = libtorch::tensor_from_bytes(&resized, Kind::Uint8, &shape, (Kind::Uint8, Device::Cpu))?;
                Ok(resized.permute([2, 0, 1]))
            }
        }
    }

    fn center_crop(&self, image: &Tensor) -> Tensor {
        let (height, width) = match self.crop_size {
            Size::Exact { height, width } => (height, width),
            Size::ShortestEdge { shortest_edge: edge } | Size::Edge(edge) => (edge, edge),
        };
        let border = |side: i64, target: i64| {
            let border = (target - side).max(0);
            let before = match self.resampler {
                Resampler::Torchvision | Resampler::Interpolation => border / 2,
                Resampler::Pillow => border - border / 2,
            };
            (before, border - before)
        };
        let ((top, bottom), (left, right)) = (border(image.size()[1], height), border(image.size()[2], width));
        let image = image.constant_pad_nd([left, right, top, bottom]);
        let (above, before) = ((image.size()[1] - height) / 2, (image.size()[2] - width) / 2);
        image.narrow(1, above, height).narrow(2, before, width)
    }

    fn normalize(&self, image: &Tensor) -> Tensor {
        let image = image.to_kind(Kind::Float);
        let scale = if self.do_rescale { self.rescale_factor } else { 1.0 };
        if !self.do_normalize {
            return image * scale;
        }
        // Rescaling is folded into the two constants, as the reference does.
        let channels =
            |values: [f64; 3]| Tensor::from_slice(&values).to_kind(Kind::Float).reshape([3, 1, 1]) * (1.0 / scale);
        (image - channels(self.image_mean)) / channels(self.image_std)
    }
}
