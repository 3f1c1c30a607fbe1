//! Adam with decoupled weight decay.

use std::path::Path;

use anyhow::{Context, Result};
use libtorch::{AdamWRule, AdamWSlot};
use options::optimizer::Config;
use tch::{Kind, Tensor};
use weights::{Archive, Init};

use crate::parameters::{collect, laid_out_like};

/// The optimizer, with handles to the parameters that it trains.
#[derive(Debug)]
pub struct AdamW {
    config: Config,
    slots: Vec<Slot>,
}

/// What [`AdamW`] remembers of one parameter.
#[derive(Debug, Clone, Copy)]
pub struct State<'a> {
    /// The running mean of the gradients, f32, of the parameter's shape.
    pub exp_avg: &'a Tensor,
    /// The running mean of their squares, likewise.
    pub exp_avg_sq: &'a Tensor,
    /// How many steps the parameter took part in; f32 of shape [], on the parameter's device.
    pub step: &'a Tensor,
}

#[derive(Debug)]
struct Slot {
    name: String,
    parameter: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: Tensor,
}

impl AdamW {
    /// Starts with nothing remembered.
    ///
    /// # Errors
    /// When a value of `config` is out of range, a parameter is not f32, given twice or on another device than the
    /// first, or memory runs out.
    pub fn new<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a Tensor)>, config: &Config) -> Result<Self> {
        config.validate()?;
        let (parameters, device) = collect(parameters)?;
        let zeros = |_: &str, shape: &[i64]| Tensor::zeros(shape, (Kind::Float, device));
        let slots = libtorch::catch(|| slots(parameters, zeros)).context("cannot allocate AdamW's moments")?;
        Ok(Self { config: config.clone(), slots })
    }

    /// Resumes from what [`AdamW::save`] wrote for the same parameters.
    ///
    /// # Errors
    /// As [`AdamW::new`]; and when the file cannot be read, or its state is not that of these parameters: then all
    /// names that are missing, left over or of another shape are listed (a [`weights::LoadError`]).
    pub fn load<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
        config: &Config,
        path: &Path,
    ) -> Result<Self> {
        config.validate()?;
        let (parameters, device) = collect(parameters)?;
        let archive = Archive::open(path)?;
        let (slots, _) = weights::build(&archive, (Kind::Float, device), |vs| {
            Ok(slots(parameters, |name, shape| vs.get(name, shape, Init::Const(0.0))))
        })
        .context("the saved state of the optimizer is not that of the parameters to train")?;
        Ok(Self { config: config.clone(), slots })
    }

    /// The state, as `NAME.exp_avg`, `NAME.exp_avg_sq` and `NAME.step` for each parameter: what [`AdamW::load`] reads.
    pub fn tensors(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.slots.iter().flat_map(|Slot { name, exp_avg, exp_avg_sq, step, .. }| {
            [("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq), ("step", step)]
                .map(|(part, tensor)| (format!("{name}.{part}"), tensor))
        })
    }

    /// Writes the state to a safetensors file.
    ///
    /// # Errors
    /// When the file cannot be written; then whatever was there before is unchanged.
    pub fn save(&self, path: &Path) -> Result<()> {
        weights::save(path, self.tensors())
    }

    /// What is remembered of the parameter `name`.
    pub fn state(&self, name: &str) -> Option<State<'_>> {
        let slot = self.slots.iter().find(|slot| slot.name == name)?;
        Some(State { exp_avg: &slot.exp_avg, exp_avg_sq: &slot.exp_avg_sq, step: &slot.step })
    }

    /// One step for every parameter that has a gradient; the others, and their state, are left alone.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn step(&mut self, learning_rate: f64) -> Result<()> {
        self.step_unless(learning_rate, None)
    }

    /// As [`AdamW::step`], but leaves everything as it is where `skipped`, one f32 on the parameters' device, is 1. That
    /// is decided on the device: nobody waits for it.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn step_unless(&mut self, learning_rate: f64, skipped: Option<&Tensor>) -> Result<()> {
        let gradients: Vec<Tensor> = self.slots.iter().map(|slot| slot.parameter.grad()).collect();
        let slots: Vec<AdamWSlot<'_>> = self
            .slots
            .iter()
            .zip(&gradients)
            .filter(|(_, gradient)| gradient.defined())
            .map(|(Slot { parameter, exp_avg, exp_avg_sq, step, .. }, gradient)| AdamWSlot {
                parameter,
                gradient,
                exp_avg,
                exp_avg_sq,
                step,
            })
            .collect();
        let Config { beta1, beta2, eps, weight_decay } = self.config;
        Ok(libtorch::fused_adamw(&slots, &AdamWRule { learning_rate, beta1, beta2, weight_decay, eps }, skipped)?)
    }

    /// The 2-norm of all gradients together, of shape [] on the device: not finite where one of them is not, or where
    /// its square is beyond f32.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn grad_norm(&self) -> Result<Tensor> {
        grad_norm(&[self])
    }

    /// Shrinks the gradients so that the 2-norm of all of them together is at most `max_norm`; returns the norm
    /// before, of shape [] on the device. As `torch.nn.utils.clip_grad_norm_`, a norm that is NaN makes them all NaN.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn clip_grad_norm(&mut self, max_norm: f64) -> Result<Tensor> {
        clip_grad_norm(&[self], max_norm)
    }

    /// The gradients that there are.
    fn gradients(&self) -> Vec<Tensor> {
        self.slots.iter().map(|slot| slot.parameter.grad()).filter(Tensor::defined).collect()
    }

    /// Takes the gradients away, as `zero_grad(set_to_none=True)`, PyTorch's default.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn zero_grad(&mut self) -> Result<()> {
        let parameters: Vec<&Tensor> = self.slots.iter().map(|slot| &slot.parameter).collect();
        Ok(libtorch::clear_grads(&parameters)?)
    }
}

