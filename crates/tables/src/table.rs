//! What the cells say together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use runs::{Metrics, ModelFingerprint, PromptScores};
use serde::{Deserialize, Serialize};
use statistics::{Bootstrap, Compared, Crossed, Estimate, Verdict, holm};

use crate::{Cell, CellRecord, Cost, Margin, System, TablePlan, cells};

/// A table (`table.json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// The CLIP that scored, by its contents.
    pub judge: ModelFingerprint,
    /// The name of the prompt set.
    pub prompt_set: String,
    /// Prompts, and images of each.
    pub prompts: usize,
    /// Images of each prompt and training seed.
    pub images: u32,
    /// The training seeds.
    pub seeds: Vec<u64>,
    /// The subjects whose cells are all done; the others are in no number.
    pub subjects: Vec<String>,
    /// The cells that are not done.
    pub missing: Vec<String>,
    /// Prompts that the base model does not obey, and which are in no number for it (`obeyed_by_base` of the plan).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// The method that the others are compared with.
    pub reference: String,
    /// What is too little for a claim.
    pub margin: Margin,
    /// How intervals were found.
    pub bootstrap: Bootstrap,
    /// Real pictures, the base model, and the methods in the plan's order.
    pub rows: Vec<Row>,
}

/// A system over all subjects, seeds, prompts and images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Likeness to the subject, CLIP-I.
    pub identity: Estimate,
    /// Likeness to the subject as DINO sees it, DINO-I, where the plan has a DINO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dino: Option<Estimate>,
    /// Likeness to the prompt, CLIP-T.
    pub text: Estimate,
    /// The share of images that show all that their prompts ask for, where the judge has a reader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obeyed: Option<Estimate>,
    /// By kind of prompt; none for real pictures, which follow no prompt.
    pub kinds: Vec<KindRow>,
    /// How much the reference is better, where this is another method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
    /// What it took, the mean over runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// The mean time of generating the images of a run, in seconds.
    pub generate_seconds: f64,
    /// The mean cosine between learned embeddings and their starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_cosine: Option<f64>,
}

/// A system over the prompts of a kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KindRow {
    /// The kind.
    pub kind: String,
    /// Likeness to the subject.
    pub identity: Estimate,
    /// Likeness to the prompt.
    pub text: Estimate,
    /// The share of images that show all that their prompts ask for, where the judge has a reader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obeyed: Option<Estimate>,
}

/// The reference's scores less a method's, paired by subject, seed, prompt and image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Against {
    /// In likeness to the subject.
    pub identity: Compared,
    /// Whether the reference is better in it.
    pub identity_verdict: Verdict,
    /// In likeness to the prompt.
    pub text: Compared,
    /// Whether the reference is better in it.
    pub text_verdict: Verdict,
}

/// Where a table is kept in its folder.
const FILE: &str = "table.json";

/// A score of an image.
type Metric = fn(&Metrics<f64>) -> Option<f64>;
const IDENTITY: Metric = |scores| Some(scores.clip_i);
const TEXT: Metric = |scores| Some(scores.clip_t);
const DINO: Metric = |scores| scores.dino_i;
const OBEYED: Metric = |scores| scores.obeyed;

