//! What may be trained.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use tch::{Device, Kind, Tensor};

/// Handles to the given parameters, and the one device they are all on.
pub(crate) fn collect<'a>(
    parameters: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<(Vec<(String, Tensor)>, Device)> {
    let parameters: Vec<(String, Tensor)> =
        parameters.into_iter().map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).collect();
    let Some((first, tensor)) = parameters.first() else { bail!("there is no parameter to train") };
    let device = tensor.device();
    let mut names = BTreeSet::new();
    for (name, tensor) in &parameters {
        ensure!(names.insert(name), "the parameter {name} is given twice");
        let kind = tensor.kind();
        ensure!(
            kind == Kind::Float,
            "the parameter {name} is {kind:?}, but only Float (f32) parameters are trained, since others lose small \
             updates; load the model in f32 and let the inputs' kind decide what it computes in"
        );
        ensure!(
            tensor.device() == device,
            "the parameter {name} is on {:?}, but {first} is on {device:?}; move them to one device",
            tensor.device()
        );
    }
    Ok((parameters, device))
}

/// `tensor` with the memory layout of `parameter`, which element-wise kernels rely on.
pub(crate) fn laid_out_like(parameter: &Tensor, tensor: Tensor) -> Tensor {
    if tensor.stride() == parameter.stride() {
        return tensor;
    }
    let mut copy = parameter.detach().empty_like();
    copy.copy_(&tensor);
    copy
}
