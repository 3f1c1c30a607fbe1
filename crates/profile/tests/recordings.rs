//! Recordings as a program makes them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::Duration;

use profile::{Profile, Recording};
use serde_json::Value;
use tracing::trace_span;

/// The log.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A process has one recording; the tests take turns.
fn start() -> (MutexGuard<'static, ()>, Recording) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| profile::install("info", |line| LINES.lock().unwrap().push(line.to_owned())).unwrap());
    (turn, profile::start(None).unwrap())
}

fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

fn events(profile: &Profile) -> Vec<Value> {
    let mut trace = Vec::new();
    profile.write_trace(&mut trace).unwrap();
    let trace: Value = serde_json::from_slice(&trace).unwrap();
    trace["traceEvents"].as_array().unwrap().clone()
}

fn spans(profile: &Profile) -> Vec<Value> {
    events(profile).into_iter().filter(|event| event["ph"] == "X").collect()
}

fn names(profile: &Profile) -> Vec<String> {
    spans(profile).iter().map(|span| span["name"].as_str().unwrap().to_owned()).collect()
}

/// Start and end in microseconds.
fn times(span: &Value) -> (f64, f64) {
    let (start, duration) = (span["ts"].as_f64().unwrap(), span["dur"].as_f64().unwrap());
    assert!(start >= 0.0 && duration >= 0.0);
    (start, start + duration)
}

/// The line of the table for `label`, indented as it is, as columns.
fn row(table: &str, label: &str) -> Vec<f64> {
    let line = table.lines().find(|line| line.starts_with(&format!("{label} "))).unwrap_or_else(|| panic!("{table}"));
    let columns = line[label.len()..].split_whitespace().filter(|column| *column != "%");
    columns.map(|column| column.parse().unwrap()).collect()
}

#[test]
fn spans_nest_and_a_span_has_what_its_parts_have_not() {
    let (_turn, recording) = start();
    for _ in 0..2 {
        let _step = trace_span!("a/step").entered();
        pause(4);
        for part in 0..3 {
            trace_span!("a/part", number = part).in_scope(|| pause(2));
        }
    }
    trace_span!("b").in_scope(|| pause(3));
    pause(5);
    let profile = recording.stop();
    let table = profile.to_string();

    let [step, part, b] = ["a/step", "  a/part.2", "b"].map(|label| row(&table, label));
    assert_eq!([step[0], part[0], b[0]], [2.0, 2.0, 1.0]);
    let parts: f64 = (0..3).map(|part| row(&table, &format!("  a/part.{part}"))[1]).sum();
    let rounding = 0.0031;
    assert!((step[1] - parts - step[2]).abs() < rounding && step[2] >= 0.008 && parts >= 0.012, "{table}");
    // What is at the top, and what no span has, is all.
    let [uncovered, all] = ["(in no span)", "(all)"].map(|label| row(&table, label));
    assert!((step[1] + b[1] + uncovered[0] - all[0]).abs() < rounding && uncovered[0] >= 0.005, "{table}");
    assert!(all[1] == 100.0 && (step[3] + b[3] + uncovered[1] - 100.0).abs() < 0.3, "{table}");
}

#[test]
fn the_trace_has_each_span_within_its_parent() {
    let (_turn, recording) = start();
    fn nest(depth: usize) {
        let _span = trace_span!("nest/level", number = depth).entered();
        if depth < 3 {
            (0..2).for_each(|_| nest(depth + 1));
        }
    }
    nest(0);
    let spans = spans(&recording.stop());
    assert_eq!(spans.len(), 15);
    let mut parents: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for span in &spans {
        let name = span["name"].as_str().unwrap();
        assert_eq!((&span["cat"], &span["pid"], &span["tid"]), (&"nest".into(), &1.into(), &0.into()));
        let (start, end) = times(span);
        let level: usize = name.rsplit('.').next().unwrap().parse().unwrap();
        if level > 0 {
            // Spans come in the order in which they began.
            let (from, to) = parents[&format!("nest/level.{}", level - 1)];
            let nanosecond = 1e-3;
            assert!(from <= start && end <= to + nanosecond / 2.0, "{spans:#?}");
        }
        parents.insert(name.to_owned(), (start, end));
    }
}

