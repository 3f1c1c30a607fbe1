//! The processes, and what they tell each other.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtorch::{Pending, Processes, Store};
use tch::{Device, Tensor};

use crate::Environment;
use crate::heartbeat::Heartbeat;

/// How long processes wait for each other at the start: some may have to wait for their machine.
const ALL_HERE: Duration = Duration::from_secs(600);

/// Longer than rank 0 has ever to do alone. Who does not live is found out by heartbeats.
const OPERATION: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a process is given to say why it has ended, or that it ends.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Processes that work at one thing, or one alone. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Group(Option<Rc<Several>>);

#[derive(Debug)]
pub(crate) struct Several {
    rank: usize,
    size: usize,
    store: Store,
    /// For what they tell each other, on the CPU. Forgotten where processes have not taken leave: the end of an operation that nobody
    /// answers is not waited for.
    processes: RefCell<Option<Processes>>,
    /// For gradients on GPUs, once there are any.
    on_gpus: RefCell<Option<Processes>>,
    heartbeat: RefCell<Option<Heartbeat>>,
    /// How many texts were exchanged.
    exchanged: Cell<usize>,
}

/// Another process has ended, or is out of reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rank {rank} of {size} has lost another process: {reason}; what was saved is good: start all of them again")]
pub struct Lost {
    rank: usize,
    size: usize,
    reason: String,
}

impl Group {
    /// A process alone.
    pub fn alone() -> Self {
        Self(None)
    }

    /// Waits until all processes are there, and connects them.
    ///
    /// # Errors
    /// When the address or the port is not to be had, or one has not come within ten minutes.
    pub fn connect(environment: &Environment) -> Result<Self> {
        let &Environment { rank, size, ref address, port, served, .. } = environment;
        let place = || format!("rank {rank} of {size} at MASTER_ADDR {address}, MASTER_PORT {port}");
        let store = if rank == 0 && !served {
            Store::serve(address, port, ALL_HERE)
        } else {
            Store::connect(address, port, ALL_HERE)
        };
        let store = store.with_context(place)?;
        let beats = Store::connect(address, port, ALL_HERE).with_context(place)?;
        all_here(&store, rank, size).with_context(place)?;
        let heartbeat = Heartbeat::start(beats, rank, size)?;
        let processes = Processes::gloo(&store, rank, size, OPERATION).with_context(place)?;
        Ok(Self(Some(Rc::new(Several {
            rank,
            size,
            store,
            processes: RefCell::new(Some(processes)),
            on_gpus: RefCell::default(),
            heartbeat: RefCell::new(Some(heartbeat)),
            exchanged: Cell::new(0),
        }))))
    }

    /// The number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |several| several.rank)
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.0.as_ref().map_or(1, |several| several.size)
    }

    /// Whether this is rank 0, which alone writes.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// Of so many pieces of work, which are this process's.
    pub fn share(&self, pieces: usize) -> Range<usize> {
        share(pieces, self.rank(), self.size())
    }

    /// Of each flag whether any process has it set.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn any<const N: usize>(&self, flags: [bool; N]) -> Result<[bool; N]> {
        if self.size() == 1 {
            return Ok(flags);
        }
        let counts = Tensor::from_slice(&flags.map(i64::from));
        self.sum(&counts)?;
        Ok(std::array::from_fn(|flag| counts.int64_value(&[flag as i64]) > 0))
    }

    /// Waits until all processes are here.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn wait(&self) -> Result<()> {
        self.any([false]).map(|_| ())
    }

    /// Replaces a contiguous tensor on the CPU by the sum of those of all processes.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn sum(&self, tensor: &Tensor) -> Result<()> {
        self.operation(|processes| processes.sum(tensor))
    }

    /// Replaces a contiguous tensor on the CPU by that of rank 0.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn take_from_first(&self, tensor: &Tensor) -> Result<()> {
        self.operation(|processes| processes.broadcast(tensor, 0))
    }

    fn operation(&self, begin: impl FnOnce(&Processes) -> Result<Pending, libtorch::Error>) -> Result<()> {
        let Some(several) = &self.0 else { return Ok(()) };
        let pending = several.with(|processes| Ok(begin(processes)?))?;
        several.until(|at_most| pending.wait(at_most))
    }

    /// The texts of all processes, by rank.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn exchange(&self, text: &str) -> Result<Vec<String>> {
        let Some(several) = &self.0 else { return Ok(vec![text.to_owned()]) };
        let number = several.exchanged.replace(several.exchanged.get() + 1);
        let key = |rank: usize| format!("text/{number}/{rank}");
        several.store.set(&key(several.rank), text.as_bytes())?;
        // All have written theirs.
        self.wait()?;
        let of = |rank| {
            let bytes = several.store.get(&key(rank))?.with_context(|| format!("rank {rank} has written no text"))?;
            Ok(String::from_utf8(bytes)?)
        };
        (0..several.size).map(of).collect()
    }

    /// Does something as one of the processes: why it fails is told to the others, who otherwise know only that this one is gone.
    ///
    /// # Errors
    /// Those of the work.
    pub fn telling<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        work().inspect_err(|error| {
            if let Some(several) = self.0.as_ref().filter(|_| !error.is::<Lost>()) {
                let _ = several.store.set(&failure(several.rank), format!("{error:#}").as_bytes());
            }
        })
    }

    /// Ends the group where all processes have come to its end: afterwards each may end when it likes.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn leave(&self) -> Result<()> {
        let Some(several) = &self.0 else { return Ok(()) };
        self.wait()?;
        if let Some(heartbeat) = several.heartbeat.take() {
            heartbeat.end();
        }
        // Whoever closes its connections, or the store, before the others have what was sent takes it from them.
        let all = |key: &str, count: usize| {
            let until = Instant::now() + LAST_WORDS;
            while Instant::now() < until && several.store.add(key, 0).is_ok_and(|there| there < count as i64) {
                thread::sleep(LOOK);
            }
        };
        several.store.add("left", 1)?;
        all("left", several.size);
        drop((several.processes.take(), several.on_gpus.take()));
        match several.rank {
            0 => all("gone", several.size - 1),
            _ => drop(several.store.add("gone", 1)),
        }
        Ok(())
    }

    pub(crate) fn several(&self) -> Option<&Rc<Several>> {
        self.0.as_ref()
    }
}

