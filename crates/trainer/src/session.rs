//! A whole run in its folder: photos in, a learned subject out.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use distributed::Group as Processes;
use options::Dtype;
use photos::{Photo, PhotoFolder};
use runs::{ConfigLayers, Group, Masks, ModelFingerprint, RunFolder, RunRecord, SavedRun, TrainConfig, layout};
use sampling::Pipeline;
use tch::{Device, Kind};

use crate::buckets::Buckets;
use crate::checkpoint::CheckpointWriter;
use crate::event::{Event, Outcome};
use crate::finished_run::{FinishedRun, base_model};
use crate::outputs::{self, Outputs};
use crate::prior::PriorImages;
use crate::prompts::Prompts;
use crate::step_logger::StepLogger;
use crate::stopping::{self, Stopping};
use crate::text_alignment::TextAlignment;
use crate::{BatchIndex, Checkpoint, LaunchedStep, PhaseRun, PhotoBatches, Share, Trainer};
use crate::{extension, init_from, memory, reference, space, start, subject_attention};

/// How a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening<'a> {
    /// In a new folder.
    New,
    /// From the last checkpoint in its folder.
    Resumed,
    /// In a new folder, from the end of the finished run in this one, which has fewer steps of the last phase.
    Extending(&'a Path),
}

/// A run that holds its folder.
#[derive(Debug)]
pub struct Session {
    /// Before the folder, which is free for others when nothing writes there any more.
    checkpoints: CheckpointWriter,
    folder: RunFolder,
    /// The bytes of its `config.json`.
    config: Vec<u8>,
    trainer: Trainer,
    /// Of each subject.
    photos: Vec<Vec<Photo>>,
    /// Likewise; none without prior preservation.
    prior: Vec<PriorImages>,
    /// For a run that text alignment may end.
    alignment: Option<TextAlignment>,
    outputs: Outputs,
    checkpoint: Option<Checkpoint>,
    /// The learned weights are saved already.
    learned: bool,
    notes: Vec<String>,
}

/// A run that has been checked, of which nothing is written yet.
pub(crate) struct Checked {
    /// What is resumed.
    saved: Option<SavedRun>,
    /// The hold on its folder, of the process that writes there.
    held: Option<RunFolder>,
    pub(crate) trainer: Trainer,
    pub(crate) photos: Vec<Vec<Photo>>,
    pub(crate) prior: Vec<PriorImages>,
    pub(crate) alignment: Option<TextAlignment>,
    record: RunRecord,
    outputs: Outputs,
    pub(crate) learned: bool,
    pub(crate) notes: Vec<String>,
}