#[test]
fn a_thread_is_shown_beside_what_records() {
    let (_turn, recording) = start();
    {
        let _outer = trace_span!("main/outer").entered();
        for _ in 0..2 {
            let work = || trace_span!("beside/work").in_scope(|| pause(10));
            thread::Builder::new().name("worker \"1\"".to_owned()).spawn(work).unwrap().join().unwrap();
        }
        thread::spawn(|| trace_span!("beside/nameless").in_scope(|| ())).join().unwrap();
    }
    let profile = recording.stop();
    let table = profile.to_string();
    let (first, beside) = table.split_once("at the same time, in the thread \"worker \"1\"\":\n").unwrap();
    assert!(!first.contains("beside/") && beside.contains("threads without a name:\nbeside/nameless"), "{table}");
    assert_eq!(row(beside, "beside/work")[0], 2.0);
    assert!(row(first, "main/outer")[2] >= 0.02, "{table}");

    let threads: BTreeMap<u64, String> = (events(&profile).iter())
        .filter(|event| event["ph"] == "M" && event["name"] == "thread_name")
        .map(|event| (event["tid"].as_u64().unwrap(), event["args"]["name"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(threads.len(), 4);
    assert_eq!([&threads[&1], &threads[&2], &threads[&3]], ["worker \"1\"", "worker \"1\"", "thread 3"]);
    for span in spans(&profile) {
        let own = span["cat"] == "main";
        assert_eq!(span["tid"] == 0, own);
    }
}

#[test]
fn spans_outside_a_recording_leave_nothing() {
    let (_turn, recording) = start();
    drop(recording);
    let before = trace_span!("before").entered();
    let recording = profile::start(None).unwrap();
    assert!(profile::start(None).is_none());
    drop(before);
    let open = trace_span!("open").entered();
    let profile = recording.stop();
    drop(trace_span!("after").entered());
    assert_eq!(names(&profile), ["open"]);
    // One recording's span is nothing to the next.
    let next = profile::start(None).unwrap();
    trace_span!("next").in_scope(|| drop(open));
    assert_eq!(names(&next.stop()), ["next"]);
}

#[test]
fn spans_that_end_in_any_order_stay_nested() {
    let (_turn, recording) = start();
    let outer = trace_span!("outer").entered();
    let inner = trace_span!("inner").entered();
    drop(outer);
    let next = trace_span!("next").entered();
    let within = trace_span!("within").entered();
    drop(inner);
    pause(2);
    drop(within);
    drop(next);
    let table = recording.stop().to_string();
    for label in ["outer", "  inner", "next", "  within"] {
        assert_eq!(row(&table, label)[0], 1.0, "{table}");
    }
    assert!(row(&table, "  within")[1] >= 0.002, "{table}");
}

#[test]
fn a_panic_closes_what_it_leaves_and_waits_for_nothing() {
    let (_turn, recording) = start();
    drop(recording);
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let wait = move || {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    let recording = profile::start(Some(Box::new(wait))).unwrap();
    trace_span!("fine").in_scope(|| ());
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    let failed = std::panic::catch_unwind(|| trace_span!("failed").in_scope(|| panic!("as expected")));
    assert!(failed.is_err());
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    trace_span!("after").in_scope(|| ());
    let table = recording.stop().to_string();
    assert!(table.contains("\nfailed ") && table.contains("\nafter "), "{table}");
}

#[test]
fn the_wait_for_the_device_is_the_parents_before_a_span_and_its_own_after() {
    let (_turn, recording) = start();
    drop(recording);
    let recording = profile::start(Some(Box::new(|| pause(4)))).unwrap();
    {
        let _outer = trace_span!("outer").entered();
        trace_span!("inner").in_scope(|| ());
    }
    let table = recording.stop().to_string();
    let [outer, inner] = ["outer", "  inner"].map(|label| row(&table, label));
    assert!(inner[1] >= 0.004 && outer[2] >= 0.008, "{table}");
}

#[test]
fn events_of_the_level_are_logged_with_their_fields_whether_there_is_a_recording_or_not() {
    let (_turn, recording) = start();
    tracing::info!(photos = 3, "opened the folder");
    tracing::debug!("a detail");
    drop(recording);
    tracing::warn!("a dog\u{1b}[2J");
    let lines: Vec<String> = LINES.lock().unwrap().clone();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].ends_with(" INFO recordings: opened the folder photos=3"), "{lines:?}");
    assert!(lines[1].contains(" WARN recordings: a dog"), "{lines:?}");
    // A process has one subscriber.
    assert!(profile::install("info", |_| ()).is_err());
}
