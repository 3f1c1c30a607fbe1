//! Several runs side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Result, ensure};
use maud::{Markup, html};
use runs::{ComparedRun, Metrics, RunComparison};
use statistics::Estimate;

use crate::embedded::Image;
use crate::generated::{Generated, generated};
use crate::page::{Section, cell, figure, sections, table};
use crate::run::{Run, file_name, side_by_side};
use crate::scores;

/// The longer side of an image in pixels, at most.
const SIDE: u32 = 384;

/// Runs to compare, with their generated images. The first is the baseline of the others.
#[derive(Debug)]
pub struct Comparison {
    pub(crate) runs: Vec<Run>,
    pub(crate) names: Vec<String>,
    pub(crate) images: Vec<Vec<Generated>>,
    /// Of each run, the prompt sets that it was evaluated on and the subject's means.
    scores: Vec<BTreeMap<String, Metrics<Estimate>>>,
    /// The values of the configuration that are not the same in all runs, by their paths, each with one text a run.
    differences: Vec<(String, Vec<String>)>,
}

impl Comparison {
    /// Reads the folders of at least two runs.
    ///
    /// # Errors
    /// When one is no run's folder or given twice, or a file in it is damaged.
    pub fn open(folders: &[PathBuf]) -> Result<Self> {
        ensure!(folders.len() > 1, "a comparison needs the folders of two runs or more");
        for (i, folder) in folders.iter().enumerate() {
            ensure!(!folders[..i].contains(folder), "{} is given twice; name each run once", folder.display());
        }
        let runs = folders.iter().map(|folder| Run::open(folder)).collect::<Result<Vec<_>>>()?;
        let short: Vec<String> = runs.iter().map(Run::name).collect();
        // Folders of one name are told apart by their paths.
        let unique = |name: &String| short.iter().filter(|other| *other == name).count() == 1;
        let names = short.iter().zip(folders);
        let names = names.map(|(name, folder)| if unique(name) { name.clone() } else { folder.display().to_string() });
        let scores = |run: &Run| {
            let evaluations = runs::evaluations(run.folder())?.into_iter();
            let means = evaluations.filter_map(|(folder, one)| Some((file_name(&folder), one.subject()?.scores.mean)));
            Ok(means.collect())
        };
        Ok(Self {
            names: names.collect(),
            images: runs.iter().map(generated).collect::<Result<_>>()?,
            scores: runs.iter().map(scores).collect::<Result<_>>()?,
            differences: differences(&runs)?,
            runs,
        })
    }

    /// Prompt sets that any of the runs was evaluated on, sorted.
    fn sets(&self) -> BTreeSet<&String> {
        self.scores.iter().flat_map(BTreeMap::keys).collect()
    }

    /// Values that differ and scores with their intervals, for a terminal: a column for each run.
    pub fn table(&self) -> String {
        let mut rows = vec![(String::new(), self.names.clone())];
        rows.extend(self.differences.iter().cloned());
        for set in self.sets() {
            let runs: Vec<_> = self.scores.iter().map(|sets| sets.get(set).map(Metrics::named)).collect();
            let Some(longest) = runs.iter().flatten().max_by_key(|scores| scores.len()) else { continue };
            for (name, _) in longest {
                let value = |scores: &Option<Vec<(&str, &Estimate)>>| {
                    let found = scores.as_ref()?.iter().find(|(other, _)| other == name)?;
                    Some(scores::text(found.1))
                };
                let values = runs.iter().map(|scores| value(scores).unwrap_or_else(|| "–".to_owned()));
                rows.push((format!("{set}: {name}"), values.collect()));
            }
        }
        align(&rows)
    }

    /// The same for programs.
    pub fn record(&self) -> RunComparison {
        let runs = self.names.iter().zip(&self.runs).zip(&self.scores).map(|((name, run), scores)| ComparedRun {
            name: name.clone(),
            folder: run.folder().to_owned(),
            config: run.config().clone(),
            scores: scores.clone(),
        });
        RunComparison { runs: runs.collect(), settings_that_differ: self.differences.iter().cloned().collect() }
    }

