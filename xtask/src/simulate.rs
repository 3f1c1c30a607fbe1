//! `cargo xtask simulate`: many runs on workers that fail, as events in time.
//!
//! The rules are those of `train --batch` and `table run`: a worker loads, takes the first piece that nobody has, saves a checkpoint every
//! so many seconds, and leaves at the piece's end. One that is told to stop saves first; one that dies loses what came after its last
//! checkpoint, and its piece is free again when its lease has gone stale.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

use anyhow::ensure;

/// Simulate a queue of runs on workers that fail: time, GPU hours, and what failures cost
#[derive(clap::Args)]
pub(crate) struct Simulate {
    /// Runs, or cells of a table
    #[arg(long, default_value_t = 1000)]
    pieces: usize,
    /// Workers at once, a GPU each
    #[arg(long, default_value_t = 8)]
    workers: usize,
    /// Seconds of a run, without loading
    #[arg(long, default_value_t = 100.0)]
    seconds: f64,
    #[command(flatten)]
    rules: Rules,
    /// Dollars of a GPU hour
    #[arg(long, default_value_t = 3.0)]
    price: f64,
}

/// What holds for all workers.
#[derive(clap::Args, Debug, Clone, Copy)]
struct Rules {
    /// Seconds until a worker that has started begins to work
    #[arg(long, default_value_t = 8.0)]
    load: f64,
    /// Seconds of work between two checkpoints
    #[arg(long, default_value_t = 15.0)]
    checkpoint_every: f64,
    /// Hours after which a worker is stopped on average; 0 for never
    #[arg(long, default_value_t = 0.0)]
    stopped_after: f64,
    /// The part of these stops that come without a signal
    #[arg(long, default_value_t = 0.0)]
    killed: f64,
    /// Seconds until another worker starts in the place of a stopped one; Slurm takes 120
    #[arg(long, default_value_t = 120.0)]
    requeue: f64,
    /// Seconds until a dead worker's piece is free
    #[arg(long, default_value_t = 60.0)]
    stale: f64,
    /// Keep a worker for the next piece in place of one start a piece
    #[arg(long)]
    keep: bool,
    /// Seed of the failures
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Simulate {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Self { pieces, workers, seconds, rules, price } = self;
        ensure!(workers > 0 && seconds > 0.0, "there must be a worker, and a run must take time");
        let totals = simulate(&vec![seconds; pieces], workers, rules, &mut Failures::of(rules));
        let Totals { starts, done, stopped, killed, .. } = totals;
        terminal::output!("{done} of {pieces} done by {workers} workers in {:.1} h", totals.end / 3600.0);
        let hours = totals.busy / 3600.0;
        terminal::output!("{hours:.1} GPU hours, {:.0} dollars at {price} an hour", hours * price);
        let part = |seconds: f64| 100.0 * seconds / totals.busy;
        terminal::output!(
            "{starts} starts; loading takes {:.1} % of the GPU time, work that is done again {:.1} %",
            part(rules.load * starts as f64),
            part(totals.lost)
        );
        terminal::output!("{stopped} stopped with a checkpoint, {killed} killed");
        Ok(())
    }
}

/// What has come of it.
#[derive(Debug, Default, PartialEq)]
struct Totals {
    /// When the last piece was done, in seconds.
    end: f64,
    /// Seconds of all workers.
    busy: f64,
    /// Seconds of work that had to be done again.
    lost: f64,
    starts: usize,
    done: usize,
    /// Workers that were told to stop, and saved a checkpoint.
    stopped: usize,
    /// Workers that ended without a word.
    killed: usize,
}

/// When workers are stopped.
trait Stops {
    /// Seconds after its start at which a worker is stopped, and whether it is told.
    fn next(&mut self) -> Option<(f64, bool)>;
}

/// At random, equally likely at any moment.
struct Failures {
    state: u64,
    mean: f64,
    killed: f64,
}

impl Failures {
    fn of(rules: Rules) -> Self {
        Self { state: rules.seed, mean: rules.stopped_after * 3600.0, killed: rules.killed }
    }

