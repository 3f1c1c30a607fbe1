//! Claiming, beating, giving back.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::holder::EVERY;
use crate::{Folder, Holder, Place};

/// A lease that has missed so many heartbeats is anybody's.
pub const MISSED: u32 = 6;

/// The leases of this process, for [`release_all`].
static HELD: Mutex<Vec<Weak<Kept>>> = Mutex::new(Vec::new());

/// What has come of asking for a piece of work.
#[derive(Debug)]
pub enum Claim {
    /// It is this process's, until the lease is dropped.
    Ours(Lease),
    /// Somebody else is at it.
    Theirs {
        /// Who.
        holder: Holder,
        /// It is certain that the process lives; else its heartbeats will tell.
        alive: bool,
    },
}

/// A piece of work that is this process's.
#[derive(Debug)]
pub struct Lease(Arc<Kept>);

struct Kept {
    place: Box<dyn Place>,
    number: u64,
    state: Mutex<State>,
    ended: Condvar,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("number", &self.number).finish_non_exhaustive()
    }
}

struct State {
    holder: Holder,
    ended: bool,
}

impl Lease {
    /// Asks for the work whose leases are in a folder, which is made if missing.
    ///
    /// `on_loss` is called, in another thread, when the lease is no longer this process's: because it was suspended, or could not
    /// write. Another may be at the work then, so it must end the process.
    ///
    /// # Errors
    /// When the folder cannot be read or written, or holds a file that is no lease.
    pub fn of_folder(folder: &Path, on_loss: impl FnOnce() + Send + 'static) -> Result<Claim> {
        Self::claim(Box::new(Folder::new(folder)?), EVERY, on_loss)
    }

    /// The same at any place, with heartbeats after `every`.
    ///
    /// # Errors
    /// When the place cannot be read or written.
    pub fn claim(place: Box<dyn Place>, every: Duration, on_loss: impl FnOnce() + Send + 'static) -> Result<Claim> {
        let holder = Holder::this(every);
        loop {
            let begun = Instant::now();
            let last = place.last()?;
            let number = match &last {
                None => 1,
                Some(entry) => {
                    let silence = Duration::from_millis(entry.holder.every) * MISSED;
                    let alive = entry.holder.is_alive();
                    if !entry.holder.released && alive != Some(false) && (alive == Some(true) || entry.age <= silence) {
                        return Ok(Claim::Theirs { holder: entry.holder.clone(), alive: alive == Some(true) });
                    }
                    entry.number + 1
                }
            };
            // A number below the last one can be free again, for whoever was slow.
            if place.create(number, &holder)? && place.last()?.is_some_and(|last| last.number == number) {
                place.remove_below(number);
                let state = Mutex::new(State { holder, ended: false });
                let kept = Arc::new(Kept { place, number, state, ended: Condvar::new() });
                lock(&HELD).push(Arc::downgrade(&kept));
                let beating = Arc::clone(&kept);
                let beat = move || beating.beat(begun, every, on_loss);
                thread::Builder::new().name("heartbeat".to_owned()).spawn(beat).context("cannot start a thread")?;
                return Ok(Claim::Ours(Self(kept)));
            }
        }
    }
}

impl Kept {
    /// Shows that this process is alive, until the lease is given back or lost.
    fn beat(&self, begun: Instant, every: Duration, on_loss: impl FnOnce()) {
        let mut last = begun;
        let mut state = lock(&self.state);
        loop {
            // A beat earlier than others may claim it, however long attempts to beat have taken.
            let limit = every * (MISSED - 1);
            let late = |last: Instant| last.elapsed() >= limit;
            let wait = every.min(limit.saturating_sub(last.elapsed()));
            state = self.ended.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
            if state.ended {
                return;
            }
            let now = Instant::now();
            state.holder.beats += 1;
            let ours = || -> Result<bool> {
                if late(last) {
                    return Ok(false);
                }
                self.place.replace(self.number, &state.holder)?;
                Ok(self.place.last()?.is_some_and(|entry| entry.number == self.number))
            };
            match ours() {
                Ok(true) => last = now,
                Err(_) if !late(last) => {}
                Ok(false) | Err(_) => {
                    state.ended = true;
                    drop(state);
                    return on_loss();
                }
            }
        }
    }

    /// Gives the work back. Where that cannot be written, it becomes free by missed heartbeats.
    fn release(&self, mut state: MutexGuard<'_, State>) {
        if !std::mem::replace(&mut state.ended, true) {
            state.holder.released = true;
            let _ = self.place.replace(self.number, &state.holder);
            self.ended.notify_all();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.release(lock(&self.0.state));
    }
}

/// Gives back all leases of this process, which must end right after.
pub fn release_all() {
    for kept in lock(&HELD).drain(..).filter_map(|kept| kept.upgrade()) {
        // A heartbeat that hangs must not keep the process.
        if let Ok(state) = kept.state.try_lock() {
            kept.release(state);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