    /// One page: values that differ, scores, and the images of each prompt and seed side by side, of at most `seeds` seeds
    /// a prompt.
    ///
    /// # Errors
    /// When an image cannot be read.
    pub fn page(&self, seeds: usize) -> Result<String> {
        let mut all = vec![Section::new("settings", "Settings that differ", self.settings_body())];
        all.extend(self.scores_body().map(|body| Section::new("scores", "Scores", body)));
        all.extend(self.images_body(seeds)?.map(|body| Section::new("images", "Images", body)));
        let title = format!("Comparison of {}", self.names.join(", "));
        let header = html! { p class="kicker" { "AttnDreamBooth" } h1 { (title) } };
        Ok(sections(&title, &header, &all))
    }

    fn settings_body(&self) -> Markup {
        if self.differences.is_empty() {
            return html! { p class="note" { "None: the runs have the same configuration." } };
        }
        let rows = self.differences.iter().map(|(key, values)| (key.clone(), values.iter().map(cell).collect()));
        table(std::iter::once("").chain(self.names.iter().map(String::as_str)), rows)
    }

    fn scores_body(&self) -> Option<Markup> {
        let sets = self.sets();
        let rows = |set: &String| {
            let rows = self.names.iter().cloned().zip(&self.scores);
            scores::by_row("run", &rows.filter_map(|(name, sets)| Some((name, sets.get(set)?))).collect::<Vec<_>>())
        };
        (!sets.is_empty()).then(|| {
            html! {
                div {
                    @for set in sets { h3 { "Prompts " (set) } (rows(set)) }
                    p class="note" { "Means with their bootstrap intervals over prompts and images; higher is better." }
                }
            }
        })
    }

    /// The images of the first run that at least one other has too.
    fn images_body(&self, seeds: usize) -> Result<Option<Markup>> {
        let Some((first, others)) = self.images.split_first() else { return Ok(None) };
        let shared = |one: &&Generated| others.iter().flatten().any(|other| other.matches(one));
        let mut rows: Vec<(String, Vec<Markup>)> = Vec::new();
        let mut shown: Vec<&str> = Vec::new();
        for one in first.iter().filter(shared) {
            if shown.iter().filter(|prompt| **prompt == one.prompt).count() >= seeds {
                continue;
            }
            shown.push(&one.prompt);
            let cells = self.names.iter().zip(&self.images).map(|(name, images)| {
                let Some(Generated { prompt, seed, path }) = images.iter().find(|other| other.matches(one)) else {
                    return Ok(cell("–"));
                };
                Ok(figure(&Image::open(path, SIDE)?, &format!("{prompt}, seed {seed}, {name}"), name))
            });
            rows.push((format!("{} (seed {})", one.prompt, one.seed), cells.collect::<Result<_>>()?));
        }
        let head = std::iter::once("prompt").chain(self.names.iter().map(String::as_str));
        Ok((!rows.is_empty()).then(|| html! { div class="image-table" { (table(head, rows)) } }))
    }
}

/// The values that are not the same in all runs' configurations, by their paths, each with one text a run.
fn differences(runs: &[Run]) -> Result<Vec<(String, Vec<String>)>> {
    let configs: Vec<_> = runs.iter().map(Run::config).collect();
    let rows = side_by_side(&configs)?.into_iter();
    Ok(rows.filter(|(_, values)| values.iter().any(|value| *value != values[0])).collect())
}

/// Rows of texts in aligned columns, a line each: control characters in names, keys and values are shown escaped.
pub(crate) fn align(rows: &[(String, Vec<String>)]) -> String {
    let escaped = |text: &String| terminal::escaped(text).to_string();
    let texts: Vec<Vec<String>> =
        rows.iter().map(|(name, values)| std::iter::once(name).chain(values).map(escaped).collect()).collect();
    let width = |column: usize| {
        let cells = texts.iter().filter_map(|row| row.get(column));
        cells.map(|text| text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..texts.iter().map(Vec::len).max().unwrap_or(0)).map(width).collect();
    let lines = texts.iter().map(|row| {
        let cells = row.iter().zip(&widths).map(|(text, width)| format!("{text:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters() {
        let rows = [("", vec!["run-a", "b"]), ("ä", vec!["1", "22"])];
        let rows = rows.map(|(name, cells)| (name.to_owned(), cells.into_iter().map(str::to_owned).collect()));
        assert_eq!(align(&rows), "   run-a  b\nä  1      22");
    }
}
