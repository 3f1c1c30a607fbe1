//! The image encoder.

use std::path::Path;

use anyhow::{Result, ensure};
use layers::{Conv2d, LayerNorm};
use tch::{Device, Kind, Tensor};
use weights::{Archive, Init, Parameters, Scope};

use crate::VisionConfig;
use crate::encoder::Encoder;
use crate::folder;

/// CLIP's image encoder (`CLIPVisionModel`): a vision transformer.
#[derive(Debug)]
pub struct ClipVisionModel {
    config: VisionConfig,
    class_embedding: Tensor,
    patch_embedding: Conv2d,
    position_embedding: Tensor,
    pre_layernorm: LayerNorm,
    encoder: Encoder,
    post_layernorm: LayerNorm,
}

impl ClipVisionModel {
    /// Takes the parameters below `vision_model` or, as transformers 5 writes them, directly below `vs`.
    ///
    /// # Errors
    /// When `config` describes no model.
    pub fn new(vs: &Scope, config: &VisionConfig) -> Result<Self> {
        config.validate()?;
        let bare = vs.contains("embeddings.class_embedding");
        let vs = if bare { vs.clone() } else { vs / "vision_model" };
        let embeddings = &vs / "embeddings";
        // A buffer in older files: 0, 1, 2, ...
        embeddings.ignore("position_ids");
        let dim = config.hidden_size;
        let tokens = 1 + (config.image_size / config.patch_size).pow(2);
        let layer_norm = |name| LayerNorm::new(&(&vs / name), dim, config.layer_norm_eps);
        Ok(Self {
            class_embedding: embeddings.get("class_embedding", &[dim], Init::Normal((dim as f64).powf(-0.5))),
            patch_embedding: Conv2d::patches(
                &(&embeddings / "patch_embedding"),
                config.num_channels,
                dim,
                config.patch_size,
            ),
            position_embedding: embeddings.get("position_embedding.weight", &[tokens, dim], Init::Normal(0.02)),
            // The name has been misspelt from the beginning.
            pre_layernorm: layer_norm("pre_layrnorm"),
            encoder: Encoder::new(&(&vs / "encoder"), &config.geometry(), false),
            post_layernorm: layer_norm("post_layernorm"),
            config: config.clone(),
        })
    }

    /// Reads a folder such as `image_encoder/` of a diffusers model: config.json and the weights beside it.
    ///
    /// # Errors
    /// When a file cannot be read, or describes another kind of model, or the weights do not fit the config.
    pub fn from_folder(folder: &Path, to: (Kind, Device)) -> Result<(Self, Parameters)> {
        let config: VisionConfig = folder::read_config(folder, "clip_vision_model")?;
        folder::in_config(folder, config.validate())?;
        weights::build(&Archive::open_folder(folder)?, to, |vs| {
            for name in ["logit_scale", "text_model", "text_projection", "visual_projection"] {
                vs.ignore(name);
            }
            Self::new(vs, &config)
        })
    }

    /// The config that the model was made from.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// The last hidden state [batch, 1 + patches, hidden_size] of images that
    /// [`ImageProcessor`](crate::ImageProcessor) has prepared, [batch, num_channels, image_size, image_size]; the first
    /// token stands for the class. The images' dtype is what the model computes in.
    ///
    /// # Errors
    /// When the images have another shape, or are still bytes.
    pub fn forward(&self, pixel_values: &Tensor) -> Result<Tensor> {
        let VisionConfig { num_channels, image_size, .. } = self.config;
        check_pixel_values(pixel_values, [num_channels, image_size, image_size])?;
        let (count, kind) = (pixel_values.size()[0], pixel_values.kind());
        let patches = self.patch_embedding.forward(pixel_values).flatten(2, 3).transpose(1, 2);
        let class = self.class_embedding.to_kind(kind).expand([count, 1, -1], false);
        let tokens = Tensor::cat(&[class, patches], 1) + self.position_embedding.to_kind(kind);
        Ok(self.encoder.forward(&self.pre_layernorm.forward(&tokens), 0))
    }

    /// What stands for each image as a whole, [batch, hidden_size]: the class token of the last hidden state (of
    /// [`ClipVisionModel::forward`]), normalised.
    pub fn pooled(&self, last_hidden_state: &Tensor) -> Tensor {
        self.post_layernorm.forward(&last_hidden_state.select(1, 0))
    }
}

/// Checks that pixel values are floating-point numbers of shape [batch, channels, height, width].
///
/// # Errors
/// Says what they are, where they are something else.
pub fn check_pixel_values(pixel_values: &Tensor, [channels, height, width]: [i64; 3]) -> Result<()> {
    let (size, kind) = (pixel_values.size(), pixel_values.kind());
    ensure!(
        size.len() == 4
            && size[1..] == [channels, height, width]
            && matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half),
        "pixel values are {kind:?} of shape {size:?}, but this image encoder takes floating-point numbers of shape \
         [batch, {channels}, {height}, {width}]; prepare images with its own preprocessor_config.json"
    );
    Ok(())
}