impl Checked {
    /// As [`Session::open`]. Several processes have made sure that they are about to learn the same, before any of them has
    /// written anything.
    pub(crate) fn new(
        layers: ConfigLayers,
        out: &Path,
        device: Device,
        opening: Opening<'_>,
        processes: &Processes,
    ) -> Result<Self> {
        let resume = opening == Opening::Resumed;
        let resumed = resume.then(|| SavedRun::read(out)).transpose()?;
        let held = (resume && processes.leads()).then(|| RunFolder::resume(out)).transpose()?;
        if !resume && processes.leads() {
            runs::vacant(out, &[])?;
        }
        let saved = resumed.as_ref();
        let own_resolution = !layers.has("augmentation.resolution");
        let mut config = layers.finish()?;
        config.validate()?;
        ensure!(!config.model.as_os_str().is_empty(), "no model is given: name its folder or file with --model");
        ensure!(
            !config.concept.as_os_str().is_empty(),
            "no photos are given: name their folder, or a single one, with --concept"
        );
        runs::settle_paths(&mut config, out)?;
        let moved = |error: anyhow::Error, what: &str, flag: &str| match resume {
            true => error.context(format!("the run's {what} ({flag} names their present place)")),
            false => error,
        };
        let model = base_model(&config).map_err(|error| moved(error, "base model's files", "--model"))?;
        if model.is_sdxl() {
            // Before gigabytes are read.
            methods::named(&config.method)?.check_sdxl(&config)?;
        }
        let base = ModelFingerprint::of(model.path(), model.files()?)?;
        saved.map_or(Ok(()), |saved| saved.check_base(&base, model.path()))?;
        let begun = match opening {
            Opening::Extending(run) => Some(FinishedRun::open(run)?),
            Opening::New | Opening::Resumed => None,
        };
        begun.as_ref().map_or(Ok(()), |begun| begun.check_base(&base, model.path()))?;
        let (mut photos, mut about_photos) = (Vec::new(), Vec::new());
        let further = config.more_concepts.iter().map(|further| &further.concept);
        for (subject, folder) in std::iter::once(&config.concept).chain(further).enumerate() {
            let found = PhotoFolder::open_with(folder, &config.photo_options())
                .map_err(|error| moved(error.into(), "photos", "--concept"))?;
            photos.push(match saved {
                Some(saved) => saved.arrange(subject, found.photos, folder)?,
                None => found.photos,
            });
            about_photos.extend(found.notes);
        }
        libtorch::set_tf32(config.dtype == Dtype::Tf32)?;
        libtorch::set_deterministic(config.deterministic)?;
        let prior = PriorImages::of_all(&config, out, &base)?;
        let mut pipeline = Pipeline::open_with(&model, (Kind::Float, device), unet_dtype(&config))?;
        pipeline.set_packed_bytes(libtorch::half_of_memory_beyond(pipeline.reserved_bytes()));
        pipeline.set_compute_dtype(libtorch::kind(config.dtype));
        if own_resolution {
            config.augmentation.resolution = u32::try_from(pipeline.default_settings().height)?;
        }
        let alignment =
            TextAlignment::of_config(&config, device).map_err(|error| moved(error, "CLIP", "--stop-clip"))?;
        let mut trainer = Trainer::new(config, pipeline)?;
        trainer.processes = processes.clone();
        reference::give(&mut trainer.pipeline, &photos[0])?;
        outputs::check(&trainer)?;

        let mut notes: Vec<String> = model.notes().to_vec();
        // Of a run that is extended, its own copy of the start is the same.
        notes.extend(init_from::apply(&trainer, begun.as_ref().map_or(out, FinishedRun::folder))?);
        let extends = match &begun {
            Some(begun) => Some(extension::of(begun, &trainer)?),
            None => saved.and_then(|saved| saved.record.extends.clone()),
        };
        notes.extend(about_photos.into_iter().chain(prior.iter().flat_map(|prior| prior.notes.clone())));
        notes.extend(trainer_notes(&trainer)?);
        notes.extend(photo_notes(&trainer, &photos)?);

        // The generated ones follow from the rest.
        let record = RunRecord {
            config: trainer.config.clone(),
            base_model: base,
            photos: runs::by_contents(&photos[0]),
            more_photos: photos[1..].iter().map(runs::by_contents).collect(),
            prior_photos: trainer
                .config
                .prior
                .as_ref()
                .map(|_| runs::by_contents(prior.iter().flat_map(PriorImages::own))),
            stop_clip: alignment.as_ref().map(|alignment| alignment.fingerprint.clone()),
            extends,
        };
        if let Some(saved) = saved {
            saved.check_same(&record)?;
        }
        check_same_everywhere(&record, processes)?;
        let outputs = Outputs::new(out);
        let learned = resume && outputs.learned(&trainer.config);
        if !learned && processes.leads() {
            notes.extend(space::check(&trainer, &prior, out)?);
        }
        Ok(Self { saved: resumed, held, trainer, photos, prior, alignment, record, outputs, learned, notes })
    }
}

/// Makes sure that all processes are about to learn the same.
fn check_same_everywhere(record: &RunRecord, processes: &Processes) -> Result<()> {
    if processes.size() == 1 {
        return Ok(());
    }
    let records = processes.exchange(&serde_json::to_string(record)?)?;
    let first: RunRecord = serde_json::from_str(&records[0])?;
    for (rank, other) in records.iter().enumerate().skip(1) {
        if let Some(difference) = first.difference(&serde_json::from_str(other)?)? {
            bail!(
                "rank {rank} has {difference} than rank 0: start all processes with the same command, model and photos"
            );
        }
    }
    Ok(())
}

