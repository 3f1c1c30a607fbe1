//! AdamW (arXiv 1711.05101) as `torch.optim.AdamW`, with everything it remembers in the open.
//!
//! [`AdamW`] steps all parameters in one fused call, and its state is saved to and loaded from a safetensors file: a
//! run that is loaded resumes, on a CPU, with the very bits it would have had. [`Ema`] keeps a running average of
//! the parameters.
//!
//! ```
//! use optimizer::{AdamW, Config};
//! use tch::{Device, Kind, Tensor};
//!
//! let weight = Tensor::zeros([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
//! let mut adamw = AdamW::new([("weight", &weight)], &Config::default())?;
//! for _ in 0..500 {
//!     let loss = (&weight - Tensor::from_slice(&[1.0f32, -2.0])).square().sum(Kind::Float);
//!     adamw.zero_grad()?;
//!     loss.backward();
//!     let _norm = adamw.clip_grad_norm(1.0)?;
//!     adamw.step(1e-2)?;
//! }
//! assert!((weight.double_value(&[1]) + 2.0).abs() < 0.1);
//!
//! # let folder = tempfile::tempdir()?;
//! # let file = folder.path().join("optimizer.safetensors");
//! adamw.save(&file)?;
//! let same = AdamW::load([("weight", &weight)], &Config::default(), &file)?;
//! assert_eq!(same.state("weight").unwrap().exp_avg, adamw.state("weight").unwrap().exp_avg);
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: parameters and moments are f32, because smaller floats lose small updates; nothing waits for the GPU.
//! Knows nothing of models, losses or schedules of the learning rate.

mod adamw;
mod ema;
mod parameters;

pub use adamw::{AdamW, State, clip_grad_norm, grad_norm};
pub use ema::Ema;
pub use options::optimizer::{Config, EmaConfig};
