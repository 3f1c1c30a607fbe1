//! The tiny models of `fixtures/tiny-*/unet` against diffusers: predictions, attention, gradients.

use golden::{Golden, assert_close, fixtures};
use tch::{Device, Kind, Tensor};
use unet::{AddedConditions, AttentionMap, AttentionMaps, AttentionObserver, UNet};
use weights::{Parameters, Source};

const MODELS: [&str; 3] = ["tiny-sd21", "tiny-sd15", "tiny-sdxl"];
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
    added: Option<AddedConditions>,
}

impl Case {
    fn load(name: &str) -> Self {
        let folder = fixtures().join(name).join("unet");
        let (unet, parameters) = UNet::from_folder(&folder, (Kind::Float, Device::Cpu)).unwrap();
        let golden = Golden::open(&format!("unet/{name}.safetensors"));
        let [sample, timesteps, text] = ["sample", "timesteps", "encoder_hidden_states"].map(|name| golden.get(name));
        let added = unet
            .config()
            .pooled_text_dim()
            .map(|_| AddedConditions { text_embeds: golden.get("text_embeds"), time_ids: golden.get("time_ids") });
        Self { unet, parameters, golden, sample, timesteps, text, added }
    }

    fn predict(&self, observer: Option<&mut dyn AttentionObserver>) -> Tensor {
        match &self.added {
            None => self.unet.forward(&self.sample, &self.timesteps, &self.text, observer).unwrap(),
            Some(added) => {
                let text = self.unet.project_with(&self.text, added).unwrap();
                self.unet.forward_cached(&self.sample, &self.timesteps, &text, observer).unwrap()
            }
        }
    }

    fn watch(&self, tokens: impl IntoIterator<Item = i64>) -> (Tensor, Vec<AttentionMap>) {
        let mut maps = AttentionMaps::new(tokens);
        (self.predict(Some(&mut maps)), maps.maps)
    }

    /// What the model reads, by the names in the golden.
    fn inputs(&self) -> Vec<(&'static str, &Tensor)> {
        let pooled = self.added.iter().map(|added| ("text_embeds", &added.text_embeds));
        [("sample", &self.sample), ("encoder_hidden_states", &self.text)].into_iter().chain(pooled).collect()
    }

    /// Everything learns: the parameters and the inputs.
    fn require_gradients(&self) {
        self.inputs().into_iter().for_each(|(_, input)| drop(input.set_requires_grad(true)));
        self.parameters.train(|_| true);
    }

    /// Compares the gradients of `loss`, which the golden has under `prefix`: those with respect to the inputs and a
    /// few parameters whole, and for every parameter a norm and a projection.
    fn assert_gradients(&self, prefix: &str, loss: &Tensor) {
        let parameters = self.parameters.train(|_| true);
        loss.backward();
        let gradient = |tensor: &Tensor| Some(tensor.grad()).filter(Tensor::defined);
        for (name, input) in self.inputs() {
            self.golden.assert_close(&format!("{prefix}.{name}"), &input.grad(), TOLERANCE);
        }
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
        case.golden.assert_close("output", &case.predict(None), TOLERANCE);
        let (watched, _) = case.watch(TOKENS);
        case.golden.assert_close("output", &watched, TOLERANCE);
    }
}

#[test]
fn attention_equals_diffusers_in_all_layers() {
    for case in MODELS.map(Case::load) {
        let (_, maps) = case.watch(TOKENS);
        for (i, map) in maps.iter().enumerate() {
            case.golden.assert_close(&format!("probabilities.{i}"), &map.probabilities, TOLERANCE);
            assert_eq!((map.index, &map.name), (i, &case.unet.cross_attention_layers()[i]));
            assert!(case.parameters.get(&format!("{}.to_k.weight", map.name)).is_some(), "{}", map.name);
        }
        let sides: Vec<i64> = maps.iter().map(|map| map.height).collect();
        let last = maps.last().map(|map| map.name.as_str());
        if case.added.is_some() {
            // Two transformers of 2 blocks on the way down, two of 3, one of 3 in the middle, three of 3 and three of 2 on the way up.
            assert_eq!(sides, [vec![8; 4], vec![4; 6], vec![4; 3], vec![4; 9], vec![8; 6]].concat());
            assert_eq!(last, Some("up_blocks.1.attentions.2.transformer_blocks.1.attn2"));
        } else {
            assert_eq!(sides, [16, 16, 8, 8, 4, 4, 2, 4, 4, 4, 8, 8, 8, 16, 16, 16]);
            assert_eq!(maps[6].name, "mid_block.attentions.0.transformer_blocks.0.attn2");
            assert_eq!(last, Some("up_blocks.3.attentions.2.transformer_blocks.0.attn2"));
        }
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
        case.require_gradients();
        let output = case.predict(None);
        case.assert_gradients("denoising", &output.mse_loss(&case.golden.get("target"), tch::Reduction::Mean));
    }
}