impl Session {
    /// Prepares a run: everything that can be wrong is found out here, before anything slow.
    ///
    /// # Errors
    /// An unusable configuration, model or photo; a folder that is in use, or holds another run or something else; a resumed
    /// run whose configuration, model or photos have changed, wherever they are now; lack of memory or disk.
    pub fn open(layers: ConfigLayers, out: &Path, device: Device, opening: Opening<'_>) -> Result<Self> {
        Self::open_leading(layers, out, device, opening, &Processes::alone())
    }

    /// The same as rank 0 of several processes, which alone writes; the others are each a [`Follower`](crate::Follower).
    ///
    /// # Errors
    /// As [`Session::open`]; when another process is about to learn something else, or is lost.
    pub fn open_leading(
        layers: ConfigLayers,
        out: &Path,
        device: Device,
        opening: Opening<'_>,
        processes: &Processes,
    ) -> Result<Self> {
        let prepare = || Self::prepare(layers, out, device, opening, processes).map_err(memory::explain);
        processes.telling(prepare)
    }

    fn prepare(
        layers: ConfigLayers,
        out: &Path,
        device: Device,
        opening: Opening<'_>,
        processes: &Processes,
    ) -> Result<Self> {
        let Checked { saved, held, trainer, photos, prior, alignment, record, outputs, learned, mut notes } =
            Checked::new(layers, out, device, opening, processes)?;
        let checkpoints = out.join(layout::CHECKPOINTS);
        let folder = match saved.zip(held) {
            Some((saved, folder)) => {
                // It is found there the next time.
                saved.record_moves(&trainer.config, &folder)?;
                folder
            }
            None => {
                let folder = RunFolder::create(out)?;
                folder.write_record(&record, libtorch::LIBTORCH_VERSION, &format!("{device:?}"))?;
                folder
            }
        };
        notes.extend(folder.note().map(str::to_owned));
        notes.extend(
            Checkpoint::folder(&checkpoints)
                .foreign()
                .into_iter()
                .map(|path| format!("{} is not a checkpoint of this program, and is left alone", path.display())),
        );
        let config = limits::read(&out.join(layout::CONFIG))
            .with_context(|| format!("cannot read {}", out.join(layout::CONFIG).display()))?;
        start::keep(&trainer, out)?;
        reference::keep(&trainer.pipeline, &photos[0], out)?;
        if let Some(extends) = record.extends.as_ref().filter(|_| !learned)
            && Checkpoint::latest(&checkpoints)?.is_none()
        {
            extension::begin(extends, &trainer, out)?;
        }
        let checkpoint = if opening == Opening::New { None } else { Checkpoint::latest(&checkpoints)? };
        if let Some(checkpoint) = &checkpoint {
            checkpoint.check(&trainer.config)?;
        }
        let checkpoints = CheckpointWriter::new(checkpoints);
        // What the others read is there.
        processes.wait()?;
        Ok(Self { checkpoints, folder, config, trainer, photos, prior, alignment, outputs, checkpoint, learned, notes })
    }

    /// What the user should know before the run.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Runs to the end, or until `stop` says so, which is asked after each step.
    ///
    /// # Errors
    /// A loss that is not a number, lack of memory or disk; the last checkpoint stays good.
    pub fn run(self, stop: &dyn Fn() -> bool, watch: &mut dyn FnMut(Event)) -> Result<Outcome> {
        let processes = self.trainer.processes.clone();
        processes.telling(|| self.phases(stop, watch).map_err(memory::explain))
    }

