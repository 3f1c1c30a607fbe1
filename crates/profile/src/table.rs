//! The table for people.

use std::fmt;
use std::time::Duration;

use crate::Profile;
use crate::tree::Tree;

/// A line: the first column with its indentation, and the others.
struct Row {
    label: String,
    calls: Option<u64>,
    total: Duration,
    own: Option<Duration>,
}

impl Row {
    /// What is known by its time alone.
    fn sum(label: &str, total: Duration) -> Self {
        Self { label: label.to_owned(), calls: None, total, own: None }
    }
}

/// The nodes below `parent`, each followed by those below itself.
fn rows(tree: &Tree, parent: Option<usize>, depth: usize, to: &mut Vec<Row>) {
    for &child in tree.children(parent) {
        let node = tree.node(child);
        let label = format!("{:1$}{2}", "", 2 * depth, node.name);
        to.push(Row { label, calls: Some(node.calls), total: node.total, own: Some(tree.own(child)) });
        rows(tree, Some(child), depth + 1, to);
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sections = self.groups.iter().enumerate().map(|(i, group)| {
            let mut section = Vec::new();
            rows(&group.tree, None, 0, &mut section);
            if i == 0 {
                section.push(Row::sum("(in no span)", self.wall.saturating_sub(group.tree.covered(None))));
                section.push(Row::sum("(all)", self.wall));
            }
            (i, group.thread.as_deref(), section)
        });
        let sections: Vec<_> = sections.collect();
        let labels = sections.iter().flat_map(|(_, _, rows)| rows).map(|row| row.label.chars().count());
        let width = labels.max().unwrap_or(0);
        writeln!(f, "{:width$} {:>8} {:>10} {:>10} {:>7}", "", "calls", "total s", "self s", "share")?;
        for (i, thread, section) in sections {
            match (i, thread) {
                (0, _) => {}
                (_, Some(thread)) => writeln!(f, "at the same time, in the thread \"{thread}\":")?,
                (_, None) => writeln!(f, "at the same time, in threads without a name:")?,
            }
            for row in section {
                let calls = row.calls.map_or_else(String::new, |calls| calls.to_string());
                let own = row.own.map_or_else(String::new, |own| format!("{:.3}", own.as_secs_f64()));
                let total = row.total.as_secs_f64();
                let share = 100.0 * total / self.wall.as_secs_f64().max(f64::MIN_POSITIVE);
                writeln!(f, "{:width$} {calls:>8} {total:>10.3} {own:>10} {share:>5.1} %", row.label)?;
            }
        }
        if self.left_out > 0 {
            writeln!(
                f,
                "the trace has the first {} spans; {} more are in this table only",
                self.events.len(),
                self.left_out
            )?;
        }
        Ok(())
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