impl Several {
    /// Does something with the processes.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&Processes) -> Result<T>) -> Result<T> {
        let processes = self.processes.borrow();
        let processes = processes.as_ref().context("the processes have taken leave of each other")?;
        work(processes).map_err(|error| self.lost(&error))
    }

    /// The same with those that add up tensors on a device, which must be connected by all at once the first time.
    pub(crate) fn on<T>(&self, device: Device, work: impl FnOnce(&Processes) -> Result<T>) -> Result<T> {
        let Device::Cuda(index) = device else { return self.with(work) };
        if self.on_gpus.borrow().is_none() {
            let connect = || Processes::nccl(&self.store, self.rank, self.size, index, ALL_HERE);
            let connected =
                connect().with_context(|| format!("rank {} of {} on cuda:{index}", self.rank, self.size))?;
            self.on_gpus.replace(Some(connected));
        }
        let processes = self.on_gpus.borrow();
        work(processes.as_ref().context("the processes have taken leave of each other")?)
    }

    /// Waits until something that has begun has ended, or a process is lost.
    pub(crate) fn until(&self, mut ended: impl FnMut(Duration) -> Result<bool, libtorch::Error>) -> Result<()> {
        loop {
            if ended(Duration::from_millis(500)).map_err(|error| self.lost(&error.into()))? {
                return Ok(());
            }
            let lost = self.heartbeat.borrow().as_ref().and_then(Heartbeat::lost);
            if let Some(rank) = lost {
                let reason = format!("rank {rank} has shown no sign of life for {} s", crate::LOST_AFTER.as_secs());
                return Err(Lost { rank: self.rank, size: self.size, reason }.into());
            }
        }
    }

    /// What is known of why an operation has failed.
    fn lost(&self, error: &anyhow::Error) -> anyhow::Error {
        if matches!(error.downcast_ref(), Some(libtorch::Error::OutOfMemory(_))) {
            return anyhow::anyhow!("{error:#}");
        }
        let until = Instant::now() + LAST_WORDS / 4;
        let said = format!("{error:#}");
        // Without the place in Gloo's source.
        let mut reason = said
            .split_once(".cc:")
            .and_then(|(_, rest)| rest.split_once("] "))
            .map_or(&*said, |(_, text)| text)
            .to_owned();
        while Instant::now() < until {
            let said = (0..self.size).filter(|rank| *rank != self.rank).find_map(|rank| {
                let said = self.store.get(&failure(rank)).ok()??;
                Some(format!("rank {rank} has ended: {}", String::from_utf8_lossy(&said)))
            });
            if let Some(said) = said {
                reason = said;
                break;
            }
            thread::sleep(LOOK);
        }
        Lost { rank: self.rank, size: self.size, reason }.into()
    }
}

impl Drop for Several {
    fn drop(&mut self) {
        std::mem::forget((self.processes.take(), self.on_gpus.take()));
        std::mem::forget(self.heartbeat.take());
    }
}

/// Of so many pieces of work, which are those of a rank: pieces in a row, and as many as others have, or one more.
pub fn share(pieces: usize, rank: usize, size: usize) -> Range<usize> {
    let (each, more) = (pieces / size, pieces % size);
    let first = rank * each + rank.min(more);
    first..first + each + usize::from(rank < more)
}

/// Waits until each has said that it is there.
fn all_here(store: &Store, rank: usize, size: usize) -> Result<()> {
    let here = |rank: usize| format!("here/{rank}");
    let before = store.add(&here(rank), 1)?;
    ensure!(before == 1, "another process has the same RANK");
    let until = Instant::now() + ALL_HERE;
    for other in 0..size {
        while store.add(&here(other), 0)? == 0 {
            ensure!(Instant::now() < until, "rank {other} has not come within {} minutes", ALL_HERE.as_secs() / 60);
            thread::sleep(LOOK);
        }
    }
    Ok(())
}

fn failure(rank: usize) -> String {
    format!("failure/{rank}")
}
