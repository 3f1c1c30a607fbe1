//! The parts of a block that gradient checkpointing computes again, one at a time.

use std::cell::Cell;
use std::iter;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use layers::ResnetBlock2d;
use tch::Tensor;

use crate::attention::{KeysValues, KvCache};
use crate::observer::Watch;
use crate::sites::Visit;
use crate::transformer::Transformer2d;

/// What all layers are given in one forward pass besides feature maps.
pub(crate) struct Pass<'a> {
    /// The timesteps' embeddings [batch, width].
    pub(crate) temb: Tensor,
    /// The text; it has keys and values for every cross-attention layer.
    pub(crate) text: &'a KvCache,
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
    /// The names of the cross-attention layers within.
    cross_attention: Vec<String>,
}

#[derive(Debug)]
struct Parts {
    resnet: ResnetBlock2d,
    attention: Option<Transformer2d>,
}

impl Layer {
    pub(crate) fn new(resnet: ResnetBlock2d, attention: Option<Transformer2d>) -> Self {
        let names = attention.iter().flat_map(Transformer2d::cross_attention).map(|layer| layer.name().to_owned());
        let cross_attention = names.collect();
        Self { parts: Arc::new(Mutex::new(Parts { resnet, attention })), cross_attention }
    }

    /// The names of the cross-attention layers within, in the order of execution.
    pub(crate) fn cross_attention(&self) -> &[String] {
        &self.cross_attention
    }

    /// Shows each linear layer of the transformer to `visit`, in the order of execution.
    pub(crate) fn visit(&self, visit: Visit<'_>) -> Result<()> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.attention.as_mut().map_or(Ok(()), |attention| attention.visit(visit))
    }

    /// The keys and values of a text [batch or 1, positions, `cross_attention_dim`] in each cross-attention layer.
    pub(crate) fn project(&self, text: &Tensor) -> Vec<(String, KeysValues)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let layers = parts.attention.iter().flat_map(Transformer2d::cross_attention);
        layers.map(|layer| (layer.name().to_owned(), layer.keys_values(text))).collect()
    }

    /// The keys of one text and the values of another in each cross-attention layer, from the pairs that each has.
    pub(crate) fn project_pairs(&self, texts: &[[Tensor; 2]]) -> Vec<(String, KeysValues)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let layers = parts.attention.iter().flat_map(Transformer2d::cross_attention).zip(texts);
        layers.map(|(layer, pair)| (layer.name().to_owned(), layer.keys_and_values(pair.each_ref()))).collect()
    }

    /// Maps feature maps, whose channels are put together, to one.
    pub(crate) fn forward(&self, maps: &[&Tensor], pass: &mut Pass<'_>) -> Tensor {
        let (parts, texts) = (Arc::clone(&self.parts), self.cross_attention.len());
        let tokens = pass.watch.as_ref().map(|watch| watch.tokens.shallow_clone());
        let again = Cell::new(false);
        // The inputs are the timesteps' embeddings, the feature maps, and the keys and values of the text.
        let segment = move |inputs: &[Tensor]| {
            let _span = again.replace(true).then(|| tracing::trace_span!("unet/recomputed").entered());
            let (maps, text) = inputs[1..].split_at(inputs.len() - 1 - 2 * texts);
            let parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
            parts.forward(maps, &inputs[0], text.as_chunks().0, tokens.as_ref())
        };
        let text: Vec<&Tensor> = self.cross_attention.iter().flat_map(|name| &pass.text.layers[name]).collect();
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
            let _span = tracing::trace_span!("unet/observer").entered();
            for (name, probabilities) in self.cross_attention.iter().zip(&outputs) {
                watch.show(name, (hidden.size()[2], hidden.size()[3]), probabilities);
            }
        }
        hidden
    }
}

impl Parts {
    /// Returns the new feature map and, if there are tokens to be shown, their probabilities in each cross-attention
    /// layer.
    fn forward(&self, maps: &[Tensor], temb: &Tensor, text: &[KeysValues], tokens: Option<&Tensor>) -> Vec<Tensor> {
        let hidden = match maps {
            [xs] => self.resnet.forward(xs, Some(temb)),
            maps => self.resnet.forward(&Tensor::cat(maps, 1), Some(temb)),
        };
        let Some(attention) = &self.attention else { return vec![hidden] };
        let mut shown = Vec::new();
        let hidden = attention.forward(&hidden, text, tokens, &mut shown);
        iter::once(hidden).chain(shown).collect()
    }
}
