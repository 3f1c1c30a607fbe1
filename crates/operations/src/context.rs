//! What an operation tells on its way, and how it is stopped.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use distributed::{Environment, Group};
use options::DeviceChoice;
use requests::Seed;
use runs::{Evaluation, Measurement};
use serde::Serialize;

/// What happens in an operation, for whoever shows it.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A line about what is going on.
    Message {
        /// One sentence or less.
        text: String,
    },
    /// Something is taken otherwise than a user may expect. No two events of one [`Context`] have the same.
    Note {
        /// One sentence.
        text: String,
    },
    /// How far a task has come; the next one of another name begins when this one is at an end.
    Progress {
        /// What is being done, and what is counted.
        task: String,
        /// How many are done; what was done earlier counts.
        done: u64,
        /// How many there are.
        total: u64,
        /// What is known of the last one.
        detail: String,
    },
    /// A phase of training begins, or resumes after `done` steps.
    Phase {
        /// Its name.
        phase: String,
        /// Its number, from 1.
        number: usize,
        /// How many phases there are.
        phases: usize,
        /// Steps done earlier.
        done: u64,
        /// Steps of the phase.
        steps: u64,
    },
    /// A training step is done.
    Step {
        /// The name of the phase.
        phase: String,
        /// Steps of the phase that are done.
        step: u64,
        /// The terms of the loss by name, with their weights.
        losses: Vec<(String, f64)>,
        /// The most memory in use so far, in bytes, where the system tells.
        peak_memory: Option<u64>,
    },
    /// The model was measured during training, to stop in time.
    Measured {
        /// The name of the phase.
        phase: String,
        /// What it has gained over the base model.
        measurement: Measurement,
    },
    /// What an image is on its way to.
    Preview {
        /// A JPEG in base64.
        jpeg: String,
    },
    /// An image is written.
    Image {
        /// Its file.
        path: PathBuf,
    },
    /// An evaluation has its scores.
    Scores {
        /// The file that holds them.
        path: PathBuf,
        /// What it says.
        record: Box<Evaluation>,
    },
}

/// How an operation tells what happens and learns that it is to stop.
pub struct Context<'a> {
    events: &'a dyn Fn(Event),
    stop: Stop,
    noted: RefCell<BTreeSet<String>>,
    environment: Option<Environment>,
}

impl<'a> Context<'a> {
    /// `events` is called in the thread of the operation.
    pub fn new(events: &'a dyn Fn(Event), stop: Stop) -> Self {
        Self { events, stop, noted: RefCell::default(), environment: None }
    }

    /// The same for one of several processes, which do an operation together.
    #[must_use]
    pub fn among(self, environment: Option<Environment>) -> Self {
        Self { environment, ..self }
    }

    /// This process's place among several.
    pub(crate) fn environment(&self) -> Option<&Environment> {
        self.environment.as_ref()
    }

    /// All processes that do this operation, once they are there.
    ///
    /// # Errors
    /// As [`Group::connect`].
    pub(crate) fn connect(&self) -> Result<Group> {
        self.environment.as_ref().map_or(Ok(Group::alone()), Group::connect)
    }

    /// Of several processes on a machine with GPUs each takes its own, unless it is told which.
    pub(crate) fn device(&self, choice: DeviceChoice) -> DeviceChoice {
        match (&self.environment, choice) {
            (Some(environment), DeviceChoice::Auto) if libtorch::cuda_unavailable().is_none() => {
                DeviceChoice::Cuda(environment.local_rank)
            }
            _ => choice,
        }
    }

    /// What tells that the operation is to stop.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    pub(crate) fn tell(&self, event: Event) {
        (self.events)(event);
    }

    pub(crate) fn message(&self, text: impl Into<String>) {
        self.tell(Event::Message { text: text.into() });
    }

    /// Several parts of an operation may have the same to say, such as of a model that is loaded twice.
    pub(crate) fn note(&self, text: impl Into<String>) {
        let text = text.into();
        if self.noted.borrow_mut().insert(text.clone()) {
            self.tell(Event::Note { text });
        }
    }

    pub(crate) fn notes<T: ToString>(&self, notes: impl IntoIterator<Item = T>) {
        notes.into_iter().for_each(|note| self.note(note.to_string()));
    }

    pub(crate) fn image(&self, path: PathBuf) {
        self.tell(Event::Image { path });
    }

    /// The seed, which is shown if it is a random one.
    pub(crate) fn seed(&self, seed: Seed) -> u64 {
        if seed.is_random() {
            self.note(format!("the seed is {seed}"));
        }
        seed.get()
    }

    pub(crate) fn progress(&self, task: impl Into<String>) -> Progress<'_> {
        Progress { context: self, task: task.into(), done: 0 }
    }

    /// To be asked between pieces of work that are kept.
    ///
    /// # Errors
    /// [`Interrupted`] when the operation is to stop.
    pub(crate) fn check(&self) -> Result<()> {
        match self.stop.asked() {
            true => Err(Interrupted("the same command continues it".to_owned()).into()),
            false => Ok(()),
        }
    }
}

