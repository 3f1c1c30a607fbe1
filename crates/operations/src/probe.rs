//! `probe`: one component on tensors from a file.

mod components;
mod place;
mod tensors;

use std::path::{Path, PathBuf};

use anyhow::Result;
use requests::{Probe, ProbedComponent as Component};
use serde::Serialize;
use weights::Archive;

use crate::context::Context;
use crate::{compute, models};
use place::Place;
use tensors::Inputs;

/// What a component has returned.
#[derive(Debug, Clone, Serialize)]
pub struct Probed {
    /// The file.
    pub outputs: PathBuf,
    /// The tensors in it.
    pub tensors: Vec<ProbedTensor>,
}

/// A tensor of the outputs.
#[derive(Debug, Clone, Serialize)]
pub struct ProbedTensor {
    /// Its name.
    pub name: String,
    /// LibTorch's name of its dtype.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<i64>,
}

pub(crate) fn run(request: &Probe, context: &Context<'_>) -> Result<Probed> {
    atomic::ensure_ours(&request.outputs, "the outputs of a probe", is_own)?;
    let to = compute::resolve(request.compute)?;
    let inputs = Inputs::read(&request.inputs)?;
    let model = models::locate(&request.model, hub::ModelKind::Diffusion)?;
    let (component, config) = (request.component, request.config.as_deref());
    let place = if model.is_file() || request.single_file.is_set() {
        let model = models::open(&model, &request.single_file, context)?;
        Place::of_model(model, component, config, to, context)?
    } else {
        Place::new(component, &model, config, to, context)?
    };
    let outputs = tch::no_grad(|| match component {
        Component::Unet => components::unet(&place, &inputs),
        Component::VaeEncoder => components::vae_encoder(&place, &inputs),
        Component::VaeDecoder => components::vae_decoder(&place, &inputs),
        Component::TextEncoder => components::text_encoder(&place, &inputs),
        Component::TextEncoder2 => components::second_text_encoder(&place, &inputs),
        Component::ClipImage => components::clip_image(&place, &inputs),
        Component::ClipText => components::clip_text(&place, &inputs),
        Component::Tokenizer => components::tokenizer(&place.tokenizer()?, &inputs),
        Component::Tokenizer2 => components::tokenizer(&place.second_tokenizer()?, &inputs),
        Component::Scheduler => components::scheduler(&place, &inputs, request.scheduler, request.steps),
    })?;
    weights::save_with_metadata(&request.outputs, &outputs, &[MARK])?;
    let describe = |(name, tensor): (&String, &tch::Tensor)| ProbedTensor {
        name: name.clone(),
        dtype: format!("{:?}", tensor.kind()),
        shape: tensor.size(),
    };
    Ok(Probed { outputs: request.outputs.clone(), tensors: outputs.iter().map(describe).collect() })
}

/// What the outputs' metadata say of them.
const MARK: (&str, &str) = ("software", "attndreambooth probe");

fn is_own(outputs: &Path) -> bool {
    Archive::open(outputs).is_ok_and(|file| file.metadata().get(MARK.0).is_some_and(|software| software == MARK.1))
}
