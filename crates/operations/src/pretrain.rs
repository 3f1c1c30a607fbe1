//! `pretrain`: the miniature base model, from nothing or from another one.

use std::path::PathBuf;

use anyhow::Result;
use options::Dtype;
use pretrainer::{Config, Measures, Part, Pretraining, Sources};
use requests::Pretrain;
use runs::ResultsFolder;
use serde::Serialize;
use tch::Device;

use crate::context::{Context, Interrupted};

/// What was trained.
#[derive(Debug, Clone, Serialize)]
pub struct Pretrained {
    /// The folder of everything.
    pub folder: PathBuf,
    /// The model and what was measured of it; nothing where only a part was trained.
    pub model: Option<(PathBuf, Measures)>,
}

/// How the budget is divided.
fn share(part: Part) -> f64 {
    match part {
        Part::Vae => 0.1,
        Part::Clip => 0.1,
        Part::Unet => 0.8,
    }
}

pub(crate) fn run(request: &Pretrain, context: &Context<'_>) -> Result<Pretrained> {
    if let Some(threads) = request.threads {
        tch::set_num_threads(threads);
    }
    context.seed(request.seed);
    let device = libtorch::resolve(request.device)?;
    let results = ResultsFolder::check(&request.out, "pretrain", &pretrainer::MADE)?;
    let sources = Sources::open(&request.drawings)?;
    results.create()?;
    if let Some(model) = &request.from {
        pretrainer::start_from(model, &request.out, &sources)?;
    }
    let part = request.part.map(|part| match part {
        requests::Part::Vae => Part::Vae,
        requests::Part::Clip => Part::Clip,
        requests::Part::Unet => Part::Unet,
    });
    let parts: Vec<Part> = part.map_or(Part::ALL.to_vec(), |part| vec![part]);
    // What is wrong with the last part is found before the first one's hours.
    parts.iter().try_for_each(|part| given(request, *part).check(*part))?;
    let deferral = context.stop().defer();
    for part in parts.into_iter().filter(|_| !request.assemble) {
        let config = config(request, part, &sources, device)?;
        let mut pretraining = Pretraining::open(part, config, &sources, &request.out, device)?;
        context.notes(pretraining.note());
        let (done, steps) = pretraining.progress();
        let mut progress =
            context.progress(format!("{part} ({:.2} M parameters)", pretraining.parameter_count() as f64 / 1e6));
        progress.reach(done, steps, "");
        let finished = pretraining.run(&|| context.stop().asked(), &mut |report| {
            let values: Vec<String> = report.values.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
            progress.reach(report.step, steps, values.join(" "));
        })?;
        if !finished {
            return Err(Interrupted("checkpoint saved; the same command continues".to_owned()).into());
        }
    }
    drop(deferral);
    context.check()?;
    let model = match part.is_none() || request.assemble {
        true => Some(finish(request, &sources, device, context)?),
        false => None,
    };
    Ok(Pretrained { folder: request.out.clone(), model })
}

/// The part's configuration with what was asked for, but for its steps.
fn given(request: &Pretrain, part: Part) -> Config {
    let mut config = Config { seed: request.seed.get(), ..Config::preset(part) };
    config.learning_rate = request.learning_rate.unwrap_or(config.learning_rate);
    config.batch_size = request.batch_size.unwrap_or(config.batch_size);
    config.dtype = match request.dtype {
        Some(Dtype::Bf16) => pretrainer::Dtype::Bf16,
        Some(_) => pretrainer::Dtype::Fp32,
        None => config.dtype,
    };
    config
}

fn config(request: &Pretrain, part: Part, sources: &Sources, device: Device) -> Result<Config> {
    let mut config = given(request, part);
    // What was begun continues to the end that was planned, if no other is asked for.
    config.steps = match (request.steps, pretrainer::recorded_steps(part, &request.out)?, request.budget) {
        (Some(steps), _, _) | (None, Some(steps), _) => steps,
        (None, None, None) => config.steps,
        (None, None, Some(budget)) => {
            let seconds = pretrainer::seconds_per_step(part, &config, sources, &request.out, device)?;
            (budget.as_secs_f64() * share(part) / seconds).max(1.0) as u64
        }
    };
    Ok(config)
}

/// The model's folder, its measures and its images.
fn finish(request: &Pretrain, sources: &Sources, device: Device, context: &Context<'_>) -> Result<(PathBuf, Measures)> {
    let model = request.out.join("model");
    pretrainer::assemble(&request.out, sources, &model)?;
    let measuring = &mut |part: &str| context.message(format!("measuring: {part}"));
    let (measures, generated) = pretrainer::measure(&model, sources, device, measuring)?;
    let mut grid = images::Grid::new(6);
    for (image, prompt) in generated.into_iter().zip(&measures.prompts).take(48) {
        grid.push(image, prompt.as_str());
    }
    images::save_generated(&request.out.join("samples.png"), &grid.draw(), &[])?;
    atomic::write(&request.out.join("measures.json"), serde_json::to_string_pretty(&measures)?)?;
    Ok((model, measures))
}
