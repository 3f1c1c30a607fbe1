//! `table`: methods compared over subjects, seeds and prompts.

mod cell;

use std::path::{Path, PathBuf};
use std::time::Instant;

use ::report::StudyOptions;
use anyhow::{Context as _, Result, ensure};
use photos::PhotoFolder;
use requests::{Keep, Share, Table as Request, TableAction, TableFolder, TableFormat, Train};
use sampling::{Pipeline, Settings};
use serde::Serialize;
use tables::{Cell, CellRecord, Format, System, Table, TablePlan, cells};

use crate::context::Context;
use crate::destination::Destination;
use crate::pieces::{self, Piece};
use crate::{compare, compute, inputs, train};
use cell::Bench;

/// What has become of a table.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tabled {
    /// What there is to be done.
    Planned(TablePlanned),
    /// Cells that were computed.
    Computed {
        /// The folder of all cells, or its URL.
        folder: PathBuf,
        /// Those that are done now, of those that were asked for.
        done: usize,
    },
    /// What is done so far.
    Collected {
        /// The folder with table.json and table.html, or its URL.
        folder: PathBuf,
        /// The table in the form that was asked for.
        #[serde(skip)]
        text: String,
    },
    /// A study is made.
    Asked {
        /// Its page.
        page: PathBuf,
    },
}

/// What a table takes.
#[derive(Debug, Clone, Serialize)]
pub struct TablePlanned {
    /// The folder of all cells, or its URL.
    pub folder: PathBuf,
    /// The cells, each with whether it is done.
    pub cells: Vec<(String, bool)>,
    /// For each method, the seconds of training and those of generating a run's images.
    pub seconds: Vec<(String, f64, f64)>,
    /// The seconds of all cells that are not done.
    pub left: f64,
    /// The most bytes of disk that a cell takes while it is computed.
    pub largest_cell: u64,
}

pub(crate) fn run(request: &Request, context: &Context<'_>) -> Result<Tabled> {
    match &request.action {
        TableAction::Plan { table, device } => {
            let (plan, out) = open(table, false)?;
            let bench = Bench::open(&plan, &out.markers(CellRecord::FILE)?, *device, context)?;
            Ok(Tabled::Planned(planned(&bench, out.out(), context)?))
        }
        TableAction::Run { table, share, keep, device } => {
            let (plan, out) = open(table, share.upload_checkpoints)?;
            let bench = Bench::open(&plan, out.folder(), *device, context)?;
            computed(&bench, &out, *share, *keep, context)
        }
        TableAction::Collect { table, format, answers } => collected(table, *format, answers, context),
        TableAction::Study { table, questions, seed } => {
            let options = StudyOptions { questions: *questions as usize, seed: context.seed(*seed), reference: None };
            asked(table, &options)
        }
    }
}

/// The plan, and where its cells are.
fn open(table: &TableFolder, upload_checkpoints: bool) -> Result<(TablePlan, Destination)> {
    let plan = TablePlan::read(&table.plan)?;
    let out = table.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(&plan.name));
    Ok((plan, Destination::new(&out, upload_checkpoints)?))
}

fn planned(bench: &Bench<'_>, out: &Path, context: &Context<'_>) -> Result<TablePlanned> {
    let (plan, device) = (bench.plan, bench.device);
    let all = cells(plan);
    let done = all.iter().map(|cell| Ok((cell.name(), bench.done(cell)?.is_some()))).collect::<Result<Vec<_>>>()?;
    let drawing = seconds_per_image(bench)?;
    let mut seconds = Vec::new();
    let mut largest_cell = 0;
    for (number, method) in plan.methods.iter().enumerate() {
        context.check()?;
        context.message(format!("two steps of each phase of {}", method.name));
        let cell = all.iter().find(|cell| cell.system == System::Method(number)).context("a method has no cell")?;
        // Nothing is written there.
        let out = Some(bench.folder(cell).join("planned"));
        let request = Train { options: bench.options(cell)?, device, out, ..Train::default() };
        let taken = train::plan(&request, context).with_context(|| format!("the method {}", method.name))?;
        largest_cell = largest_cell.max(taken.disk);
        seconds.push((method.name.clone(), taken.seconds, drawing));
    }
    let of = |cell: &Cell<'_>| match cell.system {
        System::Real => 0.0,
        System::Base => drawing,
        System::Method(method) => seconds[method].1 + seconds[method].2,
    };
    let left = all.iter().zip(&done).filter(|(_, (_, done))| !done).map(|(cell, _)| of(cell)).sum();
    Ok(TablePlanned { folder: out.to_owned(), cells: done, seconds, left, largest_cell })
}