/// A task whose steps are counted.
pub(crate) struct Progress<'a> {
    context: &'a Context<'a>,
    task: String,
    done: u64,
}

impl Progress<'_> {
    /// Counts one more of `total`. The first is told after the start, from which rates count.
    pub(crate) fn step(&mut self, total: u64, detail: impl Into<String>) {
        if self.done == 0 {
            self.reach(0, total, "");
        }
        self.reach(self.done + 1, total, detail);
    }

    /// Counts on to `done` of `total`.
    pub(crate) fn reach(&mut self, done: u64, total: u64, detail: impl Into<String>) {
        self.done = done;
        self.context.tell(Event::Progress { task: self.task.clone(), done, total, detail: detail.into() });
    }
}

/// An operation has ended early because it was asked to; what it says is how to continue it.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; {0}")]
pub struct Interrupted(pub(crate) String);

/// Whether an error is, or was caused by, an [`Interrupted`].
pub fn is_interruption(error: &anyhow::Error) -> bool {
    error.chain().any(<dyn std::error::Error>::is::<Interrupted>)
}

/// Asks an operation to stop; clones are one and the same.
///
/// Most operations keep their state on disk as they go and may end at any moment. Those that do not defer a request until their
/// state is saved.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    asked: bool,
    deferrals: usize,
    on_loss: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, deferrals, .. } = self;
        f.debug_struct("State").field("asked", asked).field("deferrals", deferrals).finish_non_exhaustive()
    }
}

impl Stop {
    /// Asks to stop as soon as what is done can be kept.
    pub fn ask(&self) {
        self.state(|state| state.asked = true);
    }

    /// Asks only an operation that has to save its state first. Returns whether there is one; if not, the process may end at
    /// once without loss.
    pub fn ask_deferred(&self) -> bool {
        self.state(|state| {
            let deferred = state.deferrals > 0;
            state.asked |= deferred;
            deferred
        })
    }

    /// Whether it was asked.
    pub fn asked(&self) -> bool {
        self.state(|state| state.asked)
    }

    /// What ends the process at once, and writes nothing more: for work that another process has taken over, because this one was
    /// suspended, or could not reach the folder that they share. Unset, it is only asked to stop.
    pub fn set_on_loss(&self, leave: impl Fn() + Send + Sync + 'static) {
        self.state(|state| state.on_loss = Some(Arc::new(leave)));
    }

    /// The work is another's.
    pub(crate) fn lose(&self) {
        let on_loss = self.state(|state| {
            state.asked = true;
            state.on_loss.clone()
        });
        if let Some(leave) = on_loss {
            leave();
        }
    }

    /// Until the guard is dropped, there is state that is not saved.
    pub fn defer(&self) -> Deferral {
        self.state(|state| state.deferrals += 1);
        Deferral(self.clone())
    }

    fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// As long as it lives, a request to stop waits until state is saved.
#[must_use]
#[derive(Debug)]
pub struct Deferral(Stop);

impl Drop for Deferral {
    fn drop(&mut self) {
        self.0.state(|state| state.deferrals -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_state_to_save_is_asked_to_stop() {
        let stop = Stop::default();
        assert!(!stop.ask_deferred() && !stop.asked());
        let deferral = stop.clone().defer();
        assert!(stop.ask_deferred() && stop.asked());
        drop(deferral);
        assert!(!stop.ask_deferred() && stop.asked());
    }

    #[test]
    fn a_note_is_told_once() {
        let told = RefCell::new(Vec::new());
        let tell = |event| told.borrow_mut().push(event);
        let context = Context::new(&tell, Stop::default());
        context.notes(["a", "b", "a"]);
        assert_eq!(
            serde_json::to_string(&*told.borrow()).unwrap(),
            r#"[{"event":"note","text":"a"},{"event":"note","text":"b"}]"#
        );
        context.stop().ask();
        assert!(is_interruption(&context.check().unwrap_err().context("run x")));
    }
}