    fn phases(mut self, stop: &dyn Fn() -> bool, watch: &mut dyn FnMut(Event)) -> Result<Outcome> {
        let processes = self.trainer.processes.clone();
        if self.learned {
            // What came afterwards may be missing.
            self.outputs.restore(&self.trainer)?;
        } else if !self.learn(stop, watch)? {
            self.checkpoints.finish()?;
            // They stay till then: whoever has started all of them may end them when the first one ends.
            processes.leave()?;
            return Ok(Outcome::Stopped);
        }
        // No checkpoint matters any more, not one that could not be written either.
        let _ = self.checkpoints.finish();
        processes.leave()?;
        watch(Event::Learned);
        if stop() {
            return Ok(Outcome::Stopped);
        }
        tell(&tracing::trace_span!("train/samples").in_scope(|| self.outputs.samples(&self.trainer))?, watch);
        tracing::trace_span!("train/outputs").in_scope(|| {
            reference::draw_masks(&self.trainer.pipeline, &self.trainer.config, self.folder.path())?;
            self.outputs.curves(&self.trainer.config)
        })?;
        // Nothing resumes from them any more, and of Stable Diffusion one takes 10 GB.
        if !self.trainer.config.keep_checkpoint {
            Checkpoint::folder(&self.folder.path().join(layout::CHECKPOINTS)).discard_all()?;
        }
        stopping::discard_snapshots(self.folder.path())?;
        Ok(Outcome::Finished)
    }

    /// Returns whether all phases were finished.
    fn learn(&mut self, stop: &dyn Fn() -> bool, watch: &mut dyn FnMut(Event)) -> Result<bool> {
        let Trainer { config, pipeline, processes, .. } = &self.trainer;
        for images in &mut self.prior {
            let generate = || images.generate(pipeline, config, processes, stop, watch);
            if !tracing::trace_span!("train/class_images").in_scope(generate)? {
                return Ok(false);
            }
        }
        let photos = std::mem::take(&mut self.photos);
        let prior = std::mem::take(&mut self.prior).into_iter().map(PriorImages::into_photos).collect();
        let alignment = self.alignment.take();
        let measure = || {
            let state = self.checkpoint.as_ref().map(|checkpoint| &checkpoint.state);
            Stopping::open(&self.trainer, alignment, &photos, self.folder.path(), state)
        };
        let mut stopping = tracing::trace_span!("train/measure").in_scope(measure)?;
        let mut batches = PhotoBatches::shared(config, pipeline, photos, prior, Share::of(processes))?;
        let first = BatchIndex { phase: 0, step: 0, part: 0 };
        let crops = batches.crops(first)?;
        tracing::trace_span!("train/outputs").in_scope(|| self.outputs.contact_sheet(&crops))?;
        let resumed = self.checkpoint.take();
        let start = resumed.as_ref().map_or(0, |checkpoint| checkpoint.state.number);
        let done = resumed.as_ref().map_or(0, |c| self.step_number(c.state.number, c.state.step));
        let device = self.trainer.pipeline.placement().1;
        let mut record = StepLogger::open(self.folder.path(), done, device)?;
        for number in start..self.trainer.config.phases.len() {
            let mut phase_run = tracing::trace_span!("train/start_phase").in_scope(|| match &resumed {
                Some(checkpoint) if number == start => self.trainer.resume(checkpoint),
                _ => self.trainer.start(number),
            })?;
            let mut ending = stopping.as_mut().filter(|stopping| stopping.ends(number));
            if !self.phase(&mut phase_run, &mut batches, &mut record, ending.as_deref_mut(), stop, watch)? {
                return Ok(false);
            }
            phase_run.finish(&self.trainer)?;
            if let Some(stopping) = ending {
                let (name, phase) = self.trainer.phase(number)?;
                let (phase, steps) = (name.to_owned(), phase.steps as u64);
                watch(Event::Ended { phase, steps, ending: stopping.take(&self.trainer)? });
            }
            // Of no use to the next phase, whose tensors have other sizes.
            libtorch::release_cached_memory(device)?;
            tracing::trace_span!("train/outputs").in_scope(|| {
                self.outputs.after(&self.trainer, number)?;
                // It is small, and of interest before the end.
                let (_, phase) = self.trainer.phase(number)?;
                let embedding = phase.trains.contains_key(&Group::Embedding).then_some(Group::Embedding);
                embedding.map_or(Ok(()), |group| self.outputs.group(&self.trainer, group))
            })?;
        }
        tracing::trace_span!("train/outputs").in_scope(|| {
            // Somebody may have removed the folder since.
            self.keep_config()?;
            Outputs::groups(&self.trainer.config)
                .into_iter()
                .try_for_each(|group| self.outputs.group(&self.trainer, group))
        })?;
        Ok(true)
    }