impl Table {
    /// Collects the cells that are done; `record` reads one.
    ///
    /// # Errors
    /// When a record is damaged, no subject has all its cells, or cells were scored by different judges.
    pub fn of(plan: &TablePlan, record: impl Fn(&Cell<'_>) -> Result<Option<CellRecord>>) -> Result<Self> {
        let all = cells(plan);
        let mut done: BTreeMap<usize, CellRecord> = BTreeMap::new();
        for cell in &all {
            if let Some(record) = record(cell)? {
                done.insert(cell.number, record);
            }
        }
        let missing: Vec<String> = all.iter().filter(|cell| !done.contains_key(&cell.number)).map(Cell::name).collect();
        let complete = |subject: usize| {
            all.iter().filter(|cell| cell.subject == subject).all(|cell| done.contains_key(&cell.number))
        };
        let subjects: Vec<usize> = (0..plan.subjects.len()).filter(|&subject| complete(subject)).collect();
        if subjects.is_empty() {
            bail!(
                "{} of {} cells are done, but all cells of no subject: there is nothing to compare yet",
                done.len(),
                all.len()
            );
        }
        let mut records = done.values();
        let first = records.next().context("there are no cells")?;
        for other in records {
            ensure!(
                other.judge.sha256 == first.judge.sha256,
                "the cells of {} and {} were scored by different CLIPs ({} and {}), whose scores cannot be compared",
                first.row,
                other.row,
                first.judge.name,
                other.judge.name
            );
        }
        let bootstrap = Bootstrap::default();
        let mut rows = Rows { plan, all: &all, done: &done, subjects: &subjects, bootstrap, left_out: BTreeSet::new() };
        rows.left_out = rows.beyond_base()?;
        let prompts = plan.plan(0)?.prompts;
        Ok(Self {
            name: plan.name.clone(),
            judge: first.judge.clone(),
            prompt_set: prompts.name,
            prompts: prompts.prompts.len(),
            images: plan.images(),
            seeds: plan.seeds.clone(),
            subjects: subjects.iter().map(|&subject| plan.subjects[subject].name.clone()).collect(),
            missing,
            left_out: rows.left_out.iter().cloned().collect(),
            reference: plan.reference.clone(),
            margin: plan.margin,
            bootstrap,
            rows: rows.all()?,
        })
    }

    /// Reads the table in a folder, if there is one.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        path.exists().then(|| json::read(&path, "a table")).transpose()
    }

    /// Writes it into a folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("a table cannot be written as JSON")?;
        atomic::write(&folder.join(FILE), text + "\n")
    }
}

/// What rows are made of.
struct Rows<'a> {
    plan: &'a TablePlan,
    all: &'a [Cell<'a>],
    done: &'a BTreeMap<usize, CellRecord>,
    /// Complete ones.
    subjects: &'a [usize],
    bootstrap: Bootstrap,
    left_out: BTreeSet<String>,
}

