//! Several runs side by side.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use maud::{Markup, html};
use serde_json::{Map, Value, json};

use crate::configuration::flat;
use crate::embedded::Image;
use crate::generated::{Generated, generated};
use crate::page::{Section, cell, figure, sections, table};
use crate::run::Run;
use crate::scores::{self, estimates};

/// The longer side of an image in pixels, at most.
const SIDE: u32 = 384;

/// Runs to compare, with their generated images. The first is the baseline of the others.
#[derive(Debug)]
pub struct Comparison {
    pub(crate) runs: Vec<Run>,
    pub(crate) names: Vec<String>,
    pub(crate) images: Vec<Vec<Generated>>,
    /// Of each run: prompt set and scores file.
    evaluations: Vec<Vec<(String, Value)>>,
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
        Ok(Self {
            names: names.collect(),
            images: runs.iter().map(generated).collect::<Result<_>>()?,
            evaluations: runs.iter().map(Run::evaluations).collect::<Result<_>>()?,
            runs,
        })
    }

    /// The settings that are not the same in all runs, each with its values.
    fn settings(&self) -> Vec<(String, Vec<String>)> {
        let all: Vec<Vec<(String, String)>> = self.runs.iter().map(|run| flat("", &run.config)).collect();
        let mut keys: Vec<&str> = Vec::new();
        for (key, _) in all.iter().flatten() {
            if !keys.contains(&key.as_str()) {
                keys.push(key);
            }
        }
        let value = |settings: &Vec<(String, String)>, key: &str| {
            let found = settings.iter().find(|(name, _)| name == key);
            found.map_or_else(|| "–".to_owned(), |(_, value)| value.clone())
        };
        let rows = keys.into_iter().map(|key| (key.to_owned(), all.iter().map(|one| value(one, key)).collect()));
        rows.filter(|(_, values): &(String, Vec<String>)| values.iter().any(|value| *value != values[0])).collect()
    }

    /// Prompt sets that any of the runs was evaluated on, each with the scores of the runs that were.
    fn scores(&self) -> Vec<(String, Vec<Option<&Value>>)> {
        let mut sets: Vec<&str> = self.evaluations.iter().flatten().map(|(set, _)| set.as_str()).collect();
        sets.sort_unstable();
        sets.dedup();
        let of = |set: &str, files: &'_ [(String, Value)]| files.iter().position(|(name, _)| name == set);
        let rows = sets.into_iter().map(|set| {
            let files = self.evaluations.iter().map(|files| scores::own(&files[of(set, files)?].1));
            (set.to_owned(), files.collect())
        });
        rows.collect()
    }

    /// Settings that differ and scores with their intervals, for a terminal: a column for each run.
    pub fn table(&self) -> String {
        let mut rows = vec![(String::new(), self.names.clone())];
        rows.extend(self.settings());
        for (set, files) in self.scores() {
            for (key, name) in scores::METRICS {
                let value = |file: &Option<&Value>| {
                    let all = file.map(estimates).unwrap_or_default();
                    all.into_iter().find(|(found, ..)| *found == key).map(|(.., estimate)| estimate.text())
                };
                let values: Vec<Option<String>> = files.iter().map(value).collect();
                if values.iter().any(Option::is_some) {
                    let values = values.into_iter().map(|value| value.unwrap_or_else(|| "–".to_owned()));
                    rows.push((format!("{set}: {name}"), values.collect()));
                }
            }
        }
        align(&rows)
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let means = |i: usize| -> Map<String, Value> {
            let sets = self.scores().into_iter();
            sets.filter_map(|(set, files)| Some((set, files[i]?.get("mean")?.clone()))).collect()
        };
        let runs = self.runs.iter().enumerate().map(
            |(i, run)| json!({ "name": self.names[i], "folder": run.folder, "config": run.config, "scores": means(i) }),
        );
        let differ = self.settings().into_iter().map(|(key, values)| (key, json!(values)));
        json!({ "runs": runs.collect::<Vec<_>>(), "settings_that_differ": differ.collect::<Map<_, _>>() })
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
        let rows = self.settings();
        if rows.is_empty() {
            return html! { p class="note" { "None: the runs have the same configuration." } };
        }
        let rows = rows.into_iter().map(|(key, values)| (key, values.into_iter().map(cell).collect()));
        table(std::iter::once("").chain(self.names.iter().map(String::as_str)), rows)
    }

    fn scores_body(&self) -> Option<Markup> {
        let sets = self.scores();
        let rows = |files: &[Option<&Value>]| {
            let rows = self.names.iter().cloned().zip(files).filter_map(|(name, file)| Some((name, (*file)?)));
            scores::by_row("run", rows.collect())
        };
        (!sets.is_empty()).then(|| {
            html! {
                div {
                    @for (set, files) in &sets { h3 { "Prompts " (set) } (rows(files)) }
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
