//! A table for readers.

use std::fmt::Write;

use statistics::{Compared, Estimate, Verdict};

use crate::{Cost, Row, Table};

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns.
    Text,
    /// Markdown.
    Markdown,
    /// A `tabular` of LaTeX, with booktabs' rules.
    Latex,
    /// Comma-separated values, with all numbers.
    Csv,
}

const HEAD: [&str; 8] = [
    "",
    "identity (CLIP-I)",
    "DINO-I",
    "text (CLIP-T)",
    "obeyed",
    "identity, difference",
    "text, difference",
    "training",
];

impl Table {
    /// The table in a form.
    pub fn show(&self, format: Format) -> String {
        match format {
            Format::Text => self.text(),
            Format::Markdown => self.markdown(),
            Format::Latex => self.latex(),
            Format::Csv => self.csv(),
        }
    }

    /// What the numbers are, in sentences.
    pub fn notes(&self) -> Vec<String> {
        let level = 100.0 * self.bootstrap.level;
        let mut notes = vec![
            format!(
                "{} subjects ({}), {} training {}, {} prompts ({}), {} images each, scored by {}.",
                self.subjects.len(),
                self.subjects.join(", "),
                self.seeds.len(),
                if self.seeds.len() == 1 { "seed" } else { "seeds" },
                self.prompts,
                self.prompt_set,
                self.images,
                self.judge.name
            ),
            format!(
                "Intervals ({level} %): subjects and prompts resampled as wholes, training seeds and images within them, {} times.",
                self.bootstrap.resamples
            ),
            format!(
                "Differences: {} less the method, paired. By Holm's procedure over all of them: + where {} is better (the interval beyond \
                 0), - where it is not better by {} in identity or {} in text (wholly below), ? where it cannot be told.",
                self.reference, self.reference, self.margin.identity, self.margin.text
            ),
        ];
        if self.rows.iter().any(|row| row.obeyed.is_some()) {
            notes.push(
                "Obeyed: the share of images that show all that their prompts ask for beside the subject, read by the judge.".to_owned(),
            );
        }
        if !self.left_out.is_empty() {
            let (count, all) = (self.left_out.len(), self.left_out.join("; "));
            notes.push(format!("Left out, for the base model does not obey them ({count}): {all}."));
        }
        if !self.missing.is_empty() {
            notes.push(format!("{} cells are not done; their subjects are left out.", self.missing.len()));
        }
        notes
    }

    /// The head and a line for each row, with as many cells.
    fn lines(&self) -> Vec<Vec<String>> {
        let row = |row: &Row| {
            let difference = |compared: Option<(Compared, Verdict)>| {
                compared.map_or_else(String::new, |(compared, verdict)| {
                    format!("{} {}", signed(compared.difference), sign(verdict))
                })
            };
            let against = row.against.as_ref();
            [
                row.name.clone(),
                interval(row.identity),
                row.dino.map_or_else(String::new, interval),
                interval(row.text),
                row.obeyed.map_or_else(String::new, interval),
                difference(against.map(|against| (against.identity, against.identity_verdict))),
                difference(against.map(|against| (against.text, against.text_verdict))),
                row.cost.as_ref().map_or_else(String::new, cost),
            ]
        };
        let mut lines: Vec<Vec<String>> =
            std::iter::once(HEAD.map(str::to_owned)).chain(self.rows.iter().map(row)).map(Vec::from).collect();
        // What no row has is no column.
        let empty = |column: usize| lines[1..].iter().all(|line| line[column].is_empty());
        let kept: Vec<bool> = (0..HEAD.len()).map(|column| column == 0 || !empty(column)).collect();
        for line in &mut lines {
            let mut kept = kept.iter();
            line.retain(|_| kept.next().copied().unwrap_or(true));
        }
        lines
    }

