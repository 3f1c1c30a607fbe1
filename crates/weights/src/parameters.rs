//! A model's parameters by name.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use libtorch::{Frozen, Weight};
use tch::Tensor;

/// A model's parameters under their diffusers names, in order of the names, sharing the model's memory.
#[derive(Debug, Default)]
pub struct Parameters {
    tensors: BTreeMap<String, Tensor>,
    weights: Vec<Weight>,
    notes: Vec<String>,
}

impl Parameters {
    pub(crate) fn insert(&mut self, name: String, tensor: Tensor) {
        self.tensors.insert(name, tensor);
    }

    pub(crate) fn insert_weight(&mut self, weight: Weight) {
        self.weights.push(weight);
    }

    pub(crate) fn with_notes(self, notes: Vec<String>) -> Self {
        Self { notes, ..self }
    }

    /// What the user should know of the files that the parameters are from: a variant in place of the plain weights,
    /// tensors that were passed over.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The parameter called `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Names and tensors, in order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// How many numbers the parameters hold together.
    pub fn count(&self) -> usize {
        self.tensors.values().map(Tensor::numel).sum()
    }

    /// Keeps the layers' weights packed, in the layout that a CPU computes with, as long as what it returns lives: faster, by
    /// `most` bytes of memory or as many as all of them have; see [`Frozen`].
    pub fn frozen(&self, most: u64) -> Frozen {
        Frozen::new(&self.weights, most)
    }

    /// Lets gradients flow into the parameters whose name satisfies `trainable`, and into no others. Returns them.
    pub fn train(&self, trainable: impl Fn(&str) -> bool) -> Vec<(&str, &Tensor)> {
        for (name, tensor) in self.iter() {
            let _ = tensor.set_requires_grad(trainable(name));
        }
        self.iter().filter(|(name, _)| trainable(name)).collect()
    }

    /// Looks for NaN and infinite values.
    ///
    /// # Errors
    /// Names the parameters that have some.
    pub fn check_finite(&self) -> Result<()> {
        // A sum is finite only if all its terms are, and costs no memory; sums that overflow are looked at again.
        let is_finite = |tensor: &&Tensor| {
            tensor.sum(tch::Kind::Double).double_value(&[]).is_finite()
                || bool::try_from(tensor.isfinite().all()).unwrap_or(false)
        };
        let bad: Vec<&str> = self.iter().filter(|(_, tensor)| !is_finite(tensor)).map(|(name, _)| name).collect();
        if !bad.is_empty() {
            bail!("{} parameters hold NaN or infinite values: {}", bad.len(), bad.join(", "));
        }
        Ok(())
    }

    /// Writes all parameters to a safetensors file, as [`crate::save`] does.
    ///
    /// # Errors
    /// When the file cannot be written; then whatever was there before is unchanged.
    pub fn save(&self, path: &Path) -> Result<()> {
        crate::save(path, self.iter())
    }
}
