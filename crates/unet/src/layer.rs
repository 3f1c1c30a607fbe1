//! The parts of a block that gradient checkpointing computes again, one at a time.

use std::cell::Cell;
use std::iter;
use std::sync::{Arc, Mutex, PoisonError};

use layers::ResnetBlock2d;
use tch::Tensor;

use crate::attention::Text;
use crate::observer::Watch;
use crate::transformer::Transformer2d;

/// What all layers are given in one forward pass besides feature maps.
pub(crate) struct Pass<'a> {
    /// The timesteps' embeddings [batch, width].
    pub(crate) temb: Tensor,
    /// The text [batch or 1, positions, `cross_attention_dim`], of the latents' kind.
    pub(crate) text: Tensor,
    pub(crate) watch: Option<Watch<'a>>,
    pub(crate) gradient_checkpointing: bool,
}

/// A residual block (`resnets.i`) and mostly a transformer (`attentions.i`).
///
/// The graph of a checkpointed pass holds the parts too, and may run them on another thread: tensors can be sent there,
/// but not be shared without a lock. It is held for no longer than the parts run, and never while an observer does.
#[derive(Debug)]
pub(crate) struct Layer(Arc<Mutex<Parts>>);

#[derive(Debug)]
struct Parts {
    resnet: ResnetBlock2d,
    attention: Option<Transformer2d>,
}

impl Layer {
    pub(crate) fn new(resnet: ResnetBlock2d, attention: Option<Transformer2d>) -> Self {
        Self(Arc::new(Mutex::new(Parts { resnet, attention })))
    }

    /// Maps feature maps, whose channels are put together, to one.
    pub(crate) fn forward(&self, maps: &[&Tensor], pass: &mut Pass<'_>) -> Tensor {
        let parts = Arc::clone(&self.0);
        let tokens = pass.watch.as_ref().map(|watch| watch.tokens.shallow_clone());
        let again = Cell::new(false);
        let segment = move |inputs: &[Tensor]| {
            let _span = again.replace(true).then(|| profile::span("unet/recomputed"));
            let text = Text { states: &inputs[1], tokens: tokens.as_ref() };
            parts.lock().unwrap_or_else(PoisonError::into_inner).forward(&inputs[2..], &inputs[0], text)
        };
        let inputs = [&[&pass.temb, &pass.text], maps].concat();
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
