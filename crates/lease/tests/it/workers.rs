//! Workers that claim one piece of work again and again, some of which die: never are two at it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lease::{Claim, Entry, Holder, Lease, Place};
use proptest::prelude::*;

const EVERY: Duration = Duration::from_millis(60);

/// A place in memory, as a worker on a machine of its own sees it: processes elsewhere are unknown to it.
struct Seen {
    leases: Arc<Mutex<BTreeMap<u64, (Holder, Instant)>>>,
    cut_off: Arc<AtomicBool>,
    /// Of each operation, as over a network.
    delay: Duration,
}

impl Seen {
    fn reach(&self) -> Result<()> {
        thread::sleep(self.delay);
        ensure!(!self.cut_off.load(Ordering::SeqCst), "no network");
        Ok(())
    }
}

impl Place for Seen {
    fn last(&self) -> Result<Option<Entry>> {
        self.reach()?;
        let leases = self.leases.lock().unwrap();
        Ok(leases.iter().next_back().map(|(&number, (holder, written))| Entry {
            number,
            holder: Holder { identity: None, ..holder.clone() },
            age: written.elapsed(),
        }))
    }

    fn create(&self, number: u64, holder: &Holder) -> Result<bool> {
        self.reach()?;
        let mut leases = self.leases.lock().unwrap();
        let free = !leases.contains_key(&number);
        if free {
            leases.insert(number, (holder.clone(), Instant::now()));
        }
        Ok(free)
    }

    fn replace(&self, number: u64, holder: &Holder) -> Result<()> {
        self.reach()?;
        self.leases.lock().unwrap().insert(number, (holder.clone(), Instant::now()));
        Ok(())
    }

    fn remove_below(&self, number: u64) {
        self.leases.lock().unwrap().retain(|lease, _| *lease >= number);
    }
}

/// What a worker does when it has the work.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Finish(u64),
    Die(u64),
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = (0..30u64, prop::bool::weighted(0.15))
        .prop_map(|(ms, dies)| if dies { Turn::Die(ms) } else { Turn::Finish(ms) });
    prop::collection::vec(turn, 1..8)
}

/// From when to when a worker was at it.
type Spans = Arc<Mutex<Vec<(Instant, Instant)>>>;

/// Returns how often it had the work.
fn work(leases: &Arc<Mutex<BTreeMap<u64, (Holder, Instant)>>>, turns: &[Turn], delay: u64, spans: &Spans) -> usize {
    let mut done = 0;
    while let Some(turn) = turns.get(done) {
        let cut_off = Arc::new(AtomicBool::new(false));
        let lost = Arc::new(Mutex::new(None));
        let seen = Seen { leases: leases.clone(), cut_off: cut_off.clone(), delay: Duration::from_micros(delay) };
        let told = lost.clone();
        let on_loss = move || *told.lock().unwrap() = Some(Instant::now());
        let Claim::Ours(lease) = Lease::claim(Box::new(seen), EVERY, on_loss).unwrap() else {
            thread::sleep(Duration::from_millis(2));
            continue;
        };
        let begun = Instant::now();
        let (Turn::Finish(ms) | Turn::Die(ms)) = turn;
        thread::sleep(Duration::from_millis(*ms));
        if let Turn::Die(_) = turn {
            cut_off.store(true, Ordering::SeqCst);
        }
        // A worker that has lost it would have ended then.
        let ended = lost.lock().unwrap().unwrap_or_else(Instant::now);
        spans.lock().unwrap().push((begun, ended));
        drop(lease);
        done += 1;
    }
    done
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_are_two_at_it_and_no_dead_one_keeps_it(
        workers in prop::collection::vec((turns(), 0..3000u64), 2..5),
    ) {
        let (leases, spans) = (Arc::default(), Spans::default());
        let done: usize = thread::scope(|scope| {
            let start = |(turns, delay): &(Vec<Turn>, u64)| {
                let (leases, spans, turns, delay) = (&leases, &spans, turns.clone(), *delay);
                scope.spawn(move || work(leases, &turns, delay, spans))
            };
            let handles: Vec<_> = workers.iter().map(start).collect();
            handles.into_iter().map(|handle| handle.join().unwrap()).sum()
        });
        // Whoever has died has kept nobody from it for ever.
        prop_assert_eq!(done, workers.iter().map(|(turns, _)| turns.len()).sum::<usize>());
        let mut spans = spans.lock().unwrap().clone();
        spans.sort();
        for pair in spans.windows(2) {
            prop_assert!(pair[0].1 <= pair[1].0, "two at once: {:?}", pair);
        }
    }
}

/// It is told one beat earlier, which here is longer than a busy machine keeps a thread waiting.
#[test]
fn a_worker_that_cannot_beat_is_told_before_another_may_claim() {
    let leases = Arc::default();
    let cut_off = Arc::new(AtomicBool::new(false));
    let seen = |cut_off: &Arc<AtomicBool>| {
        Box::new(Seen { leases: Arc::clone(&leases), cut_off: cut_off.clone(), delay: Duration::ZERO })
    };
    let lost = Arc::new(Mutex::new(None));
    let told = lost.clone();
    let on_loss = move || *told.lock().unwrap() = Some(Instant::now());
    let every = Duration::from_millis(500);
    let Claim::Ours(_held) = Lease::claim(seen(&cut_off), every, on_loss).unwrap() else { panic!() };
    cut_off.store(true, Ordering::SeqCst);
    let connected = Arc::new(AtomicBool::new(false));
    let taken_over = loop {
        match Lease::claim(seen(&connected), every, || {}).unwrap() {
            Claim::Ours(_) => break Instant::now(),
            Claim::Theirs { alive, .. } => assert!(!alive),
        }
        thread::sleep(Duration::from_millis(1));
    };
    let told = lost.lock().unwrap().expect("it was told");
    assert!(told < taken_over, "told {:?} late", told - taken_over);
}
