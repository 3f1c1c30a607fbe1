//! How far a learned word's embedding is from where it started and from the words of the vocabulary: what the paper
//! calls embedding alignment (arXiv 2406.05000, figure 4).
//!
//! ```
//! use alignment::{Neighbourhood, Shift};
//! use tch::Tensor;
//!
//! let table = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 2.0, 3.0, 3.0]).reshape([3, 2]);
//! let (start, learned) = (Tensor::from_slice(&[1.0f32, 0.0]), Tensor::from_slice(&[3.0f32, 4.0]));
//!
//! let shift = Shift::between(&start, &learned)?;
//! assert_eq!((shift.cosine, shift.start_norm, shift.norm), (0.6, 1.0, 5.0));
//!
//! let neighbourhood = Neighbourhood::of(&learned, &table)?;
//! let nearest = neighbourhood.nearest(2);
//! assert_eq!(nearest.iter().map(|token| token.id).collect::<Vec<_>>(), [2, 1]);
//! assert_eq!(neighbourhood.token(0)?.rank, 3);
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: computes in f32 at least. Knows nothing of models, tokenizers or training.

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tch::{Kind, Tensor};

/// What learning has done to an embedding.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shift {
    /// The cosine between the two; 1 is the same direction.
    pub cosine: f64,
    /// The Euclidean length at the start.
    pub start_norm: f64,
    /// The Euclidean length now.
    pub norm: f64,
    /// The Euclidean distance between the two.
    pub distance: f64,
}

impl Shift {
    /// From the vector `start` to the vector `learned`, both of the shape \[width\].
    ///
    /// # Errors
    /// When they are not two vectors of one width, or one has a NaN or is infinite.
    pub fn between(start: &Tensor, learned: &Tensor) -> Result<Self> {
        ensure!(
            start.dim() == 1 && start.size() == learned.size(),
            "two embeddings to compare have the shapes {:?} and {:?}, but must be vectors of one width",
            start.size(),
            learned.size()
        );
        libtorch::catch(|| {
            let [start, learned] = [start, learned].map(double);
            let norm = |vector: &Tensor| vector.norm().double_value(&[]);
            let (start_norm, norm, distance) = (norm(&start), norm(&learned), norm(&(&learned - &start)));
            ensure!((start_norm + norm).is_finite(), "an embedding has values that are NaN or infinite");
            let cosine = start.dot(&learned).double_value(&[]) / (start_norm * norm).max(f64::MIN_POSITIVE);
            Ok(Self { cosine, start_norm, norm, distance })
        })?
    }
}

/// A token of the vocabulary, seen from an embedding.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Neighbour {
    /// Its id: its row in the table.
    pub id: i64,
    /// The cosine between its embedding and the vector.
    pub cosine: f64,
    /// Its place by cosine, from 1.
    pub rank: usize,
}

/// All tokens of a vocabulary as seen from one embedding.
#[derive(Debug)]
pub struct Neighbourhood {
    /// By id.
    cosines: Vec<f64>,
    /// Ids, the nearest first; of equals, the lower id.
    order: Vec<usize>,
}

impl Neighbourhood {
    /// Of the vector \[width\] among the rows of `table` [tokens, width].
    ///
    /// # Errors
    /// When the widths differ, or what LibTorch refuses.
    pub fn of(vector: &Tensor, table: &Tensor) -> Result<Self> {
        ensure!(
            vector.dim() == 1 && table.dim() == 2 && vector.size()[0] == table.size()[1],
            "an embedding of shape {:?} has no place in a vocabulary of shape {:?}; both must have one width",
            vector.size(),
            table.size()
        );
        let cosines = libtorch::catch(|| {
            let kind = if table.kind() == Kind::Double { Kind::Double } else { Kind::Float };
            let (vector, table) =
                (vector.detach().to_device(table.device()).to_kind(kind), table.detach().to_kind(kind));
            let norms = table.square().sum_dim_intlist([1i64].as_slice(), false, kind).sqrt() * vector.norm();
            Vec::<f64>::try_from(double(&(table.mv(&vector) / norms.clamp_min(f64::from(f32::MIN_POSITIVE)))))
        })??;
        let mut order: Vec<usize> = (0..cosines.len()).collect();
        order.sort_by(|a, b| cosines[*b].total_cmp(&cosines[*a]));
        Ok(Self { cosines, order })
    }

    /// The `count` nearest tokens, the nearest first.
    pub fn nearest(&self, count: usize) -> Vec<Neighbour> {
        let ranked = self.order.iter().take(count).zip(1..);
        ranked.map(|(&id, rank)| Neighbour { id: id as i64, cosine: self.cosines[id], rank }).collect()
    }

    /// One token.
    ///
    /// # Errors
    /// When the vocabulary has no such id.
    pub fn token(&self, id: i64) -> Result<Neighbour> {
        let place = self.order.iter().position(|other| *other as i64 == id);
        let place = place.with_context(|| format!("token {id} is not among the {} of the table", self.order.len()))?;
        Ok(Neighbour { id, cosine: self.cosines[self.order[place]], rank: place + 1 })
    }
}

fn double(tensor: &Tensor) -> Tensor {
    tensor.detach().to_device(tch::Device::Cpu).to_kind(Kind::Double)
}
