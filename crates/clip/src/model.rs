//! Both towers with their projections into the space that texts and images share.

use std::path::Path;

use anyhow::{Result, ensure};
use layers::Linear;
use tch::{Device, Kind, Tensor};
use weights::{Archive, Init, Parameters, Scope, Source};

use crate::folder;
use crate::{ClipConfig, ClipTextModel, ClipVisionModel, TextConfig, VisionConfig};

/// OpenAI's start of the logit scale: ln(1 / 0.07).
const LOGIT_SCALE: f64 = 2.6592;

/// The text encoder with its projection (`CLIPTextModelWithProjection`).
#[derive(Debug)]
pub struct ClipTextModelWithProjection {
    text_model: ClipTextModel,
    text_projection: Linear,
}

impl ClipTextModelWithProjection {
    /// Takes the parameters below `text_model` and `text_projection`.
    ///
    /// # Errors
    /// When `config` describes no model.
    pub fn new(vs: &Scope, config: &TextConfig) -> Result<Self> {
        Ok(Self {
            text_model: ClipTextModel::new(vs, config)?,
            text_projection: projection(&(vs / "text_projection"), config.hidden_size, config.projection_dim),
        })
    }

    /// Reads a folder such as `text_encoder_2/` of a diffusers model: config.json and the weights beside it.
    ///
    /// # Errors
    /// When a file cannot be read, or describes another kind of model, or the weights do not fit the config.
    pub fn from_folder(folder: &Path, to: (Kind, Device)) -> Result<(Self, Parameters)> {
        let config: TextConfig = folder::read_config(folder, "clip_text_model")?;
        folder::in_config(folder, config.validate())?;
        weights::build(&Archive::open_folder(folder)?, to, |vs| {
            for name in ["logit_scale", "vision_model", "visual_projection"] {
                vs.ignore(name);
            }
            Self::new(vs, &config)
        })
    }

    /// The encoder itself.
    pub fn text_model(&self) -> &ClipTextModel {
        &self.text_model
    }

    /// The same to be changed.
    pub fn text_model_mut(&mut self) -> &mut ClipTextModel {
        &mut self.text_model
    }

    /// The features [batch, projection_dim] of `ids` [batch, n], not normalised.
    ///
    /// # Errors
    /// As [`ClipTextModel::forward`] and [`ClipTextModel::pooled`].
    pub fn text_features(&self, ids: &Tensor) -> Result<Tensor> {
        self.features_of(&self.text_model.forward(ids)?, ids)
    }

    /// The same given the last hidden state of the texts.
    ///
    /// # Errors
    /// As [`ClipTextModel::pooled`].
    pub fn features_of(&self, last_hidden_state: &Tensor, ids: &Tensor) -> Result<Tensor> {
        Ok(self.text_projection.forward(&self.text_model.pooled(last_hidden_state, ids)?))
    }
}

/// The image encoder with its projection (`CLIPVisionModelWithProjection`).
#[derive(Debug)]
pub struct ClipVisionModelWithProjection {
    vision_model: ClipVisionModel,
    visual_projection: Linear,
}

impl ClipVisionModelWithProjection {
    /// Takes the parameters below `vision_model` and `visual_projection`.
    ///
    /// # Errors
    /// When `config` describes no model.
    pub fn new(vs: &Scope, config: &VisionConfig) -> Result<Self> {
        Ok(Self {
            vision_model: ClipVisionModel::new(vs, config)?,
            visual_projection: projection(&(vs / "visual_projection"), config.hidden_size, config.projection_dim),
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
            for name in ["logit_scale", "text_model", "text_projection"] {
                vs.ignore(name);
            }
            Self::new(vs, &config)
        })
    }

    /// The encoder itself.
    pub fn vision_model(&self) -> &ClipVisionModel {
        &self.vision_model
    }

    /// The features [batch, projection_dim] of prepared images [batch, 3, image_size, image_size], not normalised.
    ///
    /// # Errors
    /// As [`ClipVisionModel::forward`].
    pub fn image_features(&self, pixel_values: &Tensor) -> Result<Tensor> {
        let pooled = self.vision_model.pooled(&self.vision_model.forward(pixel_values)?);
        Ok(self.visual_projection.forward(&pooled))
    }
}

