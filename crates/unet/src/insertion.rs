//! What a pass takes from transformers, and puts into them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tch::Tensor;

use crate::observer::AttentionObserver;

/// A transformer over the pixels of a feature map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransformerPlace {
    /// Its name in diffusers, such as `up_blocks.1.attentions.1`.
    pub name: String,
    /// The width of its features.
    pub channels: i64,
    /// Its attention's heads.
    pub heads: i64,
}

/// A part that is put behind the transformer blocks of a transformer, before `proj_out`, for one pass.
pub trait Insertion: Debug + Send {
    /// Maps the features [batch, height · width, channels] to the same shape, given what the pass brings for it. With gradient
    /// checkpointing it is run again in the backward pass, and must compute the same: gradients reach `inputs` and parameters of
    /// its own, but nothing else.
    fn forward(&self, features: &Tensor, inputs: &[Tensor]) -> Tensor;
}

/// A part and what one pass brings for it.
#[derive(Debug)]
pub struct Inserted {
    /// The part, which the pass's graph may hold for longer than the pass.
    pub part: Arc<Mutex<dyn Insertion>>,
    /// Tensors of this pass, which may need gradients.
    pub inputs: Vec<Tensor>,
}

/// Parts by the names of transformers.
pub type Insertions = BTreeMap<String, Inserted>;

/// Keeps what transformer blocks have made.
#[derive(Debug)]
pub struct Features {
    pub(crate) places: Vec<String>,
    /// By the transformer's name, [batch, height · width, channels], on the graph of the pass.
    pub seen: BTreeMap<String, Tensor>,
}

impl Features {
    /// Of the transformers with these names.
    pub fn of<'a>(places: impl IntoIterator<Item = &'a str>) -> Self {
        Self { places: places.into_iter().map(str::to_owned).collect(), seen: BTreeMap::new() }
    }
}

/// What a pass does beside predicting; mostly nothing.
#[derive(Default)]
pub struct Hooks<'a> {
    /// Who watches the cross-attention.
    pub observer: Option<&'a mut dyn AttentionObserver>,
    /// What keeps transformers' features, before anything is put behind them.
    pub features: Option<&'a mut Features>,
    /// What is put behind transformer blocks.
    pub insertions: Option<&'a Insertions>,
}
