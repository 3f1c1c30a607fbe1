//! The parts of a block that gradient checkpointing computes again, one at a time.

use std::cell::Cell;
use std::iter;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use layers::ResnetBlock2d;
use tch::Tensor;

use crate::attention::{KeysValues, KvCache};
use crate::insertion::{Features, Insertions, TransformerPlace};
use crate::observer::Watch;
use crate::sites::Visit;
use crate::transformer::{Extras, Transformed, Transformer2d};

/// What all layers are given in one forward pass besides feature maps.
pub(crate) struct Pass<'a> {
    /// The timesteps' embeddings [batch, width].
    pub(crate) temb: Tensor,
    /// The text; it has keys and values for every cross-attention layer.
    pub(crate) text: &'a KvCache,
    pub(crate) watch: Option<Watch<'a>>,
    pub(crate) features: Option<&'a mut Features>,
    pub(crate) insertions: Option<&'a Insertions>,
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
    transformer: Option<TransformerPlace>,
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
        let transformer = attention.as_ref().map(Transformer2d::place);
        Self { parts: Arc::new(Mutex::new(Parts { resnet, attention })), cross_attention, transformer }
    }

    /// The names of the cross-attention layers within, in the order of execution.
    pub(crate) fn cross_attention(&self) -> &[String] {
        &self.cross_attention
    }

    /// The transformer within.
    pub(crate) fn transformer(&self) -> Option<&TransformerPlace> {
        self.transformer.as_ref()
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
        let (parts, texts, count) = (Arc::clone(&self.parts), self.cross_attention.len(), maps.len());
        let watched: Vec<bool> = self
            .cross_attention
            .iter()
            .map(|name| pass.watch.as_ref().is_some_and(|watch| watch.watches(name)))
            .collect();
        let tokens = pass.watch.as_ref().map(|watch| watch.tokens.shallow_clone());
        let place = self.transformer.as_ref().map(|transformer| transformer.name.as_str());
        let keeps_features =
            pass.features.as_ref().is_some_and(|kept| kept.places.iter().any(|p| Some(p.as_str()) == place));
        let inserted = place.and_then(|place| pass.insertions?.get(place));
        let part = inserted.map(|inserted| Arc::clone(&inserted.part));
        let (again, is_watched) = (Cell::new(false), watched.clone());
        // The inputs are the timesteps' embeddings, the feature maps, the keys and values of the text, and what is brought for an
        // inserted part.
        let segment = move |inputs: &[Tensor]| {
            let _span = again.replace(true).then(|| tracing::trace_span!("unet/recomputed").entered());
            let (maps, rest) = inputs[1..].split_at(count);
            let (text, brought) = rest.split_at(2 * texts);
            let insertion = part.as_ref().map(|part| (part.as_ref(), brought));
            let extras = Extras { tokens: tokens.as_ref(), watched: &is_watched, keeps_features, insertion };
            let parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
            parts.forward(maps, &inputs[0], text.as_chunks().0, &extras)
        };
        let text: Vec<&Tensor> = self.cross_attention.iter().flat_map(|name| &pass.text.layers[name]).collect();
        let brought: Vec<&Tensor> = inserted.iter().flat_map(|inserted| &inserted.inputs).collect();
        let inputs = [&[&pass.temb], maps, &text, &brought].concat();
        let mut outputs = if pass.gradient_checkpointing {
            libtorch::checkpoint(&inputs, segment)
        } else {
            // Where gradients meet decides in which order they are added: at the same places as in a checkpointed pass.
            let input = |xs: &Tensor| if xs.requires_grad() { xs.alias() } else { xs.shallow_clone() };
            segment(&inputs.into_iter().map(input).collect::<Vec<_>>())
        };
        let hidden = outputs.remove(0);
        if let (true, Some(features), Some(place)) = (keeps_features, &mut pass.features, place) {
            features.seen.extend(outputs.pop().map(|made| (place.to_owned(), made)));
        }
        if let Some(watch) = &mut pass.watch {
            let _span = tracing::trace_span!("unet/observer").entered();
            let mut shown = outputs.iter();
            for (name, watched) in self.cross_attention.iter().zip(watched) {
                let probabilities = if watched { shown.next() } else { None };
                watch.pass(name, (hidden.size()[2], hidden.size()[3]), probabilities);
            }
        }
        hidden
    }
}

impl Parts {
    /// Returns the new feature map, the probabilities of the cross-attention layers that are watched, and the transformer's
    /// features if they are kept.
    fn forward(&self, maps: &[Tensor], temb: &Tensor, text: &[KeysValues], extras: &Extras<'_>) -> Vec<Tensor> {
        let hidden = match maps {
            [xs] => self.resnet.forward(xs, Some(temb)),
            maps => self.resnet.forward(&Tensor::cat(maps, 1), Some(temb)),
        };
        let Some(attention) = &self.attention else { return vec![hidden] };
        let Transformed { hidden, shown, features } = attention.forward(&hidden, text, extras);
        iter::once(hidden).chain(shown).chain(features).collect()
    }
}
