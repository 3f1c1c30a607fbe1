//! The parts of a block that gradient checkpointing computes again, one at a time.

use std::cell::Cell;
use std::iter;
use std::slice::Iter;
use std::sync::{Arc, Mutex, PoisonError};

use layers::ResnetBlock2d;
use tch::Tensor;

use crate::attention::{KeysValues, Text};
use crate::observer::Watch;
use crate::transformer::Transformer2d;

/// What all layers are given in one forward pass besides feature maps.
pub(crate) struct Pass<'a> {
    /// The timesteps' embeddings [batch, width].
    pub(crate) temb: Tensor,
    /// What the cross-attention layers that are still to come read in the text.
    pub(crate) text: Iter<'a, KeysValues>,
    pub(crate) watch: Option<Watch<'a>>,
    pub(crate) gradient_checkpointing: bool,
}

/// A residual block (`resnets.i`) and mostly a transformer (`attentions.i`).
///
/// The graph of a checkpointed pass holds the parts too, and may run them on another thread: tensors can be sent there,
/// but not be shared without a lock. It is held for no longer than the parts run, and never while an observer does.
#[derive(Debug)]
pub(crate) struct Layer {
    parts: Arc<Mutex<Parts>>,
    /// Layers of cross-attention within.
    reads: usize,
}

#[derive(Debug)]
struct Parts {
    resnet: ResnetBlock2d,
    attention: Option<Transformer2d>,
}

impl Layer {
    pub(crate) fn new(resnet: ResnetBlock2d, attention: Option<Transformer2d>) -> Self {
        let reads = attention.as_ref().map_or(0, Transformer2d::depth);
        Self { parts: Arc::new(Mutex::new(Parts { resnet, attention })), reads }
    }

    /// What its cross-attention reads in the text [batch or 1, positions, `cross_attention_dim`].
    pub(crate) fn read(&self, text: &Tensor) -> Vec<KeysValues> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.attention.iter().flat_map(|attention| attention.read(text)).collect()
    }

    /// Maps feature maps, whose channels are put together, to one.
    pub(crate) fn forward(&self, maps: &[&Tensor], pass: &mut Pass<'_>) -> Tensor {
        let (parts, reads) = (Arc::clone(&self.parts), self.reads);
        let tokens = pass.watch.as_ref().map(|watch| watch.tokens.shallow_clone());
        let again = Cell::new(false);
        // The inputs are the timesteps' embeddings, the feature maps, and the keys and values of the text.
        let segment = move |inputs: &[Tensor]| {
            let _span = again.replace(true).then(|| profile::span("unet/recomputed"));
            let (maps, read) = inputs[1..].split_at(inputs.len() - 1 - 2 * reads);
            let text = Text { read: read.as_chunks().0, tokens: tokens.as_ref() };
            parts.lock().unwrap_or_else(PoisonError::into_inner).forward(maps, &inputs[0], text)
        };
        let text: Vec<&Tensor> = pass.text.by_ref().take(reads).flatten().collect();
        let inputs = [&[&pass.temb], maps, &text].concat();
        let mut outputs = if pass.gradient_checkpointing {
            libtorch::checkpoint(&inputs, segment)
        } else {
            // Where gradients meet decides in which order they are added: at the same places as in a checkpointed pass.
            let input = |xs: &Tensor| if xs.requires_grad() { xs.alias() } else { xs.shallow_clone() };
            segment(&inputs.into_iter().map(input).collect::<Vec<_>>())
        };
        let hidden = outputs.remove(0);
        if let Some(watch) = &mut pass.watch {
            let _span = profile::span("unet/observer");
            for probabilities in &outputs {
                watch.show((hidden.size()[2], hidden.size()[3]), probabilities);
            }
        }
        hidden
    }
}

impl Parts {
    /// Returns the new feature map and, if there are tokens to be shown, their probabilities in each cross-attention
    /// layer.
    fn forward(&self, maps: &[Tensor], temb: &Tensor, text: Text<'_>) -> Vec<Tensor> {
        let hidden = match maps {
            [xs] => self.resnet.forward(xs, Some(temb)),
            maps => self.resnet.forward(&Tensor::cat(maps, 1), Some(temb)),
        };
        let Some(attention) = &self.attention else { return vec![hidden] };
        let mut shown = Vec::new();
        let hidden = attention.forward(&hidden, text, &mut shown);
        iter::once(hidden).chain(shown).collect()
    }
}
