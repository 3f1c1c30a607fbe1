//! The regulariser as a watcher of the U-Net.

use std::collections::BTreeSet;
use std::mem;

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};
use unet::{AttentionObserver, CrossAttentionLayer};

use crate::statistics::{LayerStatistics, LayerSummary, pooled, summary};
use crate::{Batch, Category, Config, Mode};

/// Watches the attention to a placeholder and its category; see the [crate].
#[derive(Debug)]
pub struct AttentionRegularizer {
    config: Config,
    /// The placeholder's positions, then the category's.
    tokens: Vec<i64>,
    /// How many of them are the placeholder's.
    rows: i64,
    samples: Option<i64>,
    /// Where samples have prompts of their own: of each the places of its tokens, among the tokens of all samples, sample by
    /// sample. None where all have the same.
    own: Vec<Vec<i64>>,
    seen: Vec<LayerStatistics>,
}

/// What one forward pass amounts to.
#[derive(Debug)]
pub struct Regularization {
    /// The loss, of shape [], on the autograd graph of the pass.
    pub loss: Tensor,
    layers: Vec<LayerStatistics>,
}

impl Regularization {
    /// The statistics of each layer, in order of execution. Waits for the GPU.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn summary(&self) -> Result<Vec<LayerSummary>> {
        summary(&self.layers)
    }
}

impl AttentionRegularizer {
    /// For prompts that have the placeholder's rows and the category's tokens at the given positions, where the start
    /// of the text is position 0. With [`Category::First`] only the first position of the category is watched.
    ///
    /// # Errors
    /// When a value of `config` is out of range, or there are no positions, negative ones or one twice.
    pub fn new(config: &Config, placeholder: &[i64], category: &[i64]) -> Result<Self> {
        config.validate()?;
        for (whose, positions) in [("placeholder", placeholder), ("category", category)] {
            ensure!(!positions.is_empty(), "the regulariser needs at least one position of the {whose} in the prompt");
        }
        let watched = match config.category {
            Category::Mean => category,
            Category::First => &category[..1],
        };
        let tokens = [placeholder, watched].concat();
        let mut distinct = BTreeSet::new();
        for token in &tokens {
            ensure!(*token >= 0, "the regulariser is given the position {token}, but positions count from 0");
            ensure!(distinct.insert(token), "the regulariser is given the position {token} twice");
        }
        let rows = placeholder.len() as i64;
        Ok(Self { config: config.clone(), tokens, rows, samples: None, own: Vec::new(), seen: Vec::new() })
    }

    /// For a batch whose first samples have prompts of their own, with the positions of the placeholder's rows and of the
    /// category's tokens in each: as many in all of them. Samples behind these are not looked at.
    ///
    /// # Errors
    /// As [`AttentionRegularizer::new`] for each prompt; when there is none, or their numbers of positions differ.
    pub fn for_prompts(config: &Config, prompts: &[[Vec<i64>; 2]]) -> Result<Self> {
        let of_each = prompts.iter().map(|[placeholder, category]| Self::new(config, placeholder, category));
        let of_each: Vec<Self> = of_each.collect::<Result<_>>()?;
        let first = of_each.first().context("the regulariser needs at least one prompt")?;
        let counts = |of: &Self| (of.rows, of.tokens.len());
        let differs = of_each.iter().find(|other| counts(other) != counts(first));
        ensure!(
            differs.is_none(),
            "the regulariser's prompts have different numbers of positions of the placeholder or category"
        );
        let all: BTreeSet<i64> = of_each.iter().flat_map(|of| &of.tokens).copied().collect();
        let all: Vec<i64> = all.into_iter().collect();
        let place = |sample: usize, token: &i64| (sample * all.len() + all.partition_point(|one| one < token)) as i64;
        let own = |(sample, of): (usize, &Self)| of.tokens.iter().map(|token| place(sample, token)).collect();
        let own = of_each.iter().enumerate().map(own).collect();
        let (config, rows) = (config.clone(), first.rows);
        Ok(Self { config, tokens: all, rows, samples: None, own, seen: Vec::new() })
    }

    /// Looks only at the first `samples` of each batch; those behind may have another prompt, as the class images
    /// of prior preservation do.
    #[must_use]
    pub fn first_samples(self, samples: i64) -> Self {
        Self { samples: Some(samples), ..self }
    }