/// A whole CLIP (`CLIPModel`): how well images and texts go together.
#[derive(Debug)]
pub struct ClipModel {
    text: ClipTextModelWithProjection,
    vision: ClipVisionModelWithProjection,
    logit_scale: Tensor,
}

impl ClipModel {
    /// Takes the parameters below `vs`.
    ///
    /// # Errors
    /// When `config` describes no model.
    pub fn new(vs: &Scope, config: &ClipConfig) -> Result<Self> {
        config.validate()?;
        let projection_dim = config.projection_dim;
        let text_config = TextConfig { projection_dim, ..config.text_config.clone() };
        let vision_config = VisionConfig { projection_dim, ..config.vision_config.clone() };
        Ok(Self {
            text: ClipTextModelWithProjection::new(vs, &text_config)?,
            vision: ClipVisionModelWithProjection::new(vs, &vision_config)?,
            logit_scale: vs.get("logit_scale", &[], Init::Const(LOGIT_SCALE)),
        })
    }

    /// Reads a folder such as a copy of `openai/clip-vit-large-patch14`: config.json and the weights beside it.
    ///
    /// # Errors
    /// When a file cannot be read, or describes another kind of model, or lacks a tower, or the weights do not
    /// fit the config.
    pub fn from_folder(folder: &Path, to: (Kind, Device)) -> Result<(Self, Parameters)> {
        let config: ClipConfig = folder::read_config(folder, "clip")?;
        folder::in_config(folder, config.validate())?;
        let archive = Archive::open_folder(folder)?;
        folder::check_towers(folder, &archive.names())?;
        weights::build(&archive, to, |vs| Self::new(vs, &config))
    }

    /// The text encoder.
    pub fn text_model(&self) -> &ClipTextModel {
        self.text.text_model()
    }

    /// The image encoder.
    pub fn vision_model(&self) -> &ClipVisionModel {
        self.vision.vision_model()
    }

    /// The natural logarithm of what cosines are multiplied with, a scalar.
    pub fn logit_scale(&self) -> &Tensor {
        &self.logit_scale
    }

    /// The features [batch, projection_dim] of `ids` [batch, n], not normalised.
    ///
    /// # Errors
    /// As [`ClipTextModel::forward`] and [`ClipTextModel::pooled`].
    pub fn text_features(&self, ids: &Tensor) -> Result<Tensor> {
        self.text.text_features(ids)
    }

    /// The features [batch, projection_dim] of prepared images [batch, 3, image_size, image_size], not normalised.
    ///
    /// # Errors
    /// As [`ClipVisionModel::forward`].
    pub fn image_features(&self, pixel_values: &Tensor) -> Result<Tensor> {
        self.vision.image_features(pixel_values)
    }

    /// Cosines times exp(`logit_scale`), [images, texts], of image features [images, projection_dim] and text features
    /// [texts, projection_dim].
    ///
    /// # Errors
    /// When the features have another width.
    pub fn logits_per_image(&self, image_features: &Tensor, text_features: &Tensor) -> Result<Tensor> {
        let scale = self.logit_scale.to_kind(image_features.kind()).exp();
        Ok(cosine_similarity(image_features, text_features)? * scale)
    }
}

/// The cosines [a, b] of all pairs of `a` [a, width] and `b` [b, width].
///
/// # Errors
/// When the two have different widths.
pub fn cosine_similarity(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    ensure!(
        a.dim() == 2 && b.dim() == 2 && a.size()[1] == b.size()[1],
        "features of shapes {:?} and {:?} cannot be compared; take both from the same model",
        a.size(),
        b.size()
    );
    let normalize = |xs: &Tensor| xs / xs.square().sum_dim_intlist(-1, true, xs.kind()).sqrt();
    Ok(normalize(a).matmul(&normalize(b).tr()))
}

fn projection(vs: &Scope, dim: i64, projection_dim: i64) -> Linear {
    Linear::without_bias_with_init(vs, dim, projection_dim, Init::Normal((dim as f64).powf(-0.5)))
}
