//! With gradient checkpointing everything is as without, to the last bit.

use std::collections::BTreeMap;

use golden::{Golden, fixtures};
use tch::{Device, Kind, Reduction, Tensor};
use unet::{AttentionMap, AttentionMaps, AttentionObserver, UNet};
use weights::Parameters;

/// What one training step leaves behind.
#[derive(Debug, PartialEq)]
struct Outcome {
    output: Tensor,
    /// The probabilities in each layer, by its name.
    attention: Vec<(String, Tensor)>,
    /// The gradients of inputs and parameters, by their names.
    gradients: BTreeMap<String, Tensor>,
}

/// What a step minimises.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Loss {
    Diffusion,
    /// The regulariser, from which no gradient comes to the layers behind all attention.
    Attention,
    Both,
}

struct Case {
    unet: UNet,
    parameters: Parameters,
    golden: Golden,
}

impl Case {
    fn load(model: &str) -> Self {
        let folder = fixtures().join(model).join("unet");
        let (unet, parameters) = UNet::from_folder(&folder, (Kind::Float, Device::Cpu)).unwrap();
        Self { unet, parameters, golden: Golden::open(&format!("unet/{model}.safetensors")) }
    }

    /// A step that computes in `kind`, with gradients to the inputs and parameters whose names satisfy `trained`.
    fn step(&mut self, checkpointing: bool, kind: Kind, loss: Loss, trained: Trained) -> Outcome {
        self.unet.set_gradient_checkpointing(checkpointing);
        self.parameters.train(trained);
        let inputs = ["sample", "encoder_hidden_states"]
            .map(|name| (name, self.golden.get(name).copy().set_requires_grad(trained(name))));
        let [sample, text] = [0, 1].map(|i: usize| inputs[i].1.to_kind(kind));

        let mut watch = AttentionMaps::new([5, 6]);
        let observer = (loss != Loss::Diffusion).then_some(&mut watch as &mut dyn AttentionObserver);
        let output = self.unet.forward(&sample, &self.golden.get("timesteps"), &text, observer).unwrap();
        let diffusion = || output.mse_loss(&self.golden.get("target").to_kind(kind), Reduction::Mean);
        let terms = watch.maps.iter().map(attention_loss).chain((loss != Loss::Attention).then(diffusion));
        terms.sum::<Tensor>().backward();

        let tensors = || inputs.iter().map(|(name, tensor)| (*name, tensor)).chain(self.parameters.iter());
        let gradients = tensors().filter(|(_, tensor)| tensor.grad().defined());
        let gradients = gradients.map(|(name, tensor)| (name.to_owned(), tensor.grad().copy())).collect();
        libtorch::clear_grads(&tensors().map(|(_, tensor)| tensor).collect::<Vec<_>>()).unwrap();
        let attention = watch.maps.into_iter().map(|map| (map.name, map.probabilities)).collect();
        Outcome { output, attention, gradients }
    }
}

/// The regulariser of arXiv 2406.05000 between two tokens.
fn attention_loss(map: &AttentionMap) -> Tensor {
    let values = map.probabilities.flatten(2, 3);
    let difference = |xs: Tensor| (xs.select(1, 0) - xs.select(1, 1)).square().sum(xs.kind());
    difference(values.mean_dim(2i64, false, values.kind())) * 2.0 + difference(values.var_dim(2i64, true, false)) * 5.0
}

fn is_input(name: &str) -> bool {
    ["sample", "encoder_hidden_states"].contains(&name)
}

type Trained = fn(&str) -> bool;

/// What has gradients in the three stages of the method, and everything; with the number of gradients.
const STAGES: [(Trained, usize); 4] = [
    (|name| name == "encoder_hidden_states", 1),
    (|name| name.contains("attn2"), 16 * 5),
    (|name| !is_input(name), 686 - 2),
    (|_| true, 686),
];

fn check(model: &str, kind: Kind) {
    let mut case = Case::load(model);
    for loss in [Loss::Diffusion, Loss::Attention, Loss::Both] {
        for (trained, count) in STAGES {
            let expected = case.step(false, kind, loss, trained);
            let found = case.step(true, kind, loss, trained);
            assert_eq!(found, expected, "{model} in {kind:?}, {loss:?}, {count} gradients");
            assert_eq!(found.attention.len(), if loss == Loss::Diffusion { 0 } else { 16 });
            assert!(found.gradients.len() == count || loss == Loss::Attention);
        }
    }
}

#[test]
fn training_is_the_same_in_f32() {
    check("tiny-sd21", Kind::Float);
    check("tiny-sd15", Kind::Float);
}

#[test]
fn training_is_the_same_in_bf16() {
    check("tiny-sd21", Kind::BFloat16);
}

#[test]
fn without_gradients_there_is_nothing_to_compute_again() {
    let mut case = Case::load("tiny-sd21");
    case.unet.set_gradient_checkpointing(true);
    let [sample, timesteps, text] = ["sample", "timesteps", "encoder_hidden_states"].map(|n| case.golden.get(n));
    let predict = || case.unet.forward(&sample, &timesteps, &text, None).unwrap();
    case.parameters.train(|_| false);
    assert!(!predict().requires_grad());
    case.golden.assert_close("output", &predict(), 1e-5);
    case.parameters.train(|_| true);
    assert!(!tch::no_grad(predict).requires_grad());
    assert!(predict().requires_grad());
}
