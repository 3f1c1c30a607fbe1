//! The subscriber of a process: log lines, and the spans of a recording.

use std::env;
use std::io;

use anyhow::{Context, Result};
use tracing::span::{Attributes, Id};
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::time::uptime;
use tracing_subscriber::layer::{Context as Scope, Filter, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::recording;
use crate::tree::Name;

/// Lets `write` have log lines, and [`start`](crate::start) record spans. A program calls it once, before it starts threads.
///
/// `filter` says which events are logged: a level, or levels by target, such as `warn` or `info,hub=debug`. The environment
/// variable `RUST_LOG` wins over it. Lines have no colours and no line feed.
///
/// # Errors
/// When `RUST_LOG` or `filter` is not a filter, or the process has a subscriber already.
pub fn install(filter: &str, write: fn(&str)) -> Result<()> {
    let given = env::var("RUST_LOG").ok().filter(|given| !given.is_empty());
    let logged: Targets = match &given {
        Some(given) => given.parse().with_context(|| {
            format!("RUST_LOG is {given:?}, but must be a level (error, warn, info, debug, trace) or TARGET=LEVEL,...")
        })?,
        None => filter.parse().with_context(|| format!("{filter:?} does not name levels of logging"))?,
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_timer(uptime())
        .with_writer(move || Lines(write))
        .with_filter(logged);
    let spans = Spans.with_filter(WhileRecording);
    Ok(tracing_subscriber::registry().with(lines).with(spans).try_init()?)
}

/// Each write is a line.
struct Lines(fn(&str));

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        (self.0)(String::from_utf8_lossy(line).trim_end());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives spans to the recording.
struct Spans;

/// The number in a span's name.
struct Number(Option<u64>);

impl tracing::field::Visit for Number {
    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        if field.name() == "number" {
            self.0 = Some(value);
        }
    }

    fn record_i64(&mut self, field: &tracing::field::Field, value: i64) {
        if let Ok(value) = value.try_into() {
            self.record_u64(field, value);
        }
    }

    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, scope: Scope<'_, S>) {
        let mut number = Number(None);
        attributes.record(&mut number);
        if let (Some(_), Some(span)) = (number.0, scope.span(id)) {
            span.extensions_mut().insert(number);
        }
    }

    fn on_enter(&self, id: &Id, scope: Scope<'_, S>) {
        if let Some(span) = scope.span(id) {
            let number = span.extensions().get::<Number>().and_then(|number| number.0);
            recording::open(id.into_u64(), Name { text: span.name(), number });
        }
    }

    fn on_exit(&self, id: &Id, _: Scope<'_, S>) {
        recording::close(id.into_u64());
    }
}

/// Enables spans while there is a recording. What it says is remembered until `rebuild_interest_cache`.
struct WhileRecording;

impl<S> Filter<S> for WhileRecording {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Scope<'_, S>) -> bool {
        metadata.is_span() && recording::is_on()
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_span() && recording::is_on() { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if recording::is_on() { LevelFilter::TRACE } else { LevelFilter::OFF })
    }
}
