//! Layers that the models share.
//!
//! Each is made by `new(vs, ...)` from a [`weights::Scope`] and run by `forward`; parameter names are those of
//! PyTorch, diffusers and transformers, so files of theirs fit without renaming.
//!
//! ```
//! use layers::{Activation, Linear};
//! use tch::{Device, Kind, Tensor};
//! use weights::Random;
//!
//! let to = (Kind::Float, Device::Cpu);
//! let (layer, parameters) = weights::build(&Random { seed: 0 }, to, |vs| Ok(Linear::new(&(vs / "fc"), 4, 2)))?;
//! let hidden = Activation::Silu.apply(&layer.forward(&Tensor::ones([3, 4], to)));
//! assert_eq!(hidden.size(), [3, 2]);
//! assert_eq!(parameters.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["fc.bias", "fc.weight"]);
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: knows no model and no file. The dtype of the *input* decides what is computed in: parameters are
//! converted on use, so f32 masters serve a bf16 forward pass and receive f32 gradients. Layers trust the shapes that
//! the models have checked.

mod activation;
mod adapter;
mod attention;
mod conv;
mod linear;
mod norm;
mod resample;
mod resnet;

pub use activation::Activation;
pub use adapter::{AdapterSlot, LinearAdapter};
pub use attention::{attention, attention_probabilities, attention_to, merge_heads, split_heads};
pub use conv::Conv2d;
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm};
pub use resample::{Downsample2d, Upsample2d};
pub use resnet::{ResnetBlock2d, ResnetConfig};