    /// Returns whether the phase was finished.
    fn phase(
        &mut self,
        phase_run: &mut PhaseRun,
        batches: &mut PhotoBatches,
        record: &mut StepLogger,
        mut stopping: Option<&mut Stopping>,
        stop: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(Event),
    ) -> Result<bool> {
        let number = phase_run.number();
        let (name, phase) = self.trainer.phase(number)?;
        let (steps, phases) = (phase.steps, self.trainer.config.phases.len());
        let (phase, done) = (name.to_owned(), phase_run.done() as u64);
        watch(Event::Phase { phase, number: number + 1, phases, done, steps: steps as u64 });
        // A CPU has done a step when it is launched.
        let at_once = self.trainer.pipeline.placement().1 == Device::Cpu;
        self.measure(phase_run, stopping.as_deref_mut(), watch)?;
        record.restart_clock();
        let mut launched = None;
        let has_ended = |stopping: &Option<&mut Stopping>| stopping.as_ref().is_some_and(|stopping| stopping.ended());
        // The others hear of it: it is measured here alone.
        let [mut ended] = self.trainer.processes.any([has_ended(&stopping)])?;
        while phase_run.done() < steps && !ended {
            // What the step before has shown is read while the device is at this one.
            let before = launched.replace(phase_run.step(&self.trainer, batches)?);
            self.report(before, record, watch)?;

            let done = phase_run.done();
            let every = self.trainer.config.validation.every;
            let validating = done.is_multiple_of(every);
            let due = done.is_multiple_of(self.trainer.config.checkpoint_every) || done == steps;
            let measuring = stopping.as_ref().is_some_and(|stopping| stopping.is_due(done));
            if at_once || validating || due || measuring {
                self.report(launched.take(), record, watch)?;
            }
            self.measure(phase_run, stopping.as_deref_mut(), watch)?;
            let asked;
            [asked, ended] = self.trainer.processes.any([stop(), has_ended(&stopping)])?;
            // The last phase ends with what was learned itself, which is written next.
            let at_end = done == steps || ended;
            let last = number + 1 == phases && at_end && !self.trainer.config.keep_checkpoint;
            let saving = (due && !last) || asked;
            if validating {
                let look = || -> Result<Vec<String>> {
                    let mut notes = self.outputs.validation(&self.trainer, number, done)?;
                    if self.trainer.config.validation.attention {
                        let file = self.outputs.attention_file(&self.trainer, number, done)?;
                        notes.extend(subject_attention::write(&self.trainer, &file)?);
                    }
                    Ok(notes)
                };
                tell(&tracing::trace_span!("train/validation").in_scope(look)?, watch);
            }
            if saving {
                self.report(launched.take(), record, watch)?;
                record.sync()?;
                stopping.as_ref().map_or(Ok(()), |stopping| stopping.save())?;
                self.save(phase_run, asked)?;
            }
            if asked {
                return Ok(false);
            }
            if validating || saving || measuring {
                record.restart_clock();
            }
        }
        record.sync()?;
        Ok(true)
    }

    /// Measures what has been learned, where that is due.
    fn measure(
        &self,
        phase_run: &mut PhaseRun,
        stopping: Option<&mut Stopping>,
        watch: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let Some(stopping) = stopping.filter(|stopping| stopping.is_due(phase_run.done())) else { return Ok(()) };
        let measure = || stopping.measure(&self.trainer, phase_run);
        let measurement = tracing::trace_span!("train/measure").in_scope(measure)?;
        let phase = self.trainer.phase(phase_run.number())?.0.to_owned();
        watch(Event::Measured { phase, measurement });
        Ok(())
    }

