//! `inspect`: what stage 1 has learned, apart from what the U-Net has.

use std::path::{Path, PathBuf};

use alignment::{Neighbour, Neighbourhood, Shift};
use anyhow::Result;
use clap::Args;
use images::Grid;
use runs::{BeforeOrAfter, InspectedVector, Inspection, InspectionImage, NearToken, ResultsFolder};
use sampling::{Pipeline, Request, Settings};
use serde::Serialize;
use tch::Tensor;
use trainer::FinishedRun;

use crate::device::ComputeArgs;
use crate::learned::{self, versions};
use crate::number;
use crate::progress::Progress;
use crate::sampler::{SamplerArgs, scheduler_name};
use crate::seed::Seed;

// Not a doc comment: to rustdoc, [V] would be a link.
#[derive(Args, Debug, Serialize)]
#[command(about = "Compare a run's learned embedding with its start and the vocabulary, and draw [V] alone")]
pub(crate) struct Inspect {
    /// The folder of a training run
    #[arg(long)]
    run: PathBuf,
    /// Where the run's base model is now, if it has been moved
    #[arg(long)]
    model: Option<PathBuf>,
    /// The folder to write to, new, empty or of a call before; RUN/inspect if not given
    #[arg(long)]
    out: Option<PathBuf>,
    /// How many of the nearest tokens to show
    #[arg(long, default_value_t = 10)]
    nearest: usize,
    #[arg(
        long,
        default_value_t = 4,
        value_parser = number::within(0..=u64::from(*number::IMAGES.end()), number::IMAGES_REASON),
        help = "Pictures of the prompt \"[V]\" by the base U-Net, before and after; 0 for none"
    )]
    images: u64,
    /// The seed of the first image; the next has the next seed. -1 for a random one, which is shown
    #[arg(long, default_value_t, allow_negative_numbers = true)]
    seed: Seed,
    #[command(flatten)]
    #[serde(flatten)]
    sampler: SamplerArgs,
    #[command(flatten)]
    compute: ComputeArgs,
}

impl Inspect {
    pub(crate) fn run(self) -> Result<()> {
        self.sampler.kind()?;
        let to = self.compute.resolve()?;
        let run = learned::open(&self.run, self.model.as_deref())?;
        let out = self.out.clone().unwrap_or_else(|| self.run.join("inspect"));
        let results = ResultsFolder::check(&out, "inspect", &["inspect.json"])?;
        let mut pipeline = run.pipeline_after(None, to)?;
        pipeline.notes().iter().for_each(|note| terminal::note!("{note}"));
        let guidance_scale = run.config.validation.guidance_scale;
        let settings = self.sampler.settings(&Settings { guidance_scale, ..pipeline.default_settings() })?;
        pipeline.check(&[Request::new("[V]", self.seed.get())], &settings)?;
        let start = run.start_embedding(&pipeline)?;
        let vectors = (0..start.size()[0])
            .map(|row| self.vector(&run, &pipeline, &start.get(row), &run.embedding.get(row)))
            .collect::<Result<Vec<_>>>()?;
        terminal::output!("{}", table(&run, &vectors));

        self.seed.announce();
        results.create()?;
        let images = self.pictures(&run, &mut pipeline, &settings, &out)?;
        let (scheduler, count) = (scheduler_name(&settings, &pipeline).to_owned(), images.len());
        let record = Inspection {
            arguments: serde_json::from_value(serde_json::to_value(&self)?)?,
            placeholder: run.config.placeholder.clone(),
            category: run.config.category.clone(),
            vectors,
            settings,
            scheduler,
            device: format!("{:?}", to.1),
            dtype: format!("{:?}", to.0),
            versions: versions(),
            images,
        };
        record.write(&out)?;
        terminal::say!("inspect.json and {} picture(s) in {}", count, out.display());
        Ok(())
    }

    fn vector(
        &self,
        run: &FinishedRun,
        pipeline: &Pipeline,
        start: &Tensor,
        learned: &Tensor,
    ) -> Result<InspectedVector> {
        let neighbourhood = Neighbourhood::of(learned, pipeline.text_encoder.token_embeddings())?;
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
            nearest: neighbourhood.nearest(self.nearest).into_iter().map(token).collect(),
            category: ids.iter().map(|id| Ok(token(neighbourhood.token(*id)?))).collect::<Result<_>>()?,
        })
    }

    /// Draws the subject alone by the base U-Net, first with the embedding at its start, then as it was learned.
    fn pictures(
        &self,
        run: &FinishedRun,
        pipeline: &mut Pipeline,
        settings: &Settings,
        out: &Path,
    ) -> Result<Vec<InspectionImage>> {
        let mut records = Vec::new();
        if self.images == 0 {
            return Ok(records);
        }
        let mut progress: Option<Progress> = None;
        let mut grid = Grid::new(self.images as usize);
        for moment in [BeforeOrAfter::Before, BeforeOrAfter::After] {
            let name = moment.name();
            if moment == BeforeOrAfter::After {
                pipeline.text_encoder.set_extra_tokens(&run.embedding)?;
            }
            for i in 0..self.images {
                let request = Request::new("[V]", self.seed.get().wrapping_add(i));
                let file = format!("{name}-seed{}.png", request.seed);
                let pictures = pipeline.generate(std::slice::from_ref(&request), settings, &mut |step| {
                    let total = 2 * self.images * step.total as u64;
                    progress.get_or_insert_with(|| Progress::new("steps", total)).step(name);
                })?;
                let parameters = request.describe(settings, scheduler_name(settings, pipeline), name);
                for picture in pictures {
                    images::save_generated(&out.join(&file), &picture, &[("parameters", &parameters)])?;
                    grid.push(picture, format!("{name} stage 1 (seed {})", request.seed));
                }
                records.push(InspectionImage { file: file.into(), moment, seed: request.seed });
            }
        }
        images::save_generated(&out.join("grid.png"), &grid.draw(), &[])?;
        Ok(records)
    }
}

/// What is known of each vector, for people.
fn table(run: &FinishedRun, vectors: &[InspectedVector]) -> String {
    let mut lines = Vec::new();
    for (i, vector) in vectors.iter().enumerate() {
        let InspectedVector { cosine, start_norm, norm, distance, nearest, category } = vector;
        lines.push(format!("{}, vector {} of {}", run.config.placeholder, i + 1, vectors.len()));
        lines.push(format!(
            "to its start: cosine {cosine:.4}, distance {distance:.4}, norm {start_norm:.4} -> {norm:.4}"
        ));
        lines.push(format!("{:>6}  {:>7}  nearest tokens", "rank", "cosine"));
        let line = |NearToken { token, cosine, rank, .. }: &NearToken, note: &str| {
            format!("{rank:>6}  {cosine:>7.4}  {}{note}", token.trim_end_matches("</w>"))
        };
        lines.extend(nearest.iter().map(|token| line(token, "")));
        lines.extend(category.iter().map(|token| line(token, " (of the category)")));
    }
    lines.join("\n")
}
