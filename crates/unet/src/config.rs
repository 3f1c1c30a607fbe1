//! The architecture, as diffusers' `config.json` describes it.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

/// The architecture of a U-Net, with diffusers' names, and diffusers' values for absent keys; only
/// `block_out_channels` and `cross_attention_dim` must be given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default = "Config::defaults")]
pub struct Config {
    /// The height and width of the latents that the model was trained on.
    pub sample_size: Option<i64>,
    /// The channels of the latents.
    pub in_channels: i64,
    /// The channels of the prediction.
    pub out_channels: i64,
    /// Whether latents in [0, 1] are mapped to [-1, 1] first.
    pub center_input_sample: bool,
    /// Whether the cosines come before the sines in the timesteps' embedding.
    pub flip_sin_to_cos: bool,
    /// Makes the timesteps' frequencies fall from 1 to 1/10000 over `dim / 2 - freq_shift` steps.
    pub freq_shift: i64,
    /// `DownBlock2D` or `CrossAttnDownBlock2D` for each block.
    pub down_block_types: Vec<String>,
    /// `UpBlock2D` or `CrossAttnUpBlock2D` for each block, the smallest feature maps first.
    pub up_block_types: Vec<String>,
    /// The channels of each down block; the up blocks mirror them.
    pub block_out_channels: Vec<i64>,
    /// The residual blocks of each down block; an up block has one more.
    pub layers_per_block: PerBlock,
    /// The transformer blocks after each residual block.
    pub transformer_layers_per_block: PerBlock,
    /// The number of attention *heads*: a misnomer that all Stable Diffusion configs share.
    pub attention_head_dim: PerBlock,
    /// The number of attention heads under its right name, which wins where present.
    pub num_attention_heads: Option<PerBlock>,
    /// The width of the text embeddings.
    pub cross_attention_dim: i64,
    /// Whether transformers are entered and left through linear layers rather than 1×1 convolutions.
    pub use_linear_projection: bool,
    /// Whether attention scores are computed in f32 in a half-precision model.
    #[serde(deserialize_with = "null_is_false")]
    pub upcast_attention: bool,
    /// 1, or 0 for padding at the end only.
    pub downsample_padding: i64,
    /// The groups of all group normalisations.
    pub norm_num_groups: i64,
    /// The epsilon of the normalisations, except those inside transformers.
    pub norm_eps: f64,
    /// `text_time` in SDXL, whose timesteps' embedding also has the pooled text and the image's sizes in it.
    pub addition_embed_type: Option<String>,
    /// With `text_time`, the width of each size's sinusoids.
    pub addition_time_embed_dim: Option<i64>,
    /// With `text_time`, the width of the pooled text and of six sizes' sinusoids together.
    pub projection_class_embeddings_input_dim: Option<i64>,
    /// All other keys, kept so that a config is written back whole.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// One number for all blocks, or one for each down block; the up blocks mirror them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected an integer or a list of one integer for each block")]
pub enum PerBlock {
    /// The same for all.
    Same(i64),
    /// In the order of the down blocks.
    Each(Vec<i64>),
}

impl PerBlock {
    /// The number for a down block, of which [`Config::validate`] has seen to it that there is one.
    ///
    /// # Panics
    /// When there is no such block.
    pub fn at(&self, block: usize) -> i64 {
        match self {
            Self::Same(value) => *value,
            Self::Each(values) => values[block],
        }
    }
}

impl Config {
    /// Stable Diffusion 2.1-base (512 pixels).
    pub fn sd21_base() -> Self {
        Self {
            sample_size: Some(64),
            attention_head_dim: PerBlock::Each(vec![5, 10, 20, 20]),
            cross_attention_dim: 1024,
            use_linear_projection: true,
            ..Self::stable_diffusion()
        }
    }

    /// Stable Diffusion 2.1 (768 pixels).
    pub fn sd21() -> Self {
        Self { sample_size: Some(96), upcast_attention: true, ..Self::sd21_base() }
    }

    /// Stable Diffusion 1.5, whose architecture is that of 1.1 to 1.4.
    pub fn sd15() -> Self {
        Self { sample_size: Some(64), cross_attention_dim: 768, ..Self::stable_diffusion() }
    }

    /// SDXL base 1.0 (1024 pixels).
    pub fn sdxl_base() -> Self {
        let (cross_down, cross_up) = (CROSS_ATTENTION_DOWN.to_owned(), CROSS_ATTENTION_UP.to_owned());
        Self {
            sample_size: Some(128),
            block_out_channels: vec![320, 640, 1280],
            down_block_types: vec!["DownBlock2D".to_owned(), cross_down.clone(), cross_down],
            up_block_types: vec![cross_up.clone(), cross_up, "UpBlock2D".to_owned()],
            transformer_layers_per_block: PerBlock::Each(vec![1, 2, 10]),
            attention_head_dim: PerBlock::Each(vec![5, 10, 20]),
            cross_attention_dim: 2048,
            use_linear_projection: true,
            addition_embed_type: Some(TEXT_TIME.to_owned()),
            addition_time_embed_dim: Some(256),
            projection_class_embeddings_input_dim: Some(2816),
            ..Self::defaults()
        }
    }