/// As [`AdamW::grad_norm`], of several optimisers together.
///
/// # Errors
/// When LibTorch refuses, or there is no optimiser.
pub fn grad_norm(optimizers: &[&AdamW]) -> Result<Tensor> {
    norm_of(optimizers, &gradients(optimizers))
}

/// As [`AdamW::clip_grad_norm`], of several optimisers together.
///
/// # Errors
/// As [`grad_norm`].
pub fn clip_grad_norm(optimizers: &[&AdamW], max_norm: f64) -> Result<Tensor> {
    let gradients = gradients(optimizers);
    let norm = norm_of(optimizers, &gradients)?;
    if !gradients.is_empty() {
        let factor = libtorch::catch(|| (max_norm * (&norm + 1e-6).reciprocal()).clamp_max(1.0))?;
        libtorch::scale_all(&gradients.iter().collect::<Vec<_>>(), &factor)?;
    }
    Ok(norm)
}

fn gradients(optimizers: &[&AdamW]) -> Vec<Tensor> {
    optimizers.iter().flat_map(|optimizer| optimizer.gradients()).collect()
}

fn norm_of(optimizers: &[&AdamW], gradients: &[Tensor]) -> Result<Tensor> {
    let first = optimizers.first().context("there is no optimizer whose gradients have a norm")?;
    if gradients.is_empty() {
        return Ok(libtorch::catch(|| first.slots[0].step.zeros_like())?);
    }
    Ok(libtorch::grad_norm(&gradients.iter().collect::<Vec<_>>())?)
}

/// The state of all parameters, where `get` makes or finds a tensor by name and shape.
fn slots(parameters: Vec<(String, Tensor)>, get: impl Fn(&str, &[i64]) -> Tensor) -> Vec<Slot> {
    let slot = |(name, parameter): (String, Tensor)| {
        let shape = parameter.size();
        let moment = |part: &str| laid_out_like(&parameter, get(&format!("{name}.{part}"), &shape));
        let (exp_avg, exp_avg_sq) = (moment("exp_avg"), moment("exp_avg_sq"));
        let step = get(&format!("{name}.step"), &[]);
        Slot { name, parameter, exp_avg, exp_avg_sq, step }
    };
    parameters.into_iter().map(slot).collect()
}