    fn text(&self) -> String {
        let rows = self.lines();
        let widths: Vec<usize> =
            (0..rows[0].len()).map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
        let mut text = String::new();
        for row in rows {
            let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            text.push_str(line.join("  ").trim_end());
            text.push('\n');
        }
        text + "\n" + &self.notes().join("\n") + "\n"
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let escaped: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", escaped.join(" | "))
        };
        let lines = self.lines();
        let mut text = line(&lines[0]) + &"|---".repeat(lines[0].len()) + "|\n";
        lines[1..].iter().for_each(|row| text.push_str(&line(row)));
        text + "\n" + &self.notes().join("\n") + "\n"
    }

    fn latex(&self) -> String {
        let line = |cells: &[String]| {
            let escaped: Vec<String> = cells.iter().map(|cell| latex(cell)).collect();
            format!("{} \\\\\n", escaped.join(" & "))
        };
        let lines = self.lines();
        let columns = format!("l{}", "r".repeat(lines[0].len() - 1));
        let mut text = format!("\\begin{{tabular}}{{{columns}}}\n\\toprule\n{}\\midrule\n", line(&lines[0]));
        for (i, row) in lines[1..].iter().enumerate() {
            // Below the bounds.
            if i == 2 {
                text.push_str("\\midrule\n");
            }
            text.push_str(&line(row));
        }
        text.push_str("\\bottomrule\n\\end{tabular}\n");
        self.notes().iter().for_each(|note| text.push_str(&format!("% {note}\n")));
        text
    }

    fn csv(&self) -> String {
        let mut text = String::from(
            "row,prompts,identity,identity_low,identity_high,dino,dino_low,dino_high,text,text_low,text_high,obeyed,obeyed_low,obeyed_high,identity_difference,identity_difference_low,\
             identity_difference_high,identity_p,identity_p_holm,identity_verdict,text_difference,text_difference_low,\
             text_difference_high,text_p,text_p_holm,text_verdict,train_seconds,steps,peak_memory_bytes,trained_parameters,\
             learned_bytes,generate_seconds,embedding_cosine\n",
        );
        let estimate = |e: &Estimate| format!("{},{},{}", e.mean, e.low, e.high);
        for row in &self.rows {
            let some = |e: &Option<Estimate>| e.as_ref().map_or_else(|| ",,".to_owned(), estimate);
            let (dino, obeyed) = (some(&row.dino), some(&row.obeyed));
            let (identity, of_text) = (estimate(&row.identity), estimate(&row.text));
            let mut line = format!("{},all,{identity},{dino},{of_text},{obeyed}", quoted(&row.name));
            match &row.against {
                Some(against) => {
                    let pairs = [(against.identity, against.identity_verdict), (against.text, against.text_verdict)];
                    for (Compared { difference, p_value, adjusted_p_value, .. }, verdict) in pairs {
                        let _ =
                            write!(line, ",{},{p_value},{adjusted_p_value},{}", estimate(&difference), word(verdict));
                    }
                }
                None => line.push_str(&",".repeat(12)),
            }
            match &row.cost {
                Some(Cost { train_seconds, steps, peak_memory, trained_parameters, learned_bytes }) => {
                    let _ = write!(line, ",{train_seconds},{steps},{peak_memory},{trained_parameters},{learned_bytes}");
                }
                None => line.push_str(&",".repeat(5)),
            }
            let cosine = row.embedding_cosine.map_or_else(String::new, |cosine| cosine.to_string());
            let _ = writeln!(text, "{line},{},{cosine}", row.generate_seconds);
            for kind in &row.kinds {
                let (name, kind_name) = (quoted(&row.name), quoted(&kind.kind));
                let (identity, of_text, obeyed) = (estimate(&kind.identity), estimate(&kind.text), some(&kind.obeyed));
                let rest = ",".repeat(19);
                let _ = writeln!(text, "{name},{kind_name},{identity},,,,{of_text},{obeyed}{rest}");
            }
        }
        text
    }
}

fn interval(Estimate { mean, low, high }: Estimate) -> String {
    format!("{mean:.3} [{low:.3}, {high:.3}]")
}

fn signed(Estimate { mean, low, high }: Estimate) -> String {
    format!("{mean:+.3} [{low:+.3}, {high:+.3}]")
}

fn sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "+",
        Verdict::DoesNotHold => "-",
        Verdict::CannotBeTold => "?",
    }
}

/// A verdict as people read it.
pub(crate) fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "holds",
        Verdict::DoesNotHold => "does not hold",
        Verdict::CannotBeTold => "cannot be told",
    }
}

fn cost(cost: &Cost) -> String {
    let millions = cost.trained_parameters as f64 / 1e6;
    let megabytes = cost.learned_bytes as f64 / 1e6;
    format!("{:.0} s, {} steps, {millions:.2} M parameters, {megabytes:.1} MB", cost.train_seconds, cost.steps)
}

/// A text that LaTeX prints as it is.
fn latex(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\textbackslash{}"),
            '~' => escaped.push_str("\\textasciitilde{}"),
            '^' => escaped.push_str("\\textasciicircum{}"),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A text as a field of comma-separated values (RFC 4180). One that a spreadsheet would take for a formula is made a text.
fn quoted(text: &str) -> String {
    let text = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::tests::plan;
    use crate::table::tests::record;

    fn table() -> Table {
        let mut plan = plan();
        plan.methods[1].name = "50 % & =1, \"x\"|y".to_owned();
        Table::of(&plan, |cell| Ok(Some(record(cell)))).unwrap()
    }

    #[test]
    fn each_form_has_all_rows_and_no_text_breaks_it() {
        let table = table();
        let text = table.show(Format::Text);
        assert!(text.contains("-0.050 [-0.050, -0.050] -") && text.contains("+0.120 [+0.120, +0.120] +"), "{text}");
        assert!(
            text.contains(
                "2 subjects (rex, tom), 1 training seed, 24 prompts (ours24), 2 images each, scored by judge."
            )
        );
        let markdown = table.show(Format::Markdown);
        let rows: Vec<&str> = markdown.lines().take_while(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 6);
        assert!(rows.iter().all(|row| row.replace("\\|", "").matches('|').count() == 7), "{markdown}");
        let mut seen_by_dino = table.clone();
        seen_by_dino.rows.iter_mut().for_each(|row| row.dino = Some(row.identity));
        assert!(seen_by_dino.show(Format::Text).lines().next().unwrap().contains("DINO-I") && !text.contains("DINO-I"));
        let latex = table.show(Format::Latex);
        assert!(latex.contains("50 \\% \\& =1, \"x\"|y & ") && latex.matches("\\midrule").count() == 2, "{latex}");
    }

    #[test]
    fn comma_separated_values_have_as_many_fields_in_each_line() {
        let csv = table().show(Format::Csv);
        let fields = |line: &str| {
            let mut quoted = false;
            line.chars()
                .filter(|c| {
                    quoted ^= *c == '"';
                    *c == ',' && !quoted
                })
                .count()
        };
        let mut lines = csv.lines();
        let head = fields(lines.next().unwrap());
        assert_eq!(head, 32);
        assert!(lines.clone().all(|line| fields(line) == head), "{csv}");
        // Four rows, and two kinds of prompts of all but the real pictures.
        assert_eq!(lines.count(), 4 + 3 * 2);
        assert_eq!(quoted("=1"), "'=1");
        assert!(csv.contains("\"50 % & =1, \"\"x\"\"|y\",all,"), "{csv}");
    }
}