/// What generating the images of a run takes with the base model, by two of its denoising steps.
fn seconds_per_image(bench: &Bench<'_>) -> Result<f64> {
    const STEPS: usize = 2;
    let pipeline = Pipeline::open(&bench.model, bench.to)?;
    let default = pipeline.default_settings();
    let whole = compute::settings(&bench.plan.sampler(), &default);
    let short = Settings { steps: STEPS, ..whole.clone() };
    let image = [sampling::Request::new("a photo", 0)];
    // The first pass also makes memory ready.
    pipeline.generate(&image, &short, &mut |_| {})?;
    let start = Instant::now();
    pipeline.generate(&image, &short, &mut |_| {})?;
    let images = bench.plan.plan(0)?.images("").len();
    Ok(start.elapsed().as_secs_f64() / STEPS as f64 * whole.steps as f64 * images as f64)
}

fn computed(bench: &Bench<'_>, out: &Destination, share: Share, keep: Keep, context: &Context<'_>) -> Result<Tabled> {
    let all: Vec<CellWork<'_>> = cells(bench.plan).into_iter().map(|cell| CellWork { bench, cell, keep }).collect();
    let part = pieces::part("cell", all.len(), share)?;
    out.create("table", &["table.json"])?;
    let done = pieces::work("cell", &all, &part, out, context)?;
    Ok(Tabled::Computed { folder: out.out().to_owned(), done })
}

/// A cell to compute.
struct CellWork<'a> {
    bench: &'a Bench<'a>,
    cell: Cell<'a>,
    keep: Keep,
}

impl Piece for CellWork<'_> {
    fn name(&self) -> String {
        self.cell.name()
    }

    fn place(&self) -> PathBuf {
        self.cell.folder(Path::new(""))
    }

    fn marker(&self) -> &'static str {
        CellRecord::FILE
    }

    fn run(&self) -> PathBuf {
        cell::RUN.into()
    }

    fn check(&self, folder: &Path, shown: &Path) -> Result<()> {
        self.bench.read(&self.cell, folder, shown).map(|_| ())
    }

    fn is_done(&self) -> Result<bool> {
        Ok(self.bench.done(&self.cell)?.is_some())
    }

    fn work(&self, context: &Context<'_>) -> Result<()> {
        let folder = self.bench.folder(&self.cell);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        self.bench.compute(&self.cell, context)?;
        Ok(())
    }

    fn tidy(&self) -> Result<()> {
        self.bench.tidy(&self.cell, self.keep)
    }
}

/// A page that asks people which images are better.
fn asked(table: &TableFolder, options: &StudyOptions) -> Result<Tabled> {
    let (plan, out) = open(table, false)?;
    ensure!(
        !out.is_remote(),
        "a study shows images, which are at {} and not here: copy them into a folder, and give that as --out",
        out.out().display()
    );
    let folder = out.folder().to_owned();
    let made = Table::read(&folder)?.with_context(|| {
        format!("{} has no table.json: `table collect` makes it of the cells that are done", folder.display())
    })?;
    let first = |subject: &tables::Subject| -> Result<PathBuf> {
        let photos = PhotoFolder::open(&inputs::photos(&subject.photos, None)?)
            .with_context(|| format!("the subject {}", subject.name))?
            .photos;
        Ok(photos.into_iter().next().context("a folder of photos has none")?.path)
    };
    let photos = plan.subjects.iter().map(first).collect::<Result<Vec<_>>>()?;
    let page = folder.join("study.html");
    atomic::write(&page, ::report::table_study(&made, &plan, &folder, &photos, options)?)?;
    Ok(Tabled::Asked { page })
}

fn collected(table: &TableFolder, format: TableFormat, answers: &[PathBuf], context: &Context<'_>) -> Result<Tabled> {
    let (plan, out) = open(table, false)?;
    let folder = out.markers(CellRecord::FILE)?;
    ensure!(folder.is_dir(), "{} is not there: `table run` computes the cells first", folder.display());
    let of = cell::of_table(&plan)?;
    let record = |cell: &Cell<'_>| {
        let cell_folder = cell.folder(&folder);
        let record = CellRecord::read(&cell_folder, cell)?;
        if let Some(record) = &record {
            let differences = runs::differences(&record.made_by["table"], &of);
            ensure!(
                differences.is_empty(),
                "the cell in {} is of another plan: {}",
                cell_folder.display(),
                differences.join("; ")
            );
        }
        Ok(record)
    };
    let made = Table::of(&plan, record)?;
    let tally = if answers.is_empty() { None } else { Some(compare::tally(answers, context)?) };
    out.create("table", &["table.json"])?;
    made.write(&folder)?;
    atomic::write(&folder.join("table.html"), ::report::table_page(&made, &plan, &folder, tally.as_ref())?)?;
    out.upload(&folder, &["table.json", "table.html"])?;
    let text = match format {
        TableFormat::Text => made.show(Format::Text),
        TableFormat::Md => made.show(Format::Markdown),
        TableFormat::Latex => made.show(Format::Latex),
        TableFormat::Csv => made.show(Format::Csv),
        TableFormat::Json => serde_json::to_string_pretty(&made)? + "\n",
    };
    Ok(Tabled::Collected { folder: out.out().to_owned(), text })
}
