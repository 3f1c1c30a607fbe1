//! Numbers as JSON and as a table.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use super::worker::Measured;

/// Some work of ours against a baseline's.
#[derive(Serialize)]
pub(super) struct Row {
    work: &'static str,
    against: &'static str,
    target: Option<f64>,
    /// Our time divided by the baseline's, of each round, smallest first.
    ratios: Vec<f64>,
    ours: Vec<Measured>,
    theirs: Vec<Measured>,
}

impl Row {
    pub(super) fn new(
        work: &'static str,
        against: &'static str,
        target: Option<f64>,
        pairs: &[(Measured, Measured)],
    ) -> Self {
        let mut ratios: Vec<f64> = pairs.iter().map(|(ours, theirs)| ours.best() / theirs.best()).collect();
        ratios.sort_by(f64::total_cmp);
        let (ours, theirs) = pairs.iter().cloned().unzip();
        Self { work, against, target, ratios, ours, theirs }
    }
}

/// Of numbers in ascending order.
fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The table of a comparison, header first.
pub(super) fn comparison(rows: &[Row]) -> Vec<Vec<String>> {
    let header =
        ["work", "ours", "against", "theirs", "ours / theirs", "from - to", "target", "peak memory, ours / theirs"];
    let mut table = vec![header.map(str::to_owned).to_vec()];
    for Row { work, against, target, ratios, ours, theirs } in rows {
        let middle = |measured: &[Measured]| {
            let mut best: Vec<f64> = measured.iter().map(Measured::best).collect();
            best.sort_by(f64::total_cmp);
            seconds(median(&best))
        };
        let memory = |measured: &[Measured]| {
            let most = measured.iter().map(|measured| measured.peak_memory_bytes).max().unwrap_or_default();
            format!("{:.2} GB", most as f64 / 1e9)
        };
        let ratio = median(ratios);
        let verdict = target.map_or(String::new(), |target| {
            format!("{} {target}", if ratio <= target { "at most" } else { "**missed**: at most" })
        });
        let compiling = theirs.iter().filter_map(|measured| measured.compile_seconds).reduce(f64::min);
        let against = compiling.map_or_else(|| (*against).to_owned(), |time| format!("{against} in {}", seconds(time)));
        let (least, most) = (ratios.first().unwrap_or(&f64::NAN), ratios.last().unwrap_or(&f64::NAN));
        table.push(vec![
            (*work).to_owned(),
            middle(ours),
            against,
            middle(theirs),
            format!("**{ratio:.2}**"),
            format!("{least:.2} - {most:.2}"),
            verdict,
            format!("{} / {}", memory(ours), memory(theirs)),
        ]);
    }
    table
}

pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

/// Writes the numbers to a JSON file.
pub(super) fn write(path: &Path, numbers: &impl Serialize) -> anyhow::Result<()> {
    let say = || format!("cannot write {}", path.display());
    fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).with_context(say)?;
    atomic::write(path, serde_json::to_vec_pretty(numbers)?)
}

/// Makes sure that the numbers and the table beside them are new, or those of an earlier call.
pub(super) fn ensure_own(path: &Path) -> anyhow::Result<()> {
    let is_own = |path: &Path| {
        let numbers: Value =
            fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        numbers["machine"].is_object() && (numbers["rows"].is_array() || numbers["points"].is_array())
    };
    atomic::ensure_ours(path, "the numbers of a bench", is_own)?;
    atomic::ensure_ours(&path.with_extension("md"), "the table of a bench", |_| is_own(path))
}

/// Prints a Markdown table, and writes it beside the JSON file `path`.
pub(super) fn table(path: &Path, title: &str, rows: &[Vec<String>]) -> anyhow::Result<()> {
    let mut text = format!("{title}\n\n");
    for (number, row) in rows.iter().enumerate() {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
        if number == 0 {
            text.push_str(&format!("|{}\n", "---|".repeat(row.len())));
        }
    }
    terminal::output!("{}", text.trim_end());
    let path = path.with_extension("md");
    atomic::write(&path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_of_an_earlier_call_are_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let (path, table) = (folder.path().join("n.json"), folder.path().join("n.md"));
        ensure_own(&path).unwrap();
        fs::write(&table, "").unwrap();
        assert!(ensure_own(&path).unwrap_err().to_string().contains("n.md: it exists and is not the table of a bench"));
        write(&path, &serde_json::json!({ "machine": {}, "rows": [] })).unwrap();
        ensure_own(&path).unwrap();
        fs::write(&path, "{}").unwrap();
        assert!(ensure_own(&path).unwrap_err().to_string().contains("n.json: it exists and is not the numbers"));
    }

    #[test]
    fn ratios_are_of_the_fastest_runs_of_each_turn_and_the_middle_one_counts() {
        let measured = |seconds: &[f64]| Measured {
            seconds: seconds.to_vec(),
            check: 0.0,
            peak_memory_bytes: 2_000_000_000,
            first_step_seconds: None,
            compile_seconds: None,
        };
        let pair = |ours: &[f64], theirs: &[f64]| (measured(ours), measured(theirs));
        let pairs = [pair(&[9.0, 1.0], &[2.0, 3.0]), pair(&[3.0], &[4.0]), pair(&[1.0], &[10.0])];
        let row = Row::new("work", "baseline", Some(0.4), &pairs);
        assert_eq!(row.ratios, [0.1, 0.5, 0.75]);
        let table = comparison(&[row]);
        assert_eq!(table[1][3..7], ["4.00 s", "**0.50**", "0.10 - 0.75", "**missed**: at most 0.4"]);
        assert_eq!(table[1][7], "2.00 GB / 2.00 GB");
    }
}
