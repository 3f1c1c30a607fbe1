//! Means and variances of attention maps.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// One layer's attention to each placeholder row and, last, to the category, on the autograd graph.
#[derive(Debug)]
pub struct LayerStatistics {
    /// The layer's name in the U-Net.
    pub name: String,
    /// The means over heads and pixels [batch, rows + 1].
    pub mean: Tensor,
    /// The unbiased variances over heads and pixels together [batch, rows + 1]; NaN where `values` is 1.
    pub variance: Tensor,
    /// How many values each was taken of: heads · pixels.
    pub values: i64,
}

impl LayerStatistics {
    /// Of maps [batch, rows + 1, heads, pixels].
    pub(crate) fn new(name: &str, maps: &Tensor) -> Self {
        let values = maps.size()[2] * maps.size()[3];
        let (variance, mean) = if values > 1 {
            maps.var_mean_correction([2i64, 3].as_slice(), 1, false)
        } else {
            // LibTorch says NaN too, but warns each time.
            let mean = maps.flatten(1, 3);
            (mean.full_like(f64::NAN), mean)
        };
        Self { name: name.to_owned(), mean, variance, values }
    }
}

/// Pools layers as if all their values stood in one list; the mean and the unbiased variance, [batch, rows + 1].
///
/// With n values a layer and N in all, M = Σ n m / N and S = [Σ (n - 1) s + Σ n (m - M)²] / (N - 1): no sum of
/// squares is taken from another, so nothing cancels.
pub(crate) fn pooled(layers: &[LayerStatistics]) -> (Tensor, Tensor) {
    let all = layers.iter().map(|layer| layer.values).sum::<i64>() as f64;
    let mean: Tensor = layers.iter().map(|layer| &layer.mean * (layer.values as f64 / all)).sum();
    let part = |layer: &LayerStatistics| {
        let n = layer.values as f64;
        &layer.variance * ((n - 1.0) / (all - 1.0)) + (&layer.mean - &mean).square() * (n / (all - 1.0))
    };
    let variance = layers.iter().map(part).sum();
    (mean, variance)
}

/// One layer's statistics for people and logs: averages over the samples, and over the placeholder's rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerSummary {
    /// The layer's name in the U-Net.
    pub name: String,
    /// Of the attention to the new word.
    pub placeholder: Moments,
    /// Of the attention to its category.
    pub category: Moments,
}

/// A mean and an unbiased variance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// The mean; 1 / 77 if all tokens were attended to alike.
    pub mean: f64,
    /// The variance.
    pub variance: f64,
}

/// Reads the statistics of all layers in one transfer.
pub(crate) fn summary(layers: &[LayerStatistics]) -> Result<Vec<LayerSummary>> {
    if layers.is_empty() {
        return Ok(Vec::new());
    }
    let read = || {
        // [layers]: the averages over the samples and some columns.
        let average = |of: fn(&LayerStatistics) -> &Tensor, first: i64, count: i64| {
            let xs: Vec<&Tensor> = layers.iter().map(of).collect();
            let columns = Tensor::stack(&xs, 0).detach().narrow(2, first, count);
            columns.mean_dim([1i64, 2].as_slice(), false, Kind::Double)
        };
        let rows = layers[0].mean.size()[1] - 1;
        let words = [(0, rows), (rows, 1)];
        let numbers =
            words.map(|(first, count)| [average(|l| &l.mean, first, count), average(|l| &l.variance, first, count)]);
        Vec::<f64>::try_from(Tensor::stack(numbers.as_flattened(), 1).reshape([-1]))
    };
    let numbers = libtorch::catch(read)??;
    let layer = |(layer, n): (&LayerStatistics, &[f64])| LayerSummary {
        name: layer.name.clone(),
        placeholder: Moments { mean: n[0], variance: n[1] },
        category: Moments { mean: n[2], variance: n[3] },
    };
    Ok(layers.iter().zip(numbers.chunks_exact(4)).map(layer).collect())
}