    fn stable_diffusion() -> Self {
        Self { block_out_channels: vec![320, 640, 1280, 1280], ..Self::defaults() }
    }

    /// diffusers' defaults, with nothing for the keys that must be given.
    fn defaults() -> Self {
        let (cross_down, cross_up) = ("CrossAttnDownBlock2D".to_owned(), "CrossAttnUpBlock2D".to_owned());
        let (down, up) = ("DownBlock2D".to_owned(), "UpBlock2D".to_owned());
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0,
            down_block_types: vec![cross_down.clone(), cross_down.clone(), cross_down, down],
            up_block_types: vec![up, cross_up.clone(), cross_up.clone(), cross_up],
            block_out_channels: Vec::new(),
            layers_per_block: PerBlock::Same(2),
            transformer_layers_per_block: PerBlock::Same(1),
            attention_head_dim: PerBlock::Same(8),
            num_attention_heads: None,
            cross_attention_dim: 0,
            use_linear_projection: false,
            upcast_attention: false,
            downsample_padding: 1,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            other: Map::new(),
        }
    }

    /// Checks that the keys fit together and ask for nothing that is not built here.
    ///
    /// # Errors
    /// Names the first key that does not fit, its value, and what would fit.
    pub fn validate(&self) -> Result<()> {
        for (key, only) in fixed_keys() {
            if let Some(value) = self.other.get(key).filter(|value| !agrees(value, &only)) {
                bail!(
                    "{key} is {}, but only {only} is supported, which is what Stable Diffusion has",
                    terminal::shortened(&value.to_string())
                );
            }
        }
        self.check_blocks()?;
        self.check_numbers()?;
        self.check_added()
    }

    fn check_added(&self) -> Result<()> {
        let Some(kind) = &self.addition_embed_type else { return Ok(()) };
        ensure!(
            kind == TEXT_TIME,
            "addition_embed_type is {:?}, but only {TEXT_TIME:?} (SDXL) and null are supported",
            terminal::shortened(kind)
        );
        for (key, value) in [
            ("addition_time_embed_dim", self.addition_time_embed_dim),
            ("projection_class_embeddings_input_dim", self.projection_class_embeddings_input_dim),
        ] {
            let value =
                value.with_context(|| format!("{key} is missing, which addition_embed_type {TEXT_TIME:?} needs"))?;
            limits::within(key, value, 1..=MAX_CHANNELS, WIDE)?;
        }
        let (whole, sizes) = self.added_widths();
        ensure!(
            whole > sizes,
            "projection_class_embeddings_input_dim is {whole}, but {TIME_IDS} sizes of addition_time_embed_dim already take \
             {sizes}, and the pooled text takes the rest"
        );
        Ok(())
    }

    /// The widths of the pooled text and the sizes together, and of the sizes alone.
    fn added_widths(&self) -> (i64, i64) {
        let sizes = self.addition_time_embed_dim.unwrap_or(0) * TIME_IDS;
        (self.projection_class_embeddings_input_dim.unwrap_or(0), sizes)
    }

    /// The width of the pooled text that the model reads beside the text; `None` for a model that reads none.
    pub fn pooled_text_dim(&self) -> Option<i64> {
        let (whole, sizes) = self.added_widths();
        self.addition_embed_type.is_some().then_some(whole - sizes)
    }

