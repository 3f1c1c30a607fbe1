//! The trace event format of Chrome, as JSON.

use std::io::{BufWriter, Result, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::Profile;

/// A span: a complete event.
#[derive(Serialize)]
struct Complete<'a> {
    name: &'a str,
    cat: &'a str,
    ph: &'a str,
    /// Its start in microseconds.
    ts: f64,
    /// Microseconds.
    dur: f64,
    pid: u32,
    tid: usize,
}

/// There is one process.
const PROCESS: u32 = 1;

impl Profile {
    /// Writes the spans in the order in which they began, as JSON that `chrome://tracing` and `ui.perfetto.dev` open. The
    /// category of a span is what its name has before the slash.
    ///
    /// # Errors
    /// When `to` cannot be written.
    pub fn write_trace(&self, to: impl Write) -> Result<()> {
        let mut to = BufWriter::new(to);
        to.write_all(b"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
        for (number, &group) in self.threads.iter().enumerate() {
            if number > 0 {
                to.write_all(b",")?;
            }
            write!(to, "\n{}", thread_name(number, self.groups[group].thread.as_deref()))?;
        }
        for event in &self.events {
            let group = &self.groups[self.threads[event.thread as usize]];
            let name = group.tree.node(event.node as usize).name;
            let complete = Complete {
                name: &name.to_string(),
                cat: name.area(),
                ph: "X",
                ts: event.start.as_nanos() as f64 / 1e3,
                dur: event.nanoseconds as f64 / 1e3,
                pid: PROCESS,
                tid: event.thread as usize,
            };
            to.write_all(b",\n")?;
            serde_json::to_writer(&mut to, &complete)?;
        }
        to.write_all(b"\n]}\n")?;
        to.flush()
    }
}

/// A metadata event.
fn thread_name(number: usize, name: Option<&str>) -> Value {
    let name = name.map_or_else(|| format!("thread {number}"), str::to_owned);
    json!({ "name": "thread_name", "ph": "M", "pid": PROCESS, "tid": number, "args": { "name": name } })
}
