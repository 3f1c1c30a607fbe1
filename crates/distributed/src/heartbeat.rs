//! Which processes still live, as far as the store tells.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use libtorch::Store;

/// A process that has not shown for so long that it lives is taken for lost.
pub const LOST_AFTER: Duration = Duration::from_secs(40);

/// Between two heartbeats.
const EVERY: Duration = Duration::from_secs(4);

/// A thread that shows that this process lives, and watches the others.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    seen: Arc<Mutex<Vec<Instant>>>,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    /// By a connection to the store of its own: one that hangs holds up nothing else.
    pub(crate) fn start(store: Store, rank: usize, size: usize) -> Result<Self> {
        let seen = Arc::new(Mutex::new(vec![Instant::now(); size]));
        let (end, ended) = channel::<()>();
        let shared = Arc::clone(&seen);
        let beat = move || {
            let mut counts = vec![0; size];
            loop {
                // What cannot be asked for is not seen.
                if store.add(&key(rank), 1).is_ok() {
                    for (other, count) in counts.iter_mut().enumerate() {
                        let Ok(now) = store.add(&key(other), 0) else { break };
                        if now != std::mem::replace(count, now) {
                            lock(&shared)[other] = Instant::now();
                        }
                    }
                }
                if ended.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = Builder::new().name("heartbeat".to_owned()).spawn(beat)?;
        Ok(Self { seen, end: Some(end), thread: Some(thread) })
    }

    /// The process that has not been seen for longest, if that is too long.
    pub(crate) fn lost(&self) -> Option<usize> {
        let seen = lock(&self.seen);
        let (rank, last) = seen.iter().enumerate().min_by_key(|(_, last)| **last)?;
        (last.elapsed() > LOST_AFTER).then_some(rank)
    }

    /// Ends the thread, which holds nothing up where all is well.
    pub(crate) fn end(mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn key(rank: usize) -> String {
    format!("heartbeat/{rank}")
}

fn lock(seen: &Mutex<Vec<Instant>>) -> std::sync::MutexGuard<'_, Vec<Instant>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
