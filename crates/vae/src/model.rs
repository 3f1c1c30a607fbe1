//! The autoencoder as a whole.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use layers::Conv2d;
use tch::{Device, Kind, Tensor};
use weights::{Archive, Parameters, Scope};

use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::tiling::in_tiles;
use crate::{Config, Posterior, Tiling};

/// diffusers' `AutoencoderKL`: an encoder to the posterior of the latents, and a decoder from latents to images.
///
/// Sizes below are those of Stable Diffusion: 3 image channels, 4 latent channels, 8 pixels to one latent.
#[derive(Debug)]
pub struct AutoencoderKl {
    config: Config,
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
}

impl AutoencoderKl {
    /// The model that `config` describes, with its parameters below `vs`.
    ///
    /// # Errors
    /// When `config` is not valid; see [`Config::validate`].
    pub fn new(vs: &Scope, config: &Config) -> Result<Self> {
        config.validate()?;
        // What the VAE was trained with: LPIPS and a discriminator.
        vs.ignore("loss");
        let latent = config.latent_channels;
        Ok(Self {
            config: config.clone(),
            encoder: Encoder::new(&(vs / "encoder"), config),
            decoder: Decoder::new(&(vs / "decoder"), config),
            quant_conv: config.use_quant_conv.then(|| Conv2d::new(&(vs / "quant_conv"), 2 * latent, 2 * latent, 1)),
            post_quant_conv: config
                .use_post_quant_conv
                .then(|| Conv2d::new(&(vs / "post_quant_conv"), latent, latent, 1)),
        })
    }

    /// Loads a diffusers folder (`vae/`): `config.json` and the safetensors file beside it, as parameters of the dtype
    /// and on the device `to`.
    ///
    /// # Errors
    /// Names the file and what is wrong with it: a key of the config, or all tensors that do not fit.
    pub fn from_folder(folder: &Path, to: (Kind, Device)) -> Result<(Self, Parameters)> {
        let path = folder.join("config.json");
        let config: Config = weights::read_config(&path)?;
        config.validate().with_context(|| format!("{} does not describe a supported VAE", path.display()))?;
        weights::build(&Archive::open_folder(folder)?, to, |vs| Self::new(vs, &config))
    }

    /// What the model was built from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Encodes images [batch, 3, H, W] in [-1, 1], H and W multiples of 8, into the posterior of their latents
    /// [batch, 4, H/8, W/8].
    ///
    /// # Errors
    /// When the images have another shape or are not floating-point.
    pub fn encode(&self, images: &Tensor) -> Result<Posterior> {
        self.encode_tiled(images, &Tiling::NONE)
    }

    /// The same in pieces, to bound memory.
    ///
    /// # Errors
    /// As [`AutoencoderKl::encode`], and when `tiling` has an impossible tile size.
    pub fn encode_tiled(&self, images: &Tensor, tiling: &Tiling) -> Result<Posterior> {
        let _span = tracing::trace_span!("vae/encode").entered();
        let (height, width) = check("images", images, self.config.in_channels)?;
        let factor = self.config.downscale_factor();
        ensure!(
            height % factor == 0 && width % factor == 0,
            "images are {width}x{height} pixels, but width and height must be multiples of {factor}; resize or crop them"
        );
        let encode = |images: &Tensor| {
            let moments = self.encoder.forward(images);
            self.quant_conv.as_ref().map_or_else(|| moments.shallow_clone(), |conv| conv.forward(&moments))
        };
        let tile = self.tile(tiling, height, width)?;
        let moments = sliced(images, tiling, |images| match tile {
            Some(tile) => in_tiles(images, tile, tile / factor, encode),
            None => encode(images),
        });
        Posterior::from_moments(&moments)
    }

    /// Decodes *unscaled* latents [batch, 4, h, w] into images [batch, 3, 8h, 8w]; their values lie in [-1, 1] but for
    /// some overshoot, which is not clamped.
    ///
    /// # Errors
    /// When the latents have another shape or are not floating-point.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        self.decode_tiled(latents, &Tiling::NONE)
    }

    /// The same in pieces, to bound memory.
    ///
    /// # Errors
    /// As [`AutoencoderKl::decode`], and when `tiling` has an impossible tile size.
    pub fn decode_tiled(&self, latents: &Tensor, tiling: &Tiling) -> Result<Tensor> {
        let _span = tracing::trace_span!("vae/decode").entered();
        let (height, width) = check("latents", latents, self.config.latent_channels)?;
        let factor = self.config.downscale_factor();
        let decode = |latents: &Tensor| match &self.post_quant_conv {
            Some(conv) => self.decoder.forward(&conv.forward(latents)),
            None => self.decoder.forward(latents),
        };
        let tile = self.tile(tiling, height * factor, width * factor)?;
        Ok(sliced(latents, tiling, |latents| match tile {
            Some(tile) => in_tiles(latents, tile / factor, tile, decode),
            None => decode(latents),
        }))
    }

    /// The latents that the diffusion model works on: multiplied with the config's `scaling_factor`.
    pub fn scale_latents(&self, latents: &Tensor) -> Tensor {
        latents * self.config.scaling_factor
    }

    /// The latents that [`AutoencoderKl::decode`] takes, from those of the diffusion model.
    pub fn unscale_latents(&self, latents: &Tensor) -> Tensor {
        latents / self.config.scaling_factor
    }

    /// The side of the tiles for images of this size, `None` when they stay whole.
    fn tile(&self, tiling: &Tiling, height: i64, width: i64) -> Result<Option<i64>> {
        let Some(tile) = tiling.tile_size else { return Ok(None) };
        let unit = 4 * self.config.downscale_factor();
        ensure!(tile > 0 && tile % unit == 0, "tile_size is {tile} pixels, but must be a positive multiple of {unit}");
        Ok((height > tile || width > tile).then_some(tile))
    }
}

/// Applies `run` to the whole batch or to one item at a time.
fn sliced(batch: &Tensor, tiling: &Tiling, run: impl Fn(&Tensor) -> Tensor) -> Tensor {
    if tiling.slice_batch && batch.size()[0] > 1 {
        Tensor::cat(&batch.split(1, 0).iter().map(run).collect::<Vec<_>>(), 0)
    } else {
        run(batch)
    }
}

/// Height and width of a non-empty [batch, channels, height, width] of floating-point numbers.
fn check(what: &str, tensor: &Tensor, channels: i64) -> Result<(i64, i64)> {
    let shape = tensor.size();
    let &[batch, found, height, width] = shape.as_slice() else {
        anyhow::bail!("{what} have shape {shape:?}, but must have 4 dimensions: [batch, {channels}, height, width]");
    };
    ensure!(found == channels, "{what} have shape {shape:?}, but this VAE's have {channels} channels, not {found}");
    ensure!(batch > 0 && height > 0 && width > 0, "{what} have shape {shape:?}, which is empty");
    let kind = tensor.kind();
    ensure!(
        matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half | Kind::Double),
        "{what} have dtype {kind:?}, but must be floating-point; convert them first"
    );
    Ok((height, width))
}
