//! The vision transformer.

use std::path::Path;

use anyhow::{Context, Result, bail};
use layers::{Activation, Conv2d, LayerNorm, Linear, attention, merge_heads, split_heads};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use weights::{Archive, Init, Parameters, Scope};

use crate::Config;

/// transformers' `ViTModel` without its pooling layer, which DINO has not trained.
#[derive(Debug)]
pub struct ViT {
    config: Config,
    cls_token: Tensor,
    position_embeddings: Tensor,
    projection: Conv2d,
    layers: Vec<Layer>,
    layernorm: LayerNorm,
}

/// The part of any config.json that says what it is of.
#[derive(Deserialize)]
struct Header {
    model_type: Option<String>,
}

impl ViT {
    /// Takes the parameters below `vs`.
    ///
    /// # Errors
    /// When `config` describes no model.
    pub fn new(vs: &Scope, config: &Config) -> Result<Self> {
        config.validate()?;
        vs.ignore("pooler");
        let embeddings = vs / "embeddings";
        let (dim, patch) = (config.hidden_size, config.patch_size);
        let tokens = 1 + (config.image_size / patch).pow(2);
        let projection = &(&embeddings / "patch_embeddings") / "projection";
        let layers = vs / "encoder" / "layer";
        Ok(Self {
            cls_token: embeddings.get("cls_token", &[1, 1, dim], Init::Normal(0.02)),
            position_embeddings: embeddings.get("position_embeddings", &[1, tokens, dim], Init::Normal(0.02)),
            projection: Conv2d::new(&projection, config.num_channels, dim, patch).strided(patch, 0),
            layers: (0..config.num_hidden_layers).map(|i| Layer::new(&(&layers / i), config)).collect(),
            layernorm: LayerNorm::new(&(vs / "layernorm"), dim, config.layer_norm_eps),
            config: config.clone(),
        })
    }

    /// Reads a folder in transformers' layout, such as that of facebook/dino-vits16: config.json and the weights beside it.
    ///
    /// # Errors
    /// When a file cannot be read, or describes another kind of model, or the weights do not fit the config.
    pub fn from_folder(folder: &Path, to: (Kind, Device)) -> Result<(Self, Parameters)> {
        let path = folder.join("config.json");
        let header: Header = weights::read_config(&path)?;
        match header.model_type.as_deref() {
            Some("vit") => {}
            found => bail!(
                "{} is of a model of type {}, but one of type vit is needed here, such as facebook/dino-vits16",
                path.display(),
                found.unwrap_or("unknown")
            ),
        }
        let config: Config = weights::read_config(&path)?;
        config.validate().with_context(|| format!("{} describes no working model", path.display()))?;
        weights::build(&Archive::open_folder(folder)?, to, |vs| Self::new(vs, &config))
    }

    /// The config that the model was made from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The last hidden state, normalised: [batch, 1 + patches, `hidden_size`] of images that [`image_processor`](crate::image_processor)
    /// has prepared, [batch, `num_channels`, `image_size`, `image_size`]. The first token stands for the image.
    ///
    /// # Errors
    /// When the images have another shape, or are still bytes.
    pub fn forward(&self, pixel_values: &Tensor) -> Result<Tensor> {
        let Config { num_channels, image_size, .. } = self.config;
        clip::check_pixel_values(pixel_values, [num_channels, image_size, image_size])?;
        let (count, kind) = (pixel_values.size()[0], pixel_values.kind());
        let patches = self.projection.forward(pixel_values).flatten(2, 3).transpose(1, 2);
        let class = self.cls_token.to_kind(kind).expand([count, 1, -1], false);
        let tokens = Tensor::cat(&[class, patches], 1) + self.position_embeddings.to_kind(kind);
        let states = self.layers.iter().fold(tokens, |states, layer| layer.forward(&states));
        Ok(self.layernorm.forward(&states))
    }

    /// What stands for each image: [batch, `hidden_size`], not of length 1.
    ///
    /// # Errors
    /// As [`ViT::forward`].
    pub fn features(&self, pixel_values: &Tensor) -> Result<Tensor> {
        Ok(self.forward(pixel_values)?.select(1, 0))
    }
}

/// Attention and MLP, each normalised beforehand and added to its input.
#[derive(Debug)]
struct Layer {
    layernorm_before: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    projected: Linear,
    layernorm_after: LayerNorm,
    intermediate: Linear,
    activation: Activation,
    output: Linear,
    heads: i64,
}

impl Layer {
    fn new(vs: &Scope, config: &Config) -> Self {
        let (dim, inner) = (config.hidden_size, config.intermediate_size);
        let attention = &(vs / "attention") / "attention";
        let of_attention = |name: &str| match config.qkv_bias {
            true => Linear::new(&(&attention / name), dim, dim),
            false => Linear::without_bias(&(&attention / name), dim, dim),
        };
        let layer_norm = |name: &str| LayerNorm::new(&(vs / name), dim, config.layer_norm_eps);
        Self {
            layernorm_before: layer_norm("layernorm_before"),
            query: of_attention("query"),
            key: of_attention("key"),
            value: of_attention("value"),
            projected: Linear::new(&(vs / "attention" / "output" / "dense"), dim, dim),
            layernorm_after: layer_norm("layernorm_after"),
            intermediate: Linear::new(&(vs / "intermediate" / "dense"), dim, inner),
            activation: config.hidden_act,
            output: Linear::new(&(vs / "output" / "dense"), inner, dim),
            heads: config.num_attention_heads,
        }
    }

    fn forward(&self, xs: &Tensor) -> Tensor {
        let normed = self.layernorm_before.forward(xs);
        let [q, k, v] = [&self.query, &self.key, &self.value].map(|p| split_heads(&p.forward(&normed), self.heads));
        let xs = xs + self.projected.forward(&merge_heads(&attention(&q, &k, &v, false)));
        let inner = self.activation.apply(&self.intermediate.forward(&self.layernorm_after.forward(&xs)));
        xs + self.output.forward(&inner)
    }
}
