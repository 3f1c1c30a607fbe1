//! The one recording of a process.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::rebuild_interest_cache;

use crate::MOST_EVENTS;
use crate::state::{Event, Group, State};
use crate::tree::Name;

/// Waits until the device has done what was queued.
pub type Synchronize = Box<dyn Fn() + Send + Sync>;

/// The number of the recording that is on, or 0.
static ACTIVE: AtomicU64 = AtomicU64::new(0);
static STATE: Mutex<Option<State>> = Mutex::new(None);

thread_local! {
    /// The last recording that this thread had a span in, and its number there.
    static KNOWN: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
}

/// A recording that is on; what it has is lost when it is dropped.
#[derive(Debug)]
#[must_use = "a recording ends when it is dropped"]
pub struct Recording {
    number: u64,
}

/// Where the time went. Its text is a table: each name with its calls, its seconds in all, those that are its own (not
/// of the spans within it), and its share of the time that passed.
pub struct Profile {
    /// From start to stop.
    pub(crate) wall: Duration,
    /// The recording thread's is the first.
    pub(crate) groups: Vec<Group>,
    /// The group of each thread.
    pub(crate) threads: Vec<usize>,
    pub(crate) events: Vec<Event>,
    pub(crate) left_out: u64,
}

/// Starts to record the spans of all threads; `None` while another recording is on, of which a process has one.
///
/// `sync` waits until the device has done what was queued; there is none where work is done when a call returns. It must
/// have no spans itself. Without [`install`](crate::install), there are no spans to record.
pub fn start(sync: Option<Synchronize>) -> Option<Recording> {
    start_limited(sync, MOST_EVENTS)
}

pub(crate) fn start_limited(sync: Option<Synchronize>, most_events: usize) -> Option<Recording> {
    static RECORDINGS: AtomicU64 = AtomicU64::new(0);
    let mut state = lock();
    if state.is_some() {
        return None;
    }
    let number = RECORDINGS.fetch_add(1, Ordering::Relaxed) + 1;
    *state = Some(State::new(number, sync.map(Arc::from), most_events));
    KNOWN.set((number, 0));
    ACTIVE.store(number, Ordering::Relaxed);
    drop(state);
    rebuild_interest_cache();
    Some(Recording { number })
}

impl Recording {
    /// Ends the recording, and with it all spans that are open.
    pub fn stop(self) -> Profile {
        let now = Instant::now();
        let mut state = self.take().expect("nobody else takes what belongs to this recording");
        state.close_all(now);
        let wall = now.saturating_duration_since(state.started);
        let threads = state.groups_of_threads();
        Profile { wall, groups: state.groups, threads, events: state.events, left_out: state.left_out }
    }

    fn take(&self) -> Option<State> {
        let own = lock().take_if(|state| state.number == self.number)?;
        ACTIVE.store(0, Ordering::Relaxed);
        rebuild_interest_cache();
        Some(own)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// Whether spans are recorded.
pub(crate) fn is_on() -> bool {
    ACTIVE.load(Ordering::Relaxed) != 0
}

/// Opens a span in this thread, if there is a recording.
pub(crate) fn open(id: u64, name: Name) {
    let (mut state, _) = synchronized();
    let Some(state) = state.as_mut() else { return };
    if KNOWN.get().0 != state.number {
        KNOWN.set((state.number, state.add_thread()));
    }
    state.open(KNOWN.get().1, id, name);
}

/// Closes a span of this thread, if it was opened in the recording that is on.
pub(crate) fn close(id: u64) {
    let (mut state, now) = synchronized();
    if let Some(state) = state.as_mut().filter(|state| KNOWN.get().0 == state.number) {
        state.close(KNOWN.get().1, id, now);
    }
}

/// Waits for the device, where there is one; returns when that was.
fn synchronized() -> (MutexGuard<'static, Option<State>>, Instant) {
    let now = Instant::now();
    let state = lock();
    let sync = state.as_ref().and_then(|state| state.sync.clone());
    // While a panic unwinds, the device may be what has failed; a second panic would end the process.
    let Some(sync) = sync.filter(|_| !std::thread::panicking()) else { return (state, now) };
    // Others need not wait too.
    drop(state);
    sync();
    let now = Instant::now();
    (lock(), now)
}

fn lock() -> MutexGuard<'static, Option<State>> {
    // Nothing is half done when something here panics.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tracing::trace_span;

    use super::*;

    #[test]
    fn beyond_the_limit_only_the_table_counts() {
        crate::install("off", |_| ()).expect("no other test of the library installs");
        let recording = start_limited(None, 3).expect("no other test of the library records");
        trace_span!("outer").in_scope(|| (0..5).for_each(|_| trace_span!("inner").in_scope(|| ())));
        let profile = recording.stop();
        assert_eq!((profile.events.len(), profile.left_out), (3, 3));
        let node = profile.groups[0].tree.children(Some(0))[0];
        assert_eq!(profile.groups[0].tree.node(node).calls, 5);
        let note = "the trace has the first 3 spans; 3 more are in this table only";
        assert!(profile.to_string().contains(note));
    }
}
