//! What Custom Diffusion (arXiv 2212.04488) computes beside a training loop: the loss under a mask, and the merging of
//! several runs into one model.
//!
//! ```
//! use custom_diffusion::{Merger, masked_loss};
//! use options::MaskedLoss;
//! use tch::{Kind, Tensor};
//!
//! let error = Tensor::from_slice(&[1.0f32, 5.0, 3.0, 7.0]).view([1, 2, 1, 2]);
//! let mask = Tensor::from_slice(&[1.0f32, 0.0]).view([1, 1, 1, 2]);
//! assert_eq!(masked_loss(&error, &mask, MaskedLoss::Mean)?.double_value(&[0]), 2.0);
//!
//! // Each run's weight is kept for the text features that name its subject, the base model's otherwise.
//! let eye = |values: &[f64]| Tensor::from_slice(values).diag(0);
//! let features = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]].map(|row| Tensor::from_slice(&row).view([1, 3]));
//! let merger = Merger::new(&features.each_ref(), &eye(&[1.0, 1.0, 1.0]))?;
//! let merged = merger.merge(&eye(&[1.0, 1.0, 1.0]), &[&eye(&[2.0, 8.0, 8.0]), &eye(&[9.0, 3.0, 9.0])])?;
//! assert!((merged - eye(&[2.0, 3.0, 1.0])).abs().max().double_value(&[]) < 1e-12);
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: knows no model, tokenizer or file; a loss or a weight that would be no number is an error.

mod masked_loss;
mod merging;

pub use masked_loss::masked_loss;
pub use merging::{Merger, text_features};