    fn check_blocks(&self) -> Result<()> {
        let blocks = self.block_out_channels.len();
        ensure!(blocks > 0, "block_out_channels is missing or empty: give the channels of each down block");
        limits::within(
            "the number of block_out_channels",
            blocks,
            1..=MAX_BLOCKS,
            "each block halves the feature maps",
        )?;
        for (key, types, supported) in [
            ("down_block_types", &self.down_block_types, ["DownBlock2D", CROSS_ATTENTION_DOWN]),
            ("up_block_types", &self.up_block_types, ["UpBlock2D", CROSS_ATTENTION_UP]),
        ] {
            ensure!(
                types.len() == blocks,
                "{key} has {} entries, but block_out_channels has {blocks}: give one for each block",
                types.len()
            );
            if let Some(unknown) = types.iter().find(|name| !supported.contains(&name.as_str())) {
                let unknown = terminal::shortened(unknown);
                bail!("{key} has {unknown:?}, but only {} and {} are supported", supported[0], supported[1]);
            }
        }
        for (key, numbers, most, reason) in [
            ("layers_per_block", &self.layers_per_block, MAX_LAYERS, DEEP),
            ("transformer_layers_per_block", &self.transformer_layers_per_block, MAX_LAYERS, DEEP),
            ("attention_head_dim", &self.attention_head_dim, MAX_CHANNELS, WIDE),
            ("num_attention_heads", self.heads(), MAX_CHANNELS, WIDE),
        ] {
            if let PerBlock::Each(numbers) = numbers {
                ensure!(
                    numbers.len() == blocks,
                    "{key} has {} entries, but block_out_channels has {blocks}: give one for each block or a single number",
                    numbers.len()
                );
            }
            for number in (0..blocks).map(|block| numbers.at(block)) {
                limits::within(key, number, 1..=most, reason)?;
            }
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<()> {
        ensure!(
            self.cross_attention_dim != 0,
            "cross_attention_dim is missing or not positive: give the width of the text embeddings, such as 1024"
        );
        for (key, value) in [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("cross_attention_dim", self.cross_attention_dim),
            ("norm_num_groups", self.norm_num_groups),
        ] {
            limits::within(key, value, 1..=MAX_CHANNELS, WIDE)?;
        }
        if let Some(side) = self.sample_size {
            limits::within("sample_size", side, 1..=MAX_SIDE, "attention grows with its fourth power")?;
        }
        limits::within("norm_eps", self.norm_eps, 0.0..=1.0, "it only keeps a division from zero")?;
        ensure!(
            matches!(self.downsample_padding, 0 | 1),
            "downsample_padding is {}: give 0 or 1",
            self.downsample_padding
        );
        for &channels in &self.block_out_channels {
            limits::within("block_out_channels", channels, 1..=MAX_CHANNELS, WIDE)?;
        }
        let half = self.block_out_channels[0] / 2;
        ensure!(
            (0..half.max(1)).contains(&self.freq_shift),
            "freq_shift is {}: it must be at least 0 and less than {half}",
            self.freq_shift
        );
        for (block, &channels) in self.block_out_channels.iter().enumerate() {
            let heads = self.heads().at(block);
            for (key, divisor) in [("norm_num_groups", self.norm_num_groups), ("number of attention heads", heads)] {
                ensure!(
                    channels % divisor == 0,
                    "block {block} has {channels} channels in block_out_channels, which must be a multiple of its {key}, \
                     {divisor}"
                );
            }
        }
        Ok(())
    }

    /// The number of attention heads.
    pub(crate) fn heads(&self) -> &PerBlock {
        self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim)
    }

    pub(crate) fn down_block_attends(&self, block: usize) -> bool {
        self.down_block_types[block] == CROSS_ATTENTION_DOWN
    }

    pub(crate) fn up_block_attends(&self, block: usize) -> bool {
        self.up_block_types[block] == CROSS_ATTENTION_UP
    }
}

/// Stable Diffusion's widest layers have 1280 channels; a 3x3 convolution of so many would have 40 GB.
const MAX_CHANNELS: i64 = 1 << 15;
const WIDE: &str = "a wider layer fits no memory";
/// Stable Diffusion has 2 residual blocks with a transformer each; its larger relatives have transformers of 10 layers.
const MAX_LAYERS: i64 = 64;
const DEEP: &str = "every layer is built";
/// Stable Diffusion has 4.
const MAX_BLOCKS: usize = 8;
/// Of latents; Stable Diffusion has 64 or 96.
const MAX_SIDE: i64 = 1 << 11;

const TEXT_TIME: &str = "text_time";
/// The original height and width, the crop's top and left, the target's height and width.
pub(crate) const TIME_IDS: i64 = 6;

/// SDXL's config says null for false.
fn null_is_false<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or(false))
}

const CROSS_ATTENTION_DOWN: &str = "CrossAttnDownBlock2D";
const CROSS_ATTENTION_UP: &str = "CrossAttnUpBlock2D";

/// Keys that change the architecture elsewhere, with the only value that they may have here; `null` means off.
fn fixed_keys() -> [(&'static str, Value); 26] {
    [
        ("_class_name", json!("UNet2DConditionModel")),
        ("act_fn", json!("silu")),
        ("attention_type", json!("default")),
        ("class_embed_type", json!(null)),
        ("class_embeddings_concat", json!(null)),
        ("conv_in_kernel", json!(3)),
        ("conv_out_kernel", json!(3)),
        ("cross_attention_norm", json!(null)),
        ("dropout", json!(0)),
        ("dual_cross_attention", json!(null)),
        ("encoder_hid_dim", json!(null)),
        ("encoder_hid_dim_type", json!(null)),
        ("mid_block_only_cross_attention", json!(null)),
        ("mid_block_scale_factor", json!(1)),
        ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
        ("num_class_embeds", json!(null)),
        ("only_cross_attention", json!(null)),
        ("resnet_out_scale_factor", json!(1)),
        ("resnet_skip_time_act", json!(null)),
        ("resnet_time_scale_shift", json!("default")),
        ("reverse_transformer_layers_per_block", json!(null)),
        ("time_cond_proj_dim", json!(null)),
        ("time_embedding_act_fn", json!(null)),
        ("time_embedding_dim", json!(null)),
        ("time_embedding_type", json!("positional")),
        ("timestep_post_act", json!(null)),
    ]
}

/// Whether a config's value means the same as the supported one.
fn agrees(value: &Value, only: &Value) -> bool {
    match (value, only) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(each), _) => each.iter().all(|value| agrees(value, only)),
        (Value::Bool(false), Value::Null) => true,
        _ => value == only,
    }
}
