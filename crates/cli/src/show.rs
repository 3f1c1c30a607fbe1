//! Events and results on the terminal, or as JSON lines.

use std::cell::RefCell;
use std::path::Path;

use anyhow::Result;
use operations::{Benched, Compared, Event, Outcome, PublishedModels, Tabled};
use requests::Global;
use runs::Measurement;
use serde::Serialize;
use serde_json::json;

use crate::progress::Progress;
use crate::table;

/// Shows what happens.
pub(crate) struct Show {
    global: Global,
    /// What is counted now.
    progress: RefCell<Option<Progress>>,
    /// What was last measured, for the progress of training.
    measured: RefCell<String>,
}

impl Show {
    pub(crate) fn new(global: Global) -> Self {
        Self { global, progress: RefCell::default(), measured: RefCell::default() }
    }

    /// Something has happened.
    pub(crate) fn event(&self, event: Event) {
        if self.global.json {
            return json_line(&event);
        }
        match event {
            Event::Message { text } => self.say(&text),
            Event::Note { text } => self.beside_progress(|| terminal::note!("{text}")),
            Event::Progress { task, done, total, detail } => self.progress(&task, done, total, &detail),
            Event::Phase { phase, number, phases, done, steps } => {
                self.measured.take();
                self.progress(&format!("phase {number} of {phases}, {phase}"), done, steps, "");
            }
            Event::Measured { measurement: Measurement { step, gain, text_alignment, .. }, .. } => {
                let alignment = text_alignment.map_or(String::new(), |part| format!(", text alignment {part:.3}"));
                *self.measured.borrow_mut() = format!("; gain {gain:.3}{alignment} at step {step}");
            }
            Event::Step { step, losses, peak_memory, .. } => {
                let memory = peak_memory.map_or(String::new(), |bytes| format!(" {:.1} GB", bytes as f64 / 1e9));
                if let Some(progress) = &mut *self.progress.borrow_mut() {
                    let losses: Vec<String> = losses.iter().map(|(name, loss)| format!("{name} {loss:.5}")).collect();
                    let (losses, measured) = (losses.join(", "), self.measured.borrow());
                    progress.reach(step, None, &format!("loss: {losses}{memory}{measured}"));
                }
            }
            Event::Preview { .. } | Event::Image { .. } => {}
            Event::Scores { path, record } => {
                self.progress.take();
                terminal::output!("{}", table::scores(&record));
                self.say(&format!("the images and scores.json are in {}", parent(&path)));
            }
        }
    }

    /// The studio can be opened.
    pub(crate) fn listening(&self, url: &str) {
        if self.global.json {
            return json_line(&json!({ "event": "listening", "url": url }));
        }
        terminal::output!("{url}");
        self.say("open this address in a browser; Ctrl-C ends the studio");
    }

