//! The gradients of all processes.

use std::rc::Rc;

use anyhow::{Result, ensure};
use libtorch::Reducer;
use tch::{Device, Kind, Tensor};

use crate::Group;
use crate::group::Several;

/// As PyTorch's DistributedDataParallel has it.
const BUCKET_BYTES: usize = 25 << 20;

/// Adds up the gradients of parameters over the processes of a group, in buckets, beside the backward pass: all but in the first step,
/// which shows which parameters have gradients, and in which order these are complete. On GPUs by NCCL. Does nothing for a process alone.
#[derive(Debug)]
pub struct Gradients {
    several: Option<(Rc<Several>, Reducer)>,
    group: Group,
    parameters: usize,
    arranged: bool,
}

impl Gradients {
    /// For f32 parameters, the same in all processes. As long as this lives, nobody else may watch their gradients.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn new(group: &Group, parameters: &[&Tensor]) -> Result<Self> {
        Self::with_buckets(group, parameters, BUCKET_BYTES)
    }

    /// The same with buckets of about so many bytes.
    ///
    /// # Errors
    /// As [`Gradients::new`].
    pub fn with_buckets(group: &Group, parameters: &[&Tensor], bytes: usize) -> Result<Self> {
        let reducer = |several: &Rc<Several>| {
            let device = parameters.first().map_or(Device::Cpu, |parameter| parameter.device());
            let reducer = several.on(device, |processes| Ok(Reducer::new(processes, parameters, bytes)?))?;
            anyhow::Ok((Rc::clone(several), reducer))
        };
        let several = group.several().map(reducer).transpose()?;
        Ok(Self { several, group: group.clone(), parameters: parameters.len(), arranged: false })
    }

    /// The next backward pass is the last one of a step.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn last_pass(&mut self) -> Result<()> {
        self.several.as_ref().map_or(Ok(()), |(_, reducer)| Ok(reducer.begin()?))
    }

    /// Replaces the gradients by the sums of those of all processes, and `values`, a vector in f32, too.
    ///
    /// # Errors
    /// [`Lost`](crate::Lost), or what LibTorch refuses.
    pub fn finish(&mut self, values: &Tensor) -> Result<()> {
        let Some((several, reducer)) = &self.several else { return Ok(()) };
        if !self.arranged {
            reducer.arrange(&self.agree(&reducer.order()?)?)?;
            self.arranged = true;
        }
        several.with(|_| Ok(reducer.launch_rest()?))?;
        several.until(|at_most| reducer.wait(at_most))?;
        self.group.sum(values)
    }

    /// Whether this is a process alone.
    pub fn are_local(&self) -> bool {
        self.several.is_none()
    }

    /// How many buckets were begun with during the last backward pass, and how many there are.
    pub fn beside(&self) -> (usize, usize) {
        self.several.as_ref().map_or((0, 0), |(_, reducer)| reducer.beside())
    }

    /// Rank 0's order of the parameters that have gradients, and behind them those that have some elsewhere.
    fn agree(&self, order: &[i64]) -> Result<Vec<i64>> {
        let mut has = Tensor::zeros([self.parameters as i64], (Kind::Int64, Device::Cpu));
        let _ = has.index_fill_(0, &Tensor::from_slice(order), 1);
        self.group.sum(&has)?;
        let first = Tensor::full([self.parameters as i64], -1, (Kind::Int64, Device::Cpu));
        first.narrow(0, 0, order.len() as i64).copy_(&Tensor::from_slice(order));
        self.group.take_from_first(&first)?;
        let mut agreed: Vec<i64> = Vec::<i64>::try_from(&first)?.into_iter().filter(|index| *index >= 0).collect();
        let elsewhere = (0..self.parameters as i64).filter(|index| has.int64_value(&[*index]) > 0);
        agreed.extend(elsewhere.filter(|index| !agreed.contains(index)).collect::<Vec<_>>());
        ensure!(!agreed.is_empty(), "no parameter has a gradient");
        Ok(agreed)
    }
}
