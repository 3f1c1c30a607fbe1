//! `bench`: a piece of work, timed; or what to time it on.

use std::path::PathBuf;

use anyhow::{Result, bail};
use benchmarks::{Measurement, Settings, measure, procedural};
use options::Dtype;
use requests::{Bench, Procedural};
use serde::Serialize;

use crate::{compute, config};

/// What was timed or made.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Benched {
    /// A piece of work.
    Measured(Measurement),
    /// Something to time work on, or a plot.
    Made(PathBuf),
}

pub(crate) fn run(request: &Bench) -> Result<Benched> {
    if let Some(threads) = request.threads {
        tch::set_num_threads(threads);
    }
    if let Some(out) = &request.out {
        match (&request.plot, request.make) {
            (Some(numbers), _) => benchmarks::draw_growth(numbers, out)?,
            (None, Some(Procedural::Sd21Base)) => procedural::sd21_base(&request.tokenizer, out)?,
            (None, Some(Procedural::SdxlBase)) => procedural::sdxl_base(&request.tokenizer, out)?,
            (None, Some(Procedural::VitB32)) => procedural::vit_b32(&request.tokenizer, out)?,
            (None, Some(Procedural::Images)) => procedural::waves(768, out)?,
            (None, None) => bail!("--out is for what is made (--make) or plotted (--plot)"),
        }
        return Ok(Benched::Made(out.clone()));
    }
    let Some(work) = &request.work else { bail!("say what to time, or what to --make and where to put it (--out)") };
    let changes = request.set.iter().map(|pair| {
        let (path, value) = config::split_change(pair)?;
        Ok((path.to_owned(), value.to_owned()))
    });
    let changes = changes.collect::<Result<_>>()?;
    let (kind, device) = compute::resolve(request.compute)?;
    let settings = Settings {
        model: request.model.clone(),
        images: request.images.clone(),
        category: request.category.clone(),
        changes,
        kind,
        tf32: request.compute.dtype == Dtype::Tf32,
        device,
        batch_size: request.batch_size.into(),
        resolution: request.resolution,
        steps: request.steps,
        gradient_checkpointing: request.gradient_checkpointing,
        warm_up: request.warm_up,
        iterations: request.iterations,
    };
    Ok(Benched::Measured(measure(work.parse()?, &settings)?))
}
