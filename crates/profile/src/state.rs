//! A recording in progress.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::tree::{Name, Tree};

/// So many spans are in a trace at most, those that began first; later ones are in the table only. They take 32 bytes of
/// memory each, and about 100 bytes of the file.
pub const MOST_EVENTS: usize = 1_000_000;

/// A recording.
pub(crate) struct State {
    /// Tells the recordings of a process apart; from 1.
    pub(crate) number: u64,
    pub(crate) sync: Option<Arc<dyn Fn() + Send + Sync>>,
    pub(crate) started: Instant,
    most_events: usize,
    threads: Vec<Thread>,
    pub(crate) groups: Vec<Group>,
    pub(crate) events: Vec<Event>,
    /// Spans that came when there were as many events as allowed.
    pub(crate) left_out: u64,
}

/// A thread that had spans; the first is the one that records.
struct Thread {
    group: usize,
    open: Vec<Open>,
}

/// The spans of the thread that records, or of all others of a name.
pub(crate) struct Group {
    /// `None` where threads have no name.
    pub(crate) thread: Option<String>,
    pub(crate) tree: Tree,
}

/// A span for the trace.
pub(crate) struct Event {
    pub(crate) thread: u32,
    pub(crate) node: u32,
    /// Since the recording's start.
    pub(crate) start: Duration,
    /// In nanoseconds; 584 years are enough.
    pub(crate) nanoseconds: u64,
}

/// A span that is not closed yet.
struct Open {
    /// `tracing`'s.
    id: u64,
    node: usize,
    start: Duration,
    event: Option<usize>,
}

impl State {
    /// A recording by the present thread.
    pub(crate) fn new(number: u64, sync: Option<Arc<dyn Fn() + Send + Sync>>, most_events: usize) -> Self {
        let mut state = Self {
            number,
            sync,
            started: Instant::now(),
            most_events,
            threads: Vec::new(),
            groups: Vec::new(),
            events: Vec::new(),
            left_out: 0,
        };
        state.add_thread();
        state
    }

    /// Makes the present thread known; returns its number.
    pub(crate) fn add_thread(&mut self) -> usize {
        let current = thread::current();
        let name = current.name();
        // The first group is the recording thread's alone, which would otherwise have more time than passed.
        let known = self.groups.iter().skip(1).position(|group| group.thread.as_deref() == name);
        let group = known.map_or(self.groups.len(), |known| known + 1);
        if group == self.groups.len() {
            self.groups.push(Group { thread: name.map(str::to_owned), tree: Tree::default() });
        }
        self.threads.push(Thread { group, open: Vec::new() });
        self.threads.len() - 1
    }

    /// Opens a span within those that are open in the thread.
    pub(crate) fn open(&mut self, thread: usize, id: u64, name: Name) {
        let Thread { group, open } = &mut self.threads[thread];
        let node = self.groups[*group].tree.child(open.last().map(|parent| parent.node), name);
        // The bookkeeping is done: from here on, time is the span's.
        let start = self.started.elapsed();
        // It has its place in the trace from now on, before the spans within it.
        let event = (self.events.len() < self.most_events).then_some(self.events.len());
        match event {
            Some(_) => self.events.push(Event { thread: thread as u32, node: node as u32, start, nanoseconds: 0 }),
            None => self.left_out += 1,
        }
        open.push(Open { id, node, start, event });
    }

    /// Closes a span, and those within it that are still open. One that was closed with another is left as it is.
    pub(crate) fn close(&mut self, thread: usize, id: u64, now: Instant) {
        if let Some(depth) = self.threads[thread].open.iter().rposition(|open| open.id == id) {
            self.close_down_to(thread, depth, now);
        }
    }

    /// Closes all spans.
    pub(crate) fn close_all(&mut self, now: Instant) {
        for thread in 0..self.threads.len() {
            self.close_down_to(thread, 0, now);
        }
    }

    fn close_down_to(&mut self, thread: usize, depth: usize, now: Instant) {
        let Thread { group, open } = &mut self.threads[thread];
        for span in open.drain(depth..).rev() {
            let duration = now.saturating_duration_since(self.started).saturating_sub(span.start);
            self.groups[*group].tree.add(span.node, duration);
            if let Some(event) = span.event {
                self.events[event].nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            }
        }
    }

    /// The group of each thread.
    pub(crate) fn groups_of_threads(&self) -> Vec<usize> {
        self.threads.iter().map(|thread| thread.group).collect()
    }
}