    /// Waits for a step, writes down what it has shown and tells who watches.
    fn report(
        &self,
        launched: Option<LaunchedStep>,
        record: &mut StepLogger,
        watch: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let Some(launched) = launched else { return Ok(()) };
        let report = launched.wait()?;
        let (_, phase) = self.trainer.phase(report.number)?;
        let peak_memory = record.add(self.step_number(report.number, report.step), &report, phase)?;
        watch(Event::Step { report, peak_memory });
        Ok(())
    }

    /// Writes a checkpoint; beside the next steps on a GPU, whose host may have memory for a copy.
    fn save(&mut self, phase_run: &PhaseRun, stopping: bool) -> Result<()> {
        let _span = tracing::trace_span!("train/checkpoint").entered();
        let beside = self.trainer.pipeline.placement().1 != Device::Cpu && !stopping;
        self.checkpoints.write(phase_run.pending_checkpoint(&self.trainer)?, beside)?;
        self.keep_config()
    }

    /// Writes the configuration again where somebody has removed the folder; without it, a checkpoint in the new one could
    /// not be resumed.
    fn keep_config(&self) -> Result<()> {
        let (folder, config) = (self.folder.path(), self.folder.path().join(layout::CONFIG));
        if config.exists() {
            return Ok(());
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        atomic::write(&config, &self.config)
    }

    /// Steps done in the whole run when `step` are done in a phase.
    fn step_number(&self, phase: usize, step: usize) -> u64 {
        let earlier = self.trainer.config.phases.values().take(phase);
        (earlier.map(|earlier| earlier.steps).sum::<usize>() + step) as u64
    }
}

/// The dtype of the U-Net's parameters: f32 where some of them are trained, else the one to compute in, so that they take less memory and
/// are not converted in each pass.
pub fn unet_dtype(config: &TrainConfig) -> Kind {
    let trained = config.phases.values().flat_map(|phase| phase.trains.keys()).any(|group| group.is_of_unet());
    if trained { Kind::Float } else { libtorch::kind(config.dtype) }
}

/// What the user should know of the model and the prompts.
fn trainer_notes(Trainer { config, pipeline, .. }: &Trainer) -> Result<Vec<String>> {
    let mut notes = pipeline.notes().to_vec();
    let count = pipeline.tokenizer.encode(&config.category)?.len - 2;
    if count > 1 && config.phases.values().any(runs::Phase::regularizes) {
        notes.push(format!(
            "the category {:?} is {count} tokens for this model; [V] is compared with {}",
            terminal::shortened(&config.category),
            match config.regularizer.category {
                regularizer::Category::Mean => "the mean of their attention maps",
                regularizer::Category::First => "the first one's attention map",
            }
        ));
    }
    let prompts = config.validation.prompts.iter().chain(config.prior.as_ref().map(|prior| &prior.prompt));
    for prompt in prompts {
        notes.extend(pipeline.prompt_notes(&config.fill(prompt))?);
    }
    Ok(notes)
}

/// How photos are used with what is beside them; checks their captions.
fn photo_notes(Trainer { config, pipeline, method, .. }: &Trainer, photos: &[Vec<Photo>]) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    if config.captions.is_some() {
        let prompts = Prompts::of_photos(config, photos)?;
        notes.extend(prompts.check(pipeline, config, *method)?);
        notes.push(format!("each photo is learned with its caption, the first as {:?}", prompts.first()));
    }
    if let Some(Masks { unmasked_weight }) = &config.masks {
        let all = photos.iter().flatten();
        let masked: Vec<bool> = all.filter_map(|photo| Some(photo.mask.as_ref()?.path == photo.path)).collect();
        let alpha = masked.iter().filter(|alpha| **alpha).count();
        notes.push(format!(
            "the loss counts under masks ({} by files, {alpha} by alpha channels), and outside with a weight of {unmasked_weight}",
            masked.len() - alpha
        ));
    }
    if config.buckets {
        notes.push(format!("crops are {}", Buckets::of(config, pipeline, photos)?.describe()));
    }
    Ok(notes)
}

/// Passes notes on.
fn tell(notes: &[String], watch: &mut dyn FnMut(Event)) {
    notes.iter().for_each(|text| watch(Event::Note { text: text.clone() }));
}