/// The loss of arXiv 2406.05000 on the means and variances of two tokens' maps: gradients through the observer.
#[test]
fn gradients_of_an_attention_loss_equal_diffusers() {
    for case in MODELS.map(Case::load) {
        case.require_gradients();
        let (_, maps) = case.watch([5, 6]);
        let difference = |xs: &Tensor| (xs.select(1, 0) - xs.select(1, 1)).square();
        let of_layer = |map: &AttentionMap| {
            let values = map.probabilities.flatten(2, 3);
            let mean = values.mean_dim(2i64, false, Kind::Float);
            let variance = values.var_dim(2i64, true, false);
            (difference(&mean) * 2.0 + difference(&variance) * 5.0).sum(Kind::Float)
        };
        let loss = maps.iter().map(of_layer).sum::<Tensor>() / maps.len() as f64;
        case.golden.assert_close("regularizer", &loss, TOLERANCE);
        case.assert_gradients("regularizer", &loss);
    }
}

/// What a text is projected to may be put together and taken apart, pooled text included.
#[test]
fn projected_texts_are_gathered_with_what_is_added() {
    let case = Case::load("tiny-sdxl");
    let added = case.added.as_ref().unwrap();
    let whole = case.unet.project_with(&case.text, added).unwrap();
    let swapped =
        unet::KvCache::gathered(&[&whole.narrow(1, 1), &whole.narrow(0, 1)], &Tensor::from_slice(&[0_i64, 1]));
    let predict = |text: &unet::KvCache, sample: &Tensor, timesteps: &Tensor| {
        case.unet.forward_cached(sample, timesteps, text, None).unwrap()
    };
    let expected = predict(&whole, &case.sample, &case.timesteps);
    let found = predict(&swapped, &case.sample.flip([0]), &case.timesteps.flip([0])).flip([0]);
    assert_close("gathered", &found, &expected, TOLERANCE);
    let first = predict(&whole.narrow(0, 1), &case.sample.narrow(0, 0, 1), &case.timesteps.narrow(0, 0, 1));
    assert_close("narrowed", &first, &expected.narrow(0, 0, 1), TOLERANCE);
}

#[test]
fn what_else_a_model_reads_is_asked_for_and_refused() {
    let (sdxl, sd) = (Case::load("tiny-sdxl"), Case::load("tiny-sd21"));
    let added = sdxl.added.as_ref().unwrap();
    let said = |result: anyhow::Result<unet::KvCache>| format!("{:#}", result.unwrap_err());
    assert!(said(sdxl.unet.project(&sdxl.text)).contains("UNet::project_with"));
    assert!(said(sd.unet.project_with(&sd.text, added)).contains("addition_embed_type is null"));
    let short = AddedConditions { text_embeds: added.text_embeds.narrow(1, 0, 20), time_ids: added.time_ids.copy() };
    assert!(said(sdxl.unet.project_with(&sdxl.text, &short)).contains("[2, 20]"));
    let few = AddedConditions { text_embeds: added.text_embeds.copy(), time_ids: added.time_ids.narrow(1, 0, 5) };
    assert!(said(sdxl.unet.project_with(&sdxl.text, &few)).contains("[2, 5]"));
    let of = |rows: &[i64]| {
        let rows = Tensor::from_slice(rows);
        let [text_embeds, time_ids] = [&added.text_embeds, &added.time_ids].map(|xs| xs.index_select(0, &rows));
        AddedConditions { text_embeds, time_ids }
    };
    assert!(said(sdxl.unet.project_with(&sdxl.text, &of(&[0, 1, 0]))).contains("one for each text"));
    let three = sdxl.unet.project_with(&sdxl.text.narrow(0, 0, 1), &of(&[0, 1, 0])).unwrap();
    let error = sdxl.unet.forward_cached(&sdxl.sample, &sdxl.timesteps, &three, None).unwrap_err().to_string();
    assert!(error.contains("sizes of 3 images but latents of 2"), "{error}");

    // One for all is one for each.
    let predict = |rows: &[i64]| {
        let text = sdxl.unet.project_with(&sdxl.text, &of(rows)).unwrap();
        sdxl.unet.forward_cached(&sdxl.sample, &sdxl.timesteps, &text, None).unwrap()
    };
    assert_close("one for all", &predict(&[1]), &predict(&[1, 1]), TOLERANCE);
}