    /// The options for all commands that also hold for what this one starts.
    pub(crate) fn global_options(&self) -> &'static [&'static str] {
        if self.global.no_digital_source_type { &["--no-digital-source-type"] } else { &[] }
    }

    /// A command has ended well.
    pub(crate) fn outcome(&self, outcome: &Outcome) -> Result<()> {
        self.progress.take();
        if matches!(outcome, Outcome::Shared) {
            return Ok(());
        }
        if self.global.json {
            json_line(&json!({ "event": "result", "result": outcome }));
            return Ok(());
        }
        match outcome {
            // Their events have said all.
            Outcome::Train(_) | Outcome::Evaluate(_) => {}
            Outcome::Batch(batched) => {
                self.say(&format!("{} subject(s) are learned, in {}", batched.done, terminal::path(&batched.folder)));
            }
            Outcome::CheckJudge(examined) => terminal::output!("{}", table::judge(examined)),
            Outcome::Plan(planned) => terminal::output!("{}", table::plan(planned)),
            Outcome::Generate(made) => {
                let grids: Vec<_> = made.grids.iter().filter_map(|grid| grid.file_name()?.to_str()).collect();
                let grids = if grids.is_empty() { String::new() } else { format!(" and {}", grids.join(", ")) };
                self.say(&format!("{} image(s){grids} in {}", made.images.len(), terminal::path(&made.folder)));
            }
            Outcome::Ablate(ablated) => {
                terminal::output!("{}", table::ablation(&ablated.ablation));
                self.say(&format!("the runs, ablation.json and ablation.png are in {}", ablated.folder.display()));
            }
            Outcome::Table(Tabled::Planned(planned)) => terminal::output!("{}", table::table_plan(planned)),
            Outcome::Table(Tabled::Computed { folder, done }) => {
                self.say(&format!("{done} cell(s) are done in {}; `table collect` shows them", folder.display()));
            }
            Outcome::Table(Tabled::Collected { folder, text }) => {
                terminal::output!("{}", text.trim_end());
                self.say(&format!("table.json and table.html are in {}", folder.display()));
            }
            Outcome::Table(Tabled::Asked { page }) => {
                self.say(&format!(
                    "{}: send it to people; `table collect --answers` counts what they send back",
                    page.display()
                ));
            }
            Outcome::Attend(attended) => {
                let folder = attended.folder.display();
                self.say(&format!("grid.png, single images, maps.safetensors and attend.json in {folder}"));
            }
            Outcome::Inspect(inspected) => {
                terminal::output!("{}", table::embedding(&inspected.record));
                self.say(&format!(
                    "inspect.json and {} image(s) in {}",
                    inspected.record.images.len(),
                    inspected.folder.display()
                ));
            }
            Outcome::Report(reported) => self.say(&reported.page.display().to_string()),
            Outcome::Compare(Compared::Runs { folder, study, table }) => {
                terminal::output!("{table}");
                let pages =
                    if *study { "compare.html, compare.json and study.html" } else { "compare.html and compare.json" };
                self.say(&format!("{pages} in {}", folder.display()));
            }
            Outcome::Compare(Compared::Answers { table }) => terminal::output!("{table}"),
            Outcome::Export(exported) => {
                let paths: Vec<String> = exported.paths.iter().map(|path| terminal::path(path).to_string()).collect();
                let separator = if paths.len() > 1 { ':' } else { ';' };
                self.say(&format!("{}{separator} {}", paths.join(" and "), exported.usage));
            }
            Outcome::Merge(merged) => {
                self.say(&format!("{}; {}", terminal::path(&merged.folder), merged.usage));
            }
            Outcome::Weights(PublishedModels::Listed(models)) => terminal::output!("{}", table::models(models)),
            Outcome::Weights(PublishedModels::Downloaded { name, path }) => {
                terminal::output!("{name} is complete in {}", path.display());
            }
            Outcome::Weights(PublishedModels::Verified { .. }) => {}
            Outcome::Config(configured) => terminal::output!("{}", configured.text.trim_end()),
            Outcome::Probe(probed) => {
                for tensor in &probed.tensors {
                    self.say(&format!("{} {} {:?}", tensor.name, tensor.dtype, tensor.shape));
                }
            }
            Outcome::Pretrain(pretrained) => {
                if let Some((model, measures)) = &pretrained.model {
                    self.say(&format!(
                        "VAE {:.1} dB; CLIP finds {:.0} % of scenes, {:.0} % of captions; {:.0} % of generated images are \
                         told by their prompts; the model is in {}",
                        measures.vae_psnr,
                        100.0 * measures.text_to_image_recall,
                        100.0 * measures.image_to_text_recall,
                        100.0 * measures.generated_recall,
                        model.display()
                    ));
                }
            }
            Outcome::Bench(Benched::Measured(measurement)) => {
                terminal::output!("{}", serde_json::to_string(measurement)?);
            }
            Outcome::Bench(Benched::Made(_)) | Outcome::Shared => {}
        }
        Ok(())
    }

    /// A command has ended early. Returns the exit code.
    pub(crate) fn end(&self, text: &str, event: &str, code: i32) -> i32 {
        self.progress.take();
        if self.global.json {
            json_line(&json!({ "event": event, "text": text, "exit_code": code }));
        }
        terminal::say!("{text}");
        code
    }

    fn say(&self, text: &str) {
        if !self.global.quiet {
            self.beside_progress(|| terminal::say!("{text}"));
        }
    }

    fn progress(&self, task: &str, done: u64, total: u64, detail: &str) {
        if self.global.quiet {
            return;
        }
        let mut shown = self.progress.borrow_mut();
        match &mut *shown {
            Some(progress) if progress.is_of(task, done) => progress.reach(done, Some(total), detail),
            other => {
                // The old bar goes before the new one comes.
                *other = None;
                other.insert(Progress::new(task, done, total)).reach(done, None, detail);
            }
        }
    }

    fn beside_progress(&self, write: impl FnOnce()) {
        match &*self.progress.borrow() {
            Some(progress) => progress.suspend(write),
            None => write(),
        }
    }
}

fn parent(path: &Path) -> impl std::fmt::Display {
    path.parent().unwrap_or(path).display()
}

/// A line of JSON on standard output, in ASCII, as nothing in it may control a terminal.
fn json_line(value: &impl Serialize) {
    let text = serde_json::to_string(value).unwrap_or_default();
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => line.push(c),
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| line.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    terminal::output!("{line}");
}
