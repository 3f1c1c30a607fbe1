//! The tiny models of `fixtures/tiny-*/unet` against diffusers: predictions, attention, gradients.

use golden::{Golden, assert_close, fixtures};
use tch::{Device, Kind, Tensor};
use unet::{AttentionMap, AttentionMaps, UNet};
use weights::{Parameters, Source};

const MODELS: [&str; 2] = ["tiny-sd21", "tiny-sd15"];
/// As in `fixtures/unet/generate.py`.
const TOKENS: [i64; 4] = [0, 5, 6, 76];
const TOLERANCE: f64 = 1e-5;

struct Case {
    unet: UNet,
    parameters: Parameters,
    golden: Golden,
    sample: Tensor,
    timesteps: Tensor,
    text: Tensor,
}

impl Case {
    fn load(name: &str) -> Self {
        let folder = fixtures().join(name).join("unet");
        let (unet, parameters) = UNet::from_folder(&folder, (Kind::Float, Device::Cpu)).unwrap();
        let golden = Golden::open(&format!("unet/{name}.safetensors"));
        let [sample, timesteps, text] = ["sample", "timesteps", "encoder_hidden_states"].map(|name| golden.get(name));
        Self { unet, parameters, golden, sample, timesteps, text }
    }

    fn watch(&self, tokens: impl IntoIterator<Item = i64>) -> (Tensor, Vec<AttentionMap>) {
        let mut maps = AttentionMaps::new(tokens);
        let output = self.unet.forward(&self.sample, &self.timesteps, &self.text, Some(&mut maps)).unwrap();
        (output, maps.maps)
    }

    /// Compares the gradients of `loss`, which the golden has under `prefix`: those with respect to the inputs and a
    /// few parameters whole, and for every parameter a norm and a projection.
    fn assert_gradients(&self, prefix: &str, loss: &Tensor) {
        let parameters = self.parameters.train(|_| true);
        let mut inputs = vec![&self.sample, &self.text];
        inputs.extend(parameters.iter().map(|(_, tensor)| tensor));
        loss.backward();
        let gradient = |tensor: &Tensor| Some(tensor.grad()).filter(Tensor::defined);
        self.golden.assert_close(&format!("{prefix}.sample"), &self.sample.grad(), TOLERANCE);
        self.golden.assert_close(&format!("{prefix}.encoder_hidden_states"), &self.text.grad(), TOLERANCE);
        let whole: Vec<&str> = self.golden.names().filter_map(|n| n.strip_prefix(prefix)?.strip_prefix('.')).collect();
        let (mut norms, mut projections) = (Vec::new(), Vec::new());
        for (name, gradient) in parameters.iter().filter_map(|(name, tensor)| Some((*name, gradient(tensor)?))) {
            if whole.contains(&name) {
                self.golden.assert_close(&format!("{prefix}.{name}"), &gradient, TOLERANCE);
            }
            let flat = gradient.reshape([-1]);
            norms.push(flat.norm());
            projections.push((flat * direction(name, &gradient)).sum(Kind::Float));
        }
        // Relative to each parameter's own gradient, so that none is too small to count.
        let expected = self.golden.get(&format!("{prefix}.norms"));
        let expected_projections = self.golden.get(&format!("{prefix}.projections")) / &expected;
        let (norms, projections) = (Tensor::stack(&norms, 0), Tensor::stack(&projections, 0));
        assert_close(&format!("{prefix} norms"), &(norms / &expected), &expected.ones_like(), TOLERANCE);
        assert_close(&format!("{prefix} projections"), &(projections / expected), &expected_projections, TOLERANCE);
    }
}

fn direction(name: &str, like: &Tensor) -> Tensor {
    let (shape, to) = ([like.numel() as i64], (Kind::Float, Device::Cpu));
    golden::Formula.fetch(&format!("direction.{name}"), &shape, weights::Init::Const(0.0), to).unwrap()
}

#[test]
fn predictions_equal_diffusers() {
    for case in MODELS.map(Case::load) {
        let output = case.unet.forward(&case.sample, &case.timesteps, &case.text, None).unwrap();
        case.golden.assert_close("output", &output, TOLERANCE);
        let (watched, _) = case.watch(TOKENS);
        case.golden.assert_close("output", &watched, TOLERANCE);
    }
}

#[test]
fn attention_equals_diffusers_in_all_layers() {
    for case in MODELS.map(Case::load) {
        let (_, maps) = case.watch(TOKENS);
        assert_eq!(maps.len(), 16);
        for (i, map) in maps.iter().enumerate() {
            case.golden.assert_close(&format!("probabilities.{i}"), &map.probabilities, TOLERANCE);
            assert_eq!((map.index, &map.name), (i, &case.unet.cross_attention_layers()[i]));
            assert!(case.parameters.get(&format!("{}.to_k.weight", map.name)).is_some(), "{}", map.name);
        }
        let sides: Vec<i64> = maps.iter().map(|map| map.height).collect();
        assert_eq!(sides, [16, 16, 8, 8, 4, 4, 2, 4, 4, 4, 8, 8, 8, 16, 16, 16]);
        assert_eq!(maps[6].name, "mid_block.attentions.0.transformer_blocks.0.attn2");
        assert_eq!(maps[15].name, "up_blocks.3.attentions.2.transformer_blocks.0.attn2");
        assert!(maps.iter().all(|map| map.probabilities.size() == [2, 4, map.heads, map.height * map.width]));
    }
}

#[test]
fn all_tokens_together_sum_to_one_and_contain_the_chosen() {
    let case = Case::load("tiny-sd21");
    let ((_, all), (_, chosen)) = (case.watch(0..77), case.watch(TOKENS));
    for (all, chosen) in all.iter().zip(&chosen) {
        let sums = all.probabilities.sum_dim_intlist(1i64, false, Kind::Float);
        assert_close(&all.name, &sums, &sums.ones_like(), 1e-6);
        let same = all.probabilities.index_select(1, &Tensor::from_slice(&TOKENS));
        assert_eq!(same, chosen.probabilities, "{}", all.name);
    }
}

#[test]
fn gradients_of_the_denoising_loss_equal_diffusers() {
    for case in MODELS.map(Case::load) {
        let (_sample, _text) = (case.sample.set_requires_grad(true), case.text.set_requires_grad(true));
        case.parameters.train(|_| true);
        let output = case.unet.forward(&case.sample, &case.timesteps, &case.text, None).unwrap();
        case.assert_gradients("denoising", &output.mse_loss(&case.golden.get("target"), tch::Reduction::Mean));
    }
}

/// The loss of arXiv 2406.05000 on the means and variances of two tokens' maps: gradients through the observer.
#[test]
fn gradients_of_an_attention_loss_equal_diffusers() {
    for case in MODELS.map(Case::load) {
        let (_sample, _text) = (case.sample.set_requires_grad(true), case.text.set_requires_grad(true));
        case.parameters.train(|_| true);
        let (_, maps) = case.watch([5, 6]);
        let difference = |xs: &Tensor| (xs.select(1, 0) - xs.select(1, 1)).square();
        let of_layer = |map: &AttentionMap| {
            let values = map.probabilities.flatten(2, 3);
            let mean = values.mean_dim(2i64, false, Kind::Float);
            let variance = values.var_dim(2i64, true, false);
            (difference(&mean) * 2.0 + difference(&variance) * 5.0).sum(Kind::Float)
        };
        let loss = maps.iter().map(of_layer).sum::<Tensor>() / 16.0;
        case.golden.assert_close("regularizer", &loss, TOLERANCE);
        case.assert_gradients("regularizer", &loss);
    }
}