impl Rows<'_> {
    fn all(&self) -> Result<Vec<Row>> {
        let methods = (0..self.plan.methods.len()).map(System::Method);
        let systems = [System::Real, System::Base].into_iter().chain(methods);
        let mut rows = systems.map(|system| self.row(system)).collect::<Result<Vec<_>>>()?;
        let reference = self.plan.methods.iter().position(|method| method.name == self.plan.reference);
        let reference = reference.context("the reference is not among the methods")?;
        // All differences are asked about at once.
        let others: Vec<usize> = (0..self.plan.methods.len()).filter(|&method| method != reference).collect();
        let mut differences = Vec::new();
        for &other in &others {
            for metric in [IDENTITY, TEXT] {
                let ours = self.crossed(System::Method(reference), metric, None)?;
                differences.push(ours.minus(&self.crossed(System::Method(other), metric, None)?)?);
            }
        }
        let compared = holm(&differences, &self.bootstrap);
        for (&other, pair) in others.iter().zip(compared.chunks(2)) {
            let [identity, text] = [pair[0], pair[1]];
            rows[2 + other].against = Some(Against {
                identity,
                identity_verdict: identity.verdict(self.plan.margin.identity),
                text,
                text_verdict: text.verdict(self.plan.margin.text),
            });
        }
        Ok(rows)
    }

    /// The prompts that the base model does not obey, of the kinds that the plan names.
    fn beyond_base(&self) -> Result<BTreeSet<String>> {
        let mut beyond = BTreeSet::new();
        let records: Vec<&CellRecord> = self.records(System::Base).map(|(_, record)| record).collect();
        let kinds = &self.plan.obeyed_by_base;
        for prompt in records.iter().flat_map(|record| &record.scores.prompts) {
            let same =
                records.iter().flat_map(|record| &record.scores.prompts).filter(|other| other.prompt == prompt.prompt);
            let read: Vec<f64> =
                same.flat_map(|prompt| &prompt.images).filter_map(|image| image.scores.obeyed).collect();
            if kinds.contains(&prompt.kind) {
                ensure!(
                    !read.is_empty(),
                    "obeyed_by_base names the kind {:?}, but the judge has no reader that could tell whether images obey {:?}",
                    prompt.kind,
                    prompt.prompt
                );
                if read.iter().sum::<f64>() < 0.5 * read.len() as f64 {
                    beyond.insert(prompt.prompt.clone());
                }
            }
        }
        ensure!(
            records.iter().flat_map(|record| &record.scores.prompts).any(|prompt| !beyond.contains(&prompt.prompt)),
            "the base model obeys no prompt, so that none counts: leave kinds out of obeyed_by_base, or choose other prompts"
        );
        Ok(beyond)
    }

    fn row(&self, system: System) -> Result<Row> {
        let records: Vec<&CellRecord> = self.records(system).map(|(_, record)| record).collect();
        let first = records.first().context("a row has no cells")?;
        // Of some kinds the base model may obey no prompt.
        let counts = |kind: &&str| {
            let prompts = records.iter().flat_map(|record| &record.scores.prompts);
            prompts.filter(|prompt| prompt.kind == **kind).any(|prompt| !self.left_out.contains(&prompt.prompt))
        };
        let kinds = first.scores.kinds.iter().map(|kind| kind.kind.as_str()).filter(counts);
        let kind = |kind: &str| {
            Ok(KindRow {
                kind: kind.to_owned(),
                identity: self.estimate(system, IDENTITY, Some(kind))?,
                text: self.estimate(system, TEXT, Some(kind))?,
                obeyed: self.estimate_of_some(system, OBEYED, Some(kind))?,
            })
        };
        let costs: Vec<Cost> = records.iter().filter_map(|record| record.cost).collect();
        let cosines: Vec<f64> = records.iter().filter_map(|record| record.embedding_cosine).collect();
        let seconds: f64 = records.iter().map(|record| record.generate_seconds).sum();
        Ok(Row {
            name: first.row.clone(),
            identity: self.estimate(system, IDENTITY, None)?,
            dino: self.estimate_of_some(system, DINO, None)?,
            text: self.estimate(system, TEXT, None)?,
            obeyed: self.estimate_of_some(system, OBEYED, None)?,
            kinds: kinds.map(kind).collect::<Result<_>>()?,
            against: None,
            cost: mean_cost(&costs),
            generate_seconds: seconds / records.len() as f64,
            embedding_cosine: (!cosines.is_empty()).then(|| cosines.iter().sum::<f64>() / cosines.len() as f64),
        })
    }

    fn estimate(&self, system: System, metric: Metric, kind: Option<&str>) -> Result<Estimate> {
        Ok(self.crossed(system, metric, kind)?.mean(&self.bootstrap))
    }

    /// Of a score that only some prompts have; none where no prompt has it.
    fn estimate_of_some(&self, system: System, metric: Metric, kind: Option<&str>) -> Result<Option<Estimate>> {
        let values = self.values(system, metric, kind);
        let any = values.iter().flatten().any(|prompts| !prompts.is_empty());
        any.then(|| Ok(Crossed::new(values)?.mean(&self.bootstrap))).transpose()
    }

    /// The records of a system's cells of complete subjects, by subject and seed.
    fn records(&self, system: System) -> impl Iterator<Item = (&Cell<'_>, &CellRecord)> {
        let cells = self.all.iter().filter(move |cell| cell.system == system);
        let cells = cells.filter(|cell| self.subjects.contains(&cell.subject));
        cells.filter_map(|cell| Some((cell, self.done.get(&cell.number)?)))
    }

    /// A system's values, of the prompts of one kind or of all, as far as their images have the score.
    fn values(&self, system: System, metric: Metric, kind: Option<&str>) -> Vec<Vec<Vec<Vec<f64>>>> {
        let of_prompt = |prompt: &PromptScores| -> Option<Vec<f64>> {
            prompt.images.iter().map(|image| metric(&image.scores)).collect()
        };
        let of_cell = |record: &CellRecord| -> Vec<Vec<f64>> {
            let prompts = record.scores.prompts.iter().filter(|prompt| !self.left_out.contains(&prompt.prompt));
            prompts.filter(|prompt| kind.is_none_or(|kind| prompt.kind == kind)).filter_map(of_prompt).collect()
        };
        let of_subject = |&subject: &usize| {
            let cells = self.records(system).filter(move |(cell, _)| cell.subject == subject);
            cells.map(|(_, record)| of_cell(record)).collect()
        };
        self.subjects.iter().map(of_subject).collect()
    }

    fn crossed(&self, system: System, metric: Metric, kind: Option<&str>) -> Result<Crossed> {
        Ok(Crossed::new(self.values(system, metric, kind))?)
    }
}