    /// What was seen since the last call, as a loss; afterwards another forward pass may be watched.
    ///
    /// # Errors
    /// When no layer was seen, one was seen twice, or one has a single value and thus no variance.
    pub fn finish(&mut self) -> Result<Regularization> {
        let layers = mem::take(&mut self.seen);
        let loss = self.loss(&layers)?;
        Ok(Regularization { loss, layers })
    }

    /// Reduces one layer's probabilities [batch, tokens, heads, pixels], where the tokens are those that this observer
    /// asks for. With [`AttentionRegularizer::loss`], this is the regulariser in two steps, for callers that compute
    /// layers again rather than keep their graph.
    pub fn reduce(&self, name: &str, probabilities: &Tensor) -> LayerStatistics {
        // Half-precision sums of thousands of small numbers would be off by percents.
        let kind = if probabilities.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let maps = match (self.own.first(), self.samples) {
            (Some(first), _) => {
                let places = libtorch::upload(&Tensor::from_slice(&self.own.concat()), probabilities.device());
                let chosen = probabilities.flatten(0, 1).index_select(0, &places);
                chosen.unflatten(0, [-1, first.len() as i64])
            }
            (None, Some(samples)) => probabilities.narrow(0, 0, samples),
            (None, None) => probabilities.shallow_clone(),
        };
        let maps = maps.to_kind(kind);
        let category = maps.size()[1] - self.rows;
        if category == 1 {
            return LayerStatistics::new(name, &maps);
        }
        let mean = maps.narrow(1, self.rows, category).mean_dim([1i64].as_slice(), true, kind);
        LayerStatistics::new(name, &Tensor::cat(&[maps.narrow(1, 0, self.rows), mean], 1))
    }

    /// The loss of all layers together, of shape [].
    ///
    /// # Errors
    /// As [`AttentionRegularizer::finish`].
    pub fn loss(&self, layers: &[LayerStatistics]) -> Result<Tensor> {
        ensure!(!layers.is_empty(), "the regulariser saw no cross-attention: give it to the U-Net's forward pass");
        let mut names = BTreeSet::new();
        for LayerStatistics { name, values, .. } in layers {
            ensure!(
                names.insert(name),
                "the regulariser saw the layer {name} twice: finish it after each forward pass"
            );
            ensure!(
                *values > 1 || self.config.lambda_variance == 0.0,
                "the layer {name} attends with one head to one pixel, which has no variance; use a larger resolution \
                 or set lambda_variance to 0"
            );
        }
        Ok(libtorch::catch(|| self.sum_of_terms(layers))?)
    }

    fn sum_of_terms(&self, layers: &[LayerStatistics]) -> Tensor {
        let Config { mode, batch, lambda_mean, lambda_variance, .. } = self.config;
        // [layers or nothing, batch, rows + 1]
        let (mean, variance) = match mode {
            Mode::PerLayer => {
                let stack = |xs: Vec<&Tensor>| Tensor::stack(&xs, 0);
                (stack(layers.iter().map(|l| &l.mean).collect()), stack(layers.iter().map(|l| &l.variance).collect()))
            }
            Mode::Pooled => pooled(layers),
        };
        // Σ over everything of the squared difference between each row and the category.
        let gap = |xs: &Tensor| (xs.narrow(-1, 0, self.rows) - xs.narrow(-1, self.rows, 1)).square().sum(xs.kind());
        // A term of no weight stays off the graph: its gradients would be computed for nothing, or be NaN.
        let weighted = [(lambda_mean, &mean), (lambda_variance, &variance)];
        let terms = weighted.into_iter().filter(|(lambda, _)| *lambda != 0.0).map(|(lambda, xs)| gap(xs) * lambda);
        let sum = terms.fold(Tensor::zeros([0i64; 0], (mean.kind(), mean.device())), |sum, term| sum + term);

        let samples = if batch == Batch::Mean { layers[0].mean.size()[0] } else { 1 };
        let layers = if mode == Mode::PerLayer { layers.len() as i64 } else { 1 };
        sum / (layers * samples * self.rows) as f64
    }
}

impl AttentionObserver for AttentionRegularizer {
    fn tokens(&self) -> &[i64] {
        &self.tokens
    }

    fn observe(&mut self, layer: &CrossAttentionLayer<'_>, probabilities: &Tensor) {
        let statistics = self.reduce(layer.name, probabilities);
        self.seen.push(statistics);
    }
}
