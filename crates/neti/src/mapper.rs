//! The network from a timestep and a layer to an embedding and a bypass.

use anyhow::{Result, ensure};
use libtorch::random;
use tch::{Device, Kind, Tensor};
use weights::{Init, Random, Scope};

use crate::Config;

const LAYER_NORM_EPS: f64 = 1e-5;
/// Timesteps of training, over which the anchors are spaced.
const TIMESTEPS: i64 = 1000;
/// More than any U-Net has.
const MOST_LAYERS: usize = 1000;
const OUTPUT_LAYER: &str = "output_layer.0";
/// The name of a parameter that tells the width: [2 · width, hidden].
pub(crate) const LAST_WEIGHT: &str = "output_layer.0.weight";

/// Maps (timestep, layer) to a token's embedding and its bypass.
///
/// With x = (timestep, layer), the features are v = (sin W x, cos W x), divided by their norm, with fixed frequencies W; then
/// `input_layer`, whose weight begins as the features at anchors, two layers with a norm and a leaky ReLU each, nested dropout,
/// `output_layer`. All of the output together is scaled to the norm of the class noun's embedding.
#[derive(Debug)]
pub struct Mapper {
    config: Config,
    norm: f64,
    layers: usize,
    /// [frequencies, 2], not trained.
    frequencies: Tensor,
    input_layer: Affine,
    net: [(Affine, Affine); 2],
    output_layer: Affine,
}

/// The weight and the bias of a layer.
#[derive(Debug)]
struct Affine {
    name: &'static str,
    weight: Tensor,
    bias: Tensor,
}

impl Affine {
    fn linear(vs: &Scope, name: &'static str, [from, to]: [i64; 2]) -> Self {
        let vs = vs / name;
        let [weight, bias] = [("weight", vec![to, from]), ("bias", vec![to])]
            .map(|(part, shape)| vs.get(part, &shape, Init::FanIn(from)));
        Self { name, weight, bias }
    }

    fn norm(vs: &Scope, name: &'static str, width: i64) -> Self {
        let vs = vs / name;
        let [weight, bias] =
            [("weight", 1.0), ("bias", 0.0)].map(|(part, start)| vs.get(part, &[width], Init::Const(start)));
        Self { name, weight, bias }
    }

    fn forward(&self, xs: &Tensor) -> Tensor {
        xs.linear(&self.weight, Some(&self.bias))
    }

    fn share(&self) -> Self {
        Self { name: self.name, weight: self.weight.shallow_clone(), bias: self.bias.shallow_clone() }
    }
}

impl Mapper {
    /// As it is before training, for a `size`: the width of embeddings and the number of cross-attention layers. In f32 on a device,
    /// by PyTorch's defaults but for the anchors. `norm` is that of the class noun's embedding.
    ///
    /// # Errors
    /// When a value is out of range or memory runs out.
    pub fn new(config: &Config, seed: u64, size: (i64, usize), norm: f64, device: Device) -> Result<Self> {
        let build = |vs: &Scope| Self::build(vs, config, size, norm, frequencies(config, seed, device));
        config.validate()?;
        libtorch::catch(|| {
            let (mapper, _) = weights::build(&Random { seed }, (Kind::Float, device), build)?;
            mapper.start_at_anchors();
            Ok(mapper)
        })?
    }

    /// Of a valid configuration, with the parameters that `vs` has.
    pub(crate) fn build(
        vs: &Scope,
        config: &Config,
        (width, layers): (i64, usize),
        norm: f64,
        frequencies: Tensor,
    ) -> Result<Self> {
        ensure!(
            width > 0 && (1..=MOST_LAYERS).contains(&layers),
            "the mapper is for {layers} layers and embeddings of width {width}: there must be 1 to {MOST_LAYERS}, and some width"
        );
        ensure!(
            norm > 0.0 && norm.is_finite(),
            "the class noun's embedding has the norm {norm}, to which nothing can be scaled: use another word"
        );
        let anchored = config.anchors * layers as i64;
        Ok(Self {
            config: config.clone(),
            norm,
            layers,
            frequencies,
            input_layer: Affine::linear(vs, "input_layer", [2 * config.frequencies, anchored]),
            net: [("net.1", "net.2", anchored), ("net.4", "net.5", config.hidden)].map(|(linear, norm, from)| {
                (Affine::linear(vs, linear, [from, config.hidden]), Affine::norm(vs, norm, config.hidden))
            }),
            output_layer: Affine::linear(vs, OUTPUT_LAYER, [config.hidden, 2 * width]),
        })
    }

    /// The weight of `input_layer` becomes the features at the anchors: of each timestep all layers.
    pub fn start_at_anchors(&self) {
        let layers = self.layers as i64;
        let times: Vec<i64> =
            (0..self.config.anchors).map(|anchor| anchor * (TIMESTEPS / self.config.anchors)).collect();
        let times = Tensor::from_slice(&times).repeat_interleave_self_int(layers, 0, None);
        let numbers = Tensor::arange(layers, (Kind::Int64, Device::Cpu)).repeat([self.config.anchors]);
        tch::no_grad(|| {
            let encoded = self.encode(&times, &numbers);
            self.input_layer.weight.shallow_clone().copy_(&encoded);
        });
    }

