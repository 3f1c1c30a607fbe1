//! Leases at a URL.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use lease::{Entry, Holder, Place};
use serde::Serialize;

use crate::patience::Patience;
use crate::store::{Object, Store, random};

const PREFIX: &str = "lease-";
const SUFFIX: &str = ".json";
/// A lease has some hundred bytes.
const LONGEST: u64 = 1 << 16;

/// Leases as files `lease-N.json`, the same as in a folder.
#[derive(Debug)]
pub struct Leases {
    patient: Store,
    /// For heartbeats.
    brief: Store,
    held: AtomicBool,
    claim: String,
}

/// A lease as it is written.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    holder: &'a Holder,
    /// What nobody else writes: where an answer is lost, it tells whose the lease is.
    claim: &'a str,
}

impl Leases {
    /// Those in a folder of a store; `brief` is the same one with little patience ([`Leases::brief`]).
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn new(store: &Store, brief: &Store, folder: &str) -> Result<Self> {
        Ok(Self {
            patient: store.within(folder)?,
            brief: brief.within(folder)?,
            held: AtomicBool::new(false),
            claim: random()?,
        })
    }

    /// A store for the heartbeats of all leases at a URL.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn brief(url: &str) -> Result<Store> {
        Store::open_with(url, Patience::SHORT)
    }

    /// Who has the lease must know in time whether it is lost; who asks for it can wait.
    fn store(&self) -> &Store {
        if self.held.load(Ordering::Relaxed) { &self.brief } else { &self.patient }
    }

    fn text(&self, holder: &Holder) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(&Written { holder, claim: &self.claim })?)
    }

    fn all(&self) -> Result<Vec<(u64, Object)>> {
        let number = |object: &Object| object.name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok();
        let numbered = self.store().list()?.into_iter().filter_map(|object| Some((number(&object)?, object)));
        Ok(numbered.collect())
    }
}

fn name(number: u64) -> String {
    format!("{PREFIX}{number}{SUFFIX}")
}

impl Place for Leases {
    fn last(&self) -> Result<Option<Entry>> {
        loop {
            let Some((number, object)) = self.all()?.into_iter().max_by_key(|(number, _)| *number) else {
                return Ok(None);
            };
            // Another worker has removed it, for there is a higher one.
            let Some(bytes) = self.store().read(&object.name, LONGEST)? else { continue };
            let holder = serde_json::from_slice(&bytes)
                .ok()
                .with_context(|| format!("{}/{} is not a lease", self.patient.url(), object.name))?;
            return Ok(Some(Entry { number, holder, age: self.patient.age(object.written)? }));
        }
    }

    fn create(&self, number: u64, holder: &Holder) -> Result<bool> {
        let created = self.patient.create(&name(number), &self.text(holder)?)?;
        self.held.store(created, Ordering::Relaxed);
        Ok(created)
    }

    fn replace(&self, number: u64, holder: &Holder) -> Result<()> {
        self.store().replace(&name(number), &self.text(holder)?)
    }

    fn remove_below(&self, number: u64) {
        for (lower, object) in self.all().unwrap_or_default() {
            if lower < number {
                let _ = self.patient.remove(&object.name);
            }
        }
    }
}