fn mean_cost(costs: &[Cost]) -> Option<Cost> {
    if costs.is_empty() {
        return None;
    }
    let mean = |of: fn(&Cost) -> f64| costs.iter().map(of).sum::<f64>() / costs.len() as f64;
    Some(Cost {
        train_seconds: mean(|cost| cost.train_seconds),
        steps: mean(|cost| cost.steps as f64).round() as u64,
        peak_memory: costs.iter().map(|cost| cost.peak_memory).max().unwrap_or(0),
        trained_parameters: mean(|cost| cost.trained_parameters as f64).round() as u64,
        learned_bytes: mean(|cost| cost.learned_bytes as f64).round() as u64,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use runs::{ImageScores, KindScores, Scores, Versions};
    use serde_json::Value;

    use super::*;
    use crate::cell::tests::plan;

    /// Scores as a method might have them: a level, subjects that differ, prompts that differ.
    pub(crate) fn record(cell: &Cell<'_>) -> CellRecord {
        let level = match cell.system {
            System::Real => [0.9, 0.3],
            System::Base => [0.2, 0.35],
            System::Method(0) => [0.7, 0.32],
            System::Method(_) => [0.75, 0.2],
        };
        let estimate = Estimate { mean: 0.0, low: 0.0, high: 0.0 };
        let mean = Metrics {
            clip_i: estimate,
            clip_t: estimate,
            clip_t_without_category: estimate,
            clip_i_masked: None,
            dino_i: None,
            obeyed: None,
        };
        let prompts = if cell.system == System::Real { 1 } else { 4 };
        let prompt = |p: usize| {
            let image = |i: usize| {
                let noise = 0.01 * ((7 * cell.subject + 3 * p + i) % 5) as f64;
                let scores = Metrics {
                    clip_i: level[0] + 0.05 * cell.subject as f64 + noise,
                    clip_t: level[1] + 0.02 * p as f64 - noise,
                    clip_t_without_category: 0.0,
                    clip_i_masked: None,
                    dino_i: None,
                    obeyed: None,
                };
                ImageScores { file: format!("{p:03}-{i:02}.png"), seed: i as u64, scores }
            };
            let kind = ["place", "style"][p % 2].to_owned();
            PromptScores { prompt: format!("a {{}} {p}"), kind, mean, images: (0..2).map(image).collect() }
        };
        let kinds = ["place", "style"].map(|kind| KindScores { kind: kind.to_owned(), prompts: 2, mean });
        let kinds = if cell.system == System::Real { Vec::new() } else { kinds.to_vec() };
        CellRecord {
            row: cell.row().to_owned(),
            subject: cell.plan.subjects[cell.subject].name.clone(),
            seed: cell.seed,
            made_by: Value::Null,
            judge: ModelFingerprint { name: "judge".to_owned(), sha256: [("m".to_owned(), "00".to_owned())].into() },
            cost: matches!(cell.system, System::Method(_)).then(|| Cost {
                train_seconds: 60.0,
                steps: 10,
                ..Cost::default()
            }),
            generate_seconds: 3.0,
            embedding_cosine: None,
            versions: Versions::new(),
            scores: Scores { mean, kinds, prompts: (0..prompts).map(prompt).collect() },
        }
    }

    #[test]
    fn rows_are_means_and_differences_are_paired() {
        let plan = plan();
        let table = Table::of(&plan, |cell| Ok(Some(record(cell)))).unwrap();
        assert_eq!(
            table.rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(),
            [crate::REAL, crate::BASE, "ours", "OFT"]
        );
        assert!(table.missing.is_empty() && table.subjects.len() == 2);
        let [real, base, ours, oft] = &table.rows[..] else { panic!("{:?}", table.rows) };
        assert!(real.kinds.is_empty() && base.cost.is_none() && ours.against.is_none());
        assert_eq!(ours.cost.unwrap().steps, 10);
        // What subjects and prompts have in common is in no difference, and here nothing else differs.
        let against = oft.against.as_ref().unwrap();
        for (found, expected) in [(against.identity.difference, -0.05), (against.text.difference, 0.12)] {
            assert!((found.mean - expected).abs() < 1e-12 && found.high - found.low < 1e-12, "{found:?}");
        }
        assert_eq!((against.identity_verdict, against.text_verdict), (Verdict::DoesNotHold, Verdict::Holds));
        assert!(ours.identity.high - ours.identity.low > 0.01);
        assert_eq!(ours.kinds.iter().map(|kind| kind.kind.as_str()).collect::<Vec<_>>(), ["place", "style"]);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Table::read(folder.path()).unwrap(), None);
        table.write(folder.path()).unwrap();
        assert_eq!(Table::read(folder.path()).unwrap(), Some(table));
    }

    #[test]
    fn prompts_beyond_the_base_model_are_left_out() {
        let mut plan = plan();
        plan.obeyed_by_base = vec!["style".to_owned()];
        let blind = Table::of(&plan, |cell| Ok(Some(record(cell)))).unwrap_err().to_string();
        assert!(blind.contains("the judge has no reader"), "{blind}");
        // The base model obeys all but prompt 3, and the methods nothing.
        let read = |cell: &Cell<'_>| {
            let mut record = record(cell);
            for (number, prompt) in record.scores.prompts.iter_mut().enumerate() {
                let obeyed = cell.system == System::Base && number != 3;
                prompt.images.iter_mut().for_each(|image| image.scores.obeyed = Some(f64::from(u8::from(obeyed))));
            }
            Ok(Some(record))
        };
        let table = Table::of(&plan, read).unwrap();
        assert_eq!(table.left_out, ["a {} 3"]);
        let obeyed: Vec<f64> = table.rows[1..].iter().map(|row| row.obeyed.unwrap().mean).collect();
        assert_eq!(obeyed, [1.0, 0.0, 0.0]);
        // Where it obeys none of a kind, the kind is left out, and where there is no other, it is said.
        let nothing = |cell: &Cell<'_>| {
            let mut record = read(cell)?;
            let images = record.iter_mut().flat_map(|record| &mut record.scores.prompts);
            images.flat_map(|prompt| &mut prompt.images).for_each(|image| image.scores.obeyed = Some(0.0));
            Ok(record)
        };
        let table = Table::of(&plan, nothing).unwrap();
        assert_eq!(table.left_out, ["a {} 1", "a {} 3"]);
        assert_eq!(table.rows[2].kinds.iter().map(|kind| kind.kind.as_str()).collect::<Vec<_>>(), ["place"]);
        plan.obeyed_by_base.push("place".to_owned());
        let error = Table::of(&plan, nothing).unwrap_err().to_string();
        assert!(error.contains("the base model obeys no prompt"), "{error}");
        plan.obeyed_by_base.clear();
        assert_eq!(Table::of(&plan, read).unwrap().rows[1].obeyed.unwrap().mean, 0.75);
    }

    #[test]
    fn a_subject_counts_when_all_its_cells_are_done() {
        let plan = plan();
        let only = |numbers: std::ops::Range<usize>| {
            Table::of(&plan, move |cell| Ok(numbers.contains(&cell.number).then(|| record(cell))))
        };
        let table = only(0..7).unwrap();
        assert_eq!((table.subjects, table.missing), (vec!["rex".to_owned()], vec!["tom, OFT, seed 0".to_owned()]));
        let error = only(0..3).unwrap_err().to_string();
        assert!(error.starts_with("3 of 8 cells are done"), "{error}");
        let judged = |cell: &Cell<'_>| {
            let mut record = record(cell);
            if cell.number == 2 {
                record.judge.sha256.clear();
            }
            Ok(Some(record))
        };
        let error = Table::of(&plan, judged).unwrap_err().to_string();
        assert!(error.contains("scored by different CLIPs"), "{error}");
    }
}