    /// From 0 to 1: SplitMix64.
    fn random(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Stops for Failures {
    fn next(&mut self) -> Option<(f64, bool)> {
        (self.mean > 0.0).then(|| (-self.mean * (1.0 - self.random()).ln(), self.random() >= self.killed))
    }
}

/// A worker that can take a piece.
#[derive(Debug, Clone, Copy)]
struct Worker {
    /// From when on.
    now: f64,
    /// When it will be stopped, and whether it is told; none before it is started.
    stop: Option<(f64, bool)>,
}

impl PartialEq for Worker {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Worker {}

impl PartialOrd for Worker {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Worker {
    fn cmp(&self, other: &Self) -> Ordering {
        self.now.total_cmp(&other.now)
    }
}

/// A piece that is to be done.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// Seconds of work in checkpoints.
    saved: f64,
    /// All its seconds of work.
    all: f64,
    /// When it is free.
    free: f64,
}

fn simulate(pieces: &[f64], workers: usize, rules: Rules, stops: &mut dyn Stops) -> Totals {
    let mut queue: VecDeque<Waiting> = pieces.iter().map(|&all| Waiting { saved: 0.0, all, free: 0.0 }).collect();
    let mut ready: BinaryHeap<Reverse<Worker>> =
        (0..workers).map(|_| Reverse(Worker { now: 0.0, stop: None })).collect();
    let mut totals = Totals::default();
    while let Some(Reverse(worker)) = ready.pop() {
        let Worker { mut now, stop } = worker;
        // The first piece that is free, or else the one that is free next.
        let free = queue.iter().position(|piece| piece.free <= now);
        let next = || (0..queue.len()).min_by(|&a, &b| queue[a].free.total_cmp(&queue[b].free));
        let Some(place) = free.or_else(next) else { continue };
        let first = queue[place];
        if first.free > now {
            // One that is started already waits with its GPU.
            totals.busy += if stop.is_some() { first.free - now } else { 0.0 };
            ready.push(Reverse(Worker { now: first.free, stop }));
            continue;
        }
        let Some(piece) = queue.remove(place) else { continue };
        let begun = now;
        let (until, told) = stop.unwrap_or_else(|| {
            totals.starts += 1;
            now += rules.load;
            stops.next().map_or((f64::INFINITY, true), |(after, told)| (begun + after, told))
        });
        let finish = now + piece.all - piece.saved;
        if finish <= until {
            totals.done += 1;
            totals.end = totals.end.max(finish);
            totals.busy += finish - begun;
            ready.push(Reverse(Worker { now: finish, stop: rules.keep.then_some((until, told)) }));
            continue;
        }
        let worked = (until - now).max(0.0);
        let kept = if told { worked } else { (worked / rules.checkpoint_every).floor() * rules.checkpoint_every };
        totals.lost += worked - kept;
        *(if told { &mut totals.stopped } else { &mut totals.killed }) += 1;
        let free = if told { until } else { until + rules.stale };
        queue.push_front(Waiting { saved: piece.saved + kept, free: free.max(begun), ..piece });
        totals.busy += (until - begun).max(0.0);
        ready.push(Reverse(Worker { now: until.max(begun) + rules.requeue, stop: None }));
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        load: 2.0,
        checkpoint_every: 10.0,
        stopped_after: 0.0,
        killed: 0.0,
        requeue: 120.0,
        stale: 60.0,
        keep: false,
        seed: 1,
    };

    /// The stops of workers in the order of their starts.
    struct Given(VecDeque<Option<(f64, bool)>>);

    impl Stops for Given {
        fn next(&mut self) -> Option<(f64, bool)> {
            self.0.pop_front().flatten()
        }
    }

    fn given(stops: &[Option<(f64, bool)>]) -> Given {
        Given(stops.iter().copied().collect())
    }

    /// crates/cli/tests/slurm.rs: four cells of 1, 1, 1 and 60 steps on two processors, of which the last is told to stop within the 60.
    #[test]
    fn the_array_of_the_slurm_test_comes_out_as_it_does_there() {
        let stops = &mut given(&[None, None, None, Some((12.0, true))]);
        let totals = simulate(&[1.0, 1.0, 1.0, 60.0], 2, RULES, stops);
        // Its logs have each cell begun once, the last one twice, and each of 63 steps once.
        assert_eq!((totals.starts, totals.done, totals.stopped, totals.killed), (5, 4, 1, 0));
        assert_eq!(totals.lost, 0.0);
        assert_eq!(totals.busy, 63.0 + 5.0 * RULES.load);
        // The second start comes after Slurm's two minutes, which the test cuts short: 3 + 12 + 2 + (60 - 10), and those.
        assert_eq!(totals.end, 3.0 + 12.0 + 2.0 + 50.0);
    }

    #[test]
    fn a_killed_worker_loses_what_came_after_its_checkpoint() {
        let totals = simulate(&[100.0], 1, RULES, &mut given(&[Some((37.0, false))]));
        // 35 seconds of work, of which 30 are saved.
        assert_eq!((totals.starts, totals.done, totals.killed, totals.lost), (2, 1, 1, 5.0));
        // The requeued worker comes after the lease has gone stale.
        assert_eq!(totals.end, 37.0 + 120.0 + 2.0 + 70.0);
        let another = simulate(&[100.0], 2, RULES, &mut given(&[Some((37.0, false))]));
        assert_eq!(another.end, 37.0 + 60.0 + 2.0 + 70.0);
    }

    #[test]
    fn without_failures_it_is_arithmetic_and_with_them_all_is_done() {
        let totals = simulate(&[10.0; 100], 8, RULES, &mut Failures::of(RULES));
        assert_eq!((totals.busy, totals.end, totals.starts), (1200.0, 13.0 * 12.0, 100));
        let kept = simulate(&[10.0; 100], 8, Rules { keep: true, ..RULES }, &mut Failures::of(RULES));
        assert_eq!((kept.busy, kept.starts), (1016.0, 8));
        let failing = Rules { stopped_after: 0.02, killed: 0.5, ..RULES };
        let totals = simulate(&[60.0; 200], 8, failing, &mut Failures::of(failing));
        assert_eq!(totals.done, 200);
        assert!(totals.killed > 10 && totals.stopped > 10, "{totals:?}");
        // What was loaded, done, and done again is all the time of all workers, but for loading that was cut short.
        let work = 200.0 * 60.0 + totals.lost;
        assert!(totals.busy > work && totals.busy <= work + failing.load * totals.starts as f64, "{totals:?}");
    }
}
