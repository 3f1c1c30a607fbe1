//! Scenes rendered ahead, while the models compute.

use std::thread::JoinHandle;

use anyhow::{Result, anyhow};
use libtorch::random;
use scenes::Split;

use crate::sources::{Pairs, Sources};

/// Batches of training scenes by their number.
pub(crate) struct Prefetch {
    sources: Sources,
    seed: u64,
    seeds: usize,
    family: usize,
    next: Option<(u64, JoinHandle<Pairs>)>,
}

impl Prefetch {
    pub(crate) fn new(sources: &Sources, seed: u64, batch_size: usize) -> Self {
        Self::families(sources, seed, batch_size, 1)
    }

    /// Batches of `count` families of `size` scenes each (`Scene::family`).
    pub(crate) fn families(sources: &Sources, seed: u64, count: usize, size: usize) -> Self {
        Self { sources: sources.clone(), seed, seeds: count, family: size, next: None }
    }

    /// Batch `number`; the one after it is begun.
    pub(crate) fn batch(&mut self, number: u64) -> Result<Pairs> {
        let rendering = match self.next.take() {
            Some((prepared, rendering)) if prepared == number => rendering,
            _ => self.start(number),
        };
        let pairs = rendering.join().map_err(|_| anyhow!("the thread that renders scenes has failed"))?;
        self.next = Some((number + 1, self.start(number + 1)));
        Ok(pairs)
    }

    fn start(&self, number: u64) -> JoinHandle<Pairs> {
        let sources = self.sources.clone();
        let (first, family) = (number * self.seeds as u64, self.family);
        let seeds = (first..first + self.seeds as u64).map(|i| random::derive(self.seed, "scene", i)).collect();
        std::thread::spawn(move || {
            let seeds: Vec<u64> = seeds;
            sources.families(&seeds, Split::Training, family)
        })
    }
}