    /// The same parameters, in the same memory.
    #[must_use]
    pub fn share(&self) -> Self {
        Self {
            config: self.config.clone(),
            norm: self.norm,
            layers: self.layers,
            frequencies: self.frequencies.shallow_clone(),
            input_layer: self.input_layer.share(),
            net: self.net.each_ref().map(|(linear, norm)| (linear.share(), norm.share())),
            output_layer: self.output_layer.share(),
        }
    }

    /// What it was made from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The layers that it knows.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// The norm that all of the output together has.
    pub fn norm(&self) -> f64 {
        self.norm
    }

    /// The fixed frequencies [frequencies, 2], of timesteps and of layers.
    pub fn frequencies(&self) -> &Tensor {
        &self.frequencies
    }

    /// The parameters by their official names, in the order of execution.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        let [(linear_1, norm_1), (linear_2, norm_2)] = &self.net;
        let layers = [&self.input_layer, linear_1, norm_1, linear_2, norm_2, &self.output_layer];
        let named = |layer: &Affine| {
            [("weight", &layer.weight), ("bias", &layer.bias)]
                .map(|(part, tensor)| (format!("{}.{part}", layer.name), tensor.shallow_clone()))
        };
        layers.into_iter().flat_map(named).collect()
    }

    /// The features [n, 2 · frequencies], of norm 1, of timesteps and layers `[n]` each.
    pub fn encode(&self, timesteps: &Tensor, layers: &Tensor) -> Tensor {
        let device = self.frequencies.device();
        let point = [timesteps, layers].map(|xs| libtorch::upload(xs, device).to_kind(Kind::Float));
        let angles = Tensor::stack(&point, 1).matmul(&self.frequencies.tr());
        let waves = Tensor::cat(&[angles.sin(), angles.cos()], 1);
        &waves / norm(&waves)
    }

    /// The embedding and the bypass, [n, width] each, at `timesteps` `[n]` in a layer; of the hidden numbers of each as many are kept
    /// as `kept` `[n]` says, all if it is not given.
    ///
    /// # Errors
    /// When there is no such layer, or as many of both are not given.
    pub fn forward(&self, timesteps: &Tensor, layer: usize, kept: Option<&Tensor>) -> Result<[Tensor; 2]> {
        ensure!(layer < self.layers, "there is no layer number {layer}: the mapper knows {}", self.layers);
        ensure!(
            timesteps.dim() == 1 && kept.is_none_or(|kept| kept.size() == timesteps.size()),
            "timesteps have shape {:?} and the numbers to keep {:?}, but both must be [n]",
            timesteps.size(),
            kept.map(Tensor::size)
        );
        Ok(self.at(timesteps, &timesteps.full_like(layer as i64), kept))
    }

    /// The same at timesteps and layers `[n]` each, by their numbers.
    pub(crate) fn at(&self, timesteps: &Tensor, layers: &Tensor, kept: Option<&Tensor>) -> [Tensor; 2] {
        let mut hidden = self.input_layer.forward(&self.encode(timesteps, layers));
        for (linear, norm) in &self.net {
            let normed = linear.forward(&hidden).layer_norm(
                [self.config.hidden],
                Some(&norm.weight),
                Some(&norm.bias),
                LAYER_NORM_EPS,
                false,
            );
            // Its slope is LibTorch's default, 0.01.
            hidden = normed.leaky_relu();
        }
        if let Some(kept) = kept {
            let device = hidden.device();
            let numbers = Tensor::arange(self.config.hidden, (Kind::Int64, device));
            hidden = hidden.masked_fill(&numbers.ge_tensor(&libtorch::upload(kept, device).unsqueeze(1)), 0.0);
        }
        let output = self.output_layer.forward(&hidden);
        let output = &output / norm(&output).clamp_min(1e-12) * self.norm;
        let halves = output.chunk(2, 1);
        [halves[0].shallow_clone(), halves[1].shallow_clone()]
    }
}

/// Normal numbers, those of timesteps and of layers at their own scale.
fn frequencies(config: &Config, seed: u64, device: Device) -> Tensor {
    let scales = Tensor::from_slice(&[config.time_scale as f32, config.layer_scale as f32]);
    let drawn = random::normal(random::derive(seed, "frequencies", 0), &[config.frequencies, 2]);
    libtorch::upload(&(drawn * scales), device)
}

/// The 2-norms [..., 1] over the last dimension.
pub(crate) fn norm(xs: &Tensor) -> Tensor {
    xs.norm_scalaropt_dim(2.0, [-1i64].as_slice(), true)
}
