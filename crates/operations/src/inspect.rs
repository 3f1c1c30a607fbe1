//! `inspect`: what the embedding has learned, apart from what the U-Net has.

use std::path::{Path, PathBuf};

use alignment::{Neighbour, Neighbourhood, Shift};
use anyhow::Result;
use images::Grid;
use requests::Inspect;
use runs::{BeforeOrAfter, InspectedVector, Inspection, InspectionImage, NearToken, ResultsFolder};
use sampling::{Pipeline, Request, Settings};
use serde::Serialize;
use tch::Tensor;
use trainer::FinishedRun;

use crate::compute::{self, scheduler_name};
use crate::context::Context;
use crate::models;

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Inspected {
    /// The folder with inspect.json and the images.
    pub folder: PathBuf,
    /// What inspect.json says.
    pub record: Inspection,
}

pub(crate) fn run(request: &Inspect, context: &Context<'_>) -> Result<Inspected> {
    let to = compute::resolve(request.compute)?;
    let run = models::finished(&request.run, request.model.as_deref())?;
    let out = request.out.clone().unwrap_or_else(|| request.run.join("inspect"));
    let results = ResultsFolder::check(&out, "inspect", &["inspect.json"])?;
    let learned = run.own_embedding()?;
    let mut pipeline = run.pipeline_after(None, to)?;
    context.notes(pipeline.notes());
    let settings = compute::settings(&request.sampler, &run.config.validation.sampler(&pipeline.default_settings()));
    pipeline.check(&[Request::new("[V]", request.seed.get())], &settings)?;
    let start = run.start_embedding(&pipeline)?;
    let vectors = (0..start.size()[0])
        .map(|row| vector(request.nearest, &run, &pipeline, &start.get(row), &learned.get(row)))
        .collect::<Result<Vec<_>>>()?;

    if pipeline.second.is_some() {
        context.note(
            "neighbours are those of the first text encoder's embedding, lengths and cosines of both together"
                .to_owned(),
        );
    }
    context.seed(request.seed);
    results.create()?;
    let images = images(request, learned, &mut pipeline, &settings, &out, context)?;
    let scheduler = scheduler_name(&settings, &pipeline).to_owned();
    let record = Inspection {
        arguments: serde_json::from_value(serde_json::to_value(request)?)?,
        placeholder: run.config.placeholder,
        category: run.config.category,
        vectors,
        settings,
        scheduler,
        device: format!("{:?}", to.1),
        dtype: format!("{:?}", to.0),
        versions: models::versions(),
        images,
    };
    record.write(&out)?;
    Ok(Inspected { folder: out, record })
}

fn vector(
    nearest: usize,
    run: &FinishedRun,
    pipeline: &Pipeline,
    start: &Tensor,
    learned: &Tensor,
) -> Result<InspectedVector> {
    // Of SDXL, by the first text encoder.
    let vocabulary = pipeline.text_encoder.token_embeddings();
    let neighbourhood = Neighbourhood::of(&learned.narrow(0, 0, vocabulary.size()[1]), vocabulary)?;
    let token = |Neighbour { id, cosine, rank }: Neighbour| NearToken {
        token: pipeline.tokenizer.token(id).unwrap_or_default(),
        id,
        cosine,
        rank,
    };
    let Shift { cosine, start_norm, norm, distance } = Shift::between(start, learned)?;
    let category = pipeline.tokenizer.encode(&run.config.category)?;
    let ids = &category.ids[1..category.len - 1];
    Ok(InspectedVector {
        cosine,
        start_norm,
        norm,
        distance,
        nearest: neighbourhood.nearest(nearest).into_iter().map(token).collect(),
        category: ids.iter().map(|id| Ok(token(neighbourhood.token(*id)?))).collect::<Result<_>>()?,
    })
}

/// Generates the subject alone with the base U-Net, first with the embedding's initial value, then as it was learned.
fn images(
    request: &Inspect,
    learned: &Tensor,
    pipeline: &mut Pipeline,
    settings: &Settings,
    out: &Path,
    context: &Context<'_>,
) -> Result<Vec<InspectionImage>> {
    let mut records = Vec::new();
    if request.images == 0 {
        return Ok(records);
    }
    let mut progress = context.progress("steps");
    let mut grid = Grid::new(request.images as usize);
    for moment in [BeforeOrAfter::Before, BeforeOrAfter::After] {
        let name = moment.name();
        if moment == BeforeOrAfter::After {
            pipeline.replace_tokens(learned)?;
        }
        for i in 0..request.images {
            context.check()?;
            let image = Request::new("[V]", request.seed.get().wrapping_add(i));
            let file = format!("{name}-seed{}.png", image.seed);
            let generated = pipeline.generate(std::slice::from_ref(&image), settings, &mut |step| {
                progress.step(2 * request.images * step.total as u64, name);
            })?;
            let parameters = image.describe(settings, scheduler_name(settings, pipeline), name);
            for pixels in generated {
                images::save_generated(&out.join(&file), &pixels, &[("parameters", &parameters)])?;
                context.image(out.join(&file));
                grid.push(pixels, format!("{name} training (seed {})", image.seed));
            }
            records.push(InspectionImage { file: file.into(), moment, seed: image.seed });
        }
    }
    images::save_generated(&out.join("grid.png"), &grid.draw(), &[])?;
    Ok(records)
}
