//! The transformer that both towers are made of.

use layers::{Activation, LayerNorm, Linear, attention, merge_heads, split_heads};
use tch::Tensor;
use weights::{Init, Scope};

use crate::config::Geometry;

/// Layers of attention and MLP, each normalised beforehand and added to its input.
#[derive(Debug)]
pub(crate) struct Encoder {
    layers: Vec<EncoderLayer>,
    causal: bool,
}

impl Encoder {
    /// With `causal`, a token sees itself and those before it.
    pub(crate) fn new(vs: &Scope, geometry: &Geometry, causal: bool) -> Self {
        let vs = vs / "layers";
        let layers = (0..geometry.num_hidden_layers).map(|i| EncoderLayer::new(&(&vs / i), geometry)).collect();
        Self { layers, causal }
    }

    pub(crate) fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Maps [batch, tokens, hidden_size] to the same shape, without the last `skip` layers.
    pub(crate) fn forward(&self, hidden_states: &Tensor, skip: usize) -> Tensor {
        self.through(&self.layers[..self.layers.len() - skip], hidden_states)
    }

    /// The layers that [`Encoder::forward`] leaves out.
    pub(crate) fn forward_rest(&self, hidden_states: &Tensor, skip: usize) -> Tensor {
        self.through(&self.layers[self.layers.len() - skip..], hidden_states)
    }

    fn through(&self, layers: &[EncoderLayer], hidden_states: &Tensor) -> Tensor {
        layers.iter().fold(hidden_states.shallow_clone(), |states, layer| layer.forward(&states, self.causal))
    }
}

#[derive(Debug)]
struct EncoderLayer {
    layer_norm1: LayerNorm,
    self_attn: Attention,
    layer_norm2: LayerNorm,
    mlp: Mlp,
}

impl EncoderLayer {
    fn new(vs: &Scope, geometry: &Geometry) -> Self {
        let layer_norm = |name| LayerNorm::new(&(vs / name), geometry.hidden_size, geometry.layer_norm_eps);
        Self {
            layer_norm1: layer_norm("layer_norm1"),
            self_attn: Attention::new(&(vs / "self_attn"), geometry),
            layer_norm2: layer_norm("layer_norm2"),
            mlp: Mlp::new(&(vs / "mlp"), geometry),
        }
    }

    fn forward(&self, xs: &Tensor, causal: bool) -> Tensor {
        let xs = xs + self.self_attn.forward(&self.layer_norm1.forward(xs), causal);
        &xs + self.mlp.forward(&self.layer_norm2.forward(&xs))
    }
}

#[derive(Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: i64,
}

impl Attention {
    fn new(vs: &Scope, geometry: &Geometry) -> Self {
        let dim = geometry.hidden_size;
        let linear = |name, std| Linear::with_init(&(vs / name), dim, dim, Init::Normal(std));
        let in_std = geometry.std() * geometry.depth_factor();
        Self {
            q_proj: linear("q_proj", in_std),
            k_proj: linear("k_proj", in_std),
            v_proj: linear("v_proj", in_std),
            out_proj: linear("out_proj", geometry.std()),
            heads: geometry.num_attention_heads,
        }
    }

    fn forward(&self, xs: &Tensor, causal: bool) -> Tensor {
        let [q, k, v] = [&self.q_proj, &self.k_proj, &self.v_proj].map(|p| split_heads(&p.forward(xs), self.heads));
        self.out_proj.forward(&merge_heads(&attention(&q, &k, &v, causal)))
    }
}

#[derive(Debug)]
struct Mlp {
    fc1: Linear,
    activation: Activation,
    fc2: Linear,
}

impl Mlp {
    fn new(vs: &Scope, geometry: &Geometry) -> Self {
        let (outer, inner) = (geometry.hidden_size, geometry.intermediate_size);
        let fc1_std = geometry.std() / 2f64.sqrt();
        let fc2_std = geometry.std() * geometry.depth_factor();
        Self {
            fc1: Linear::with_init(&(vs / "fc1"), outer, inner, Init::Normal(fc1_std)),
            activation: geometry.hidden_act,
            fc2: Linear::with_init(&(vs / "fc2"), inner, outer, Init::Normal(fc2_std)),
        }
    }

    fn forward(&self, xs: &Tensor) -> Tensor {
        self.fc2.forward(&self.activation.apply(&self.fc1.forward(xs)))
    }
}
