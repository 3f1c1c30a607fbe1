//! The answers of a study, counted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::comparison::align;
use crate::study::{Key, Question};
use statistics::{Bootstrap, Estimate, bootstrap_mean, wilson};

/// A file that the page of a study has saved.
#[derive(Debug, Deserialize)]
struct Answers {
    /// Which study, and which participant's round of it.
    study: String,
    session: String,
    sealed: String,
    answers: Vec<Answer>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    question: usize,
    choice: Choice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Choice {
    Left,
    Right,
}

/// How often a run was preferred to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    /// The first run of the comparison.
    pub run: String,
    /// What it was compared with.
    pub other: String,
    /// How often the first was chosen.
    pub wins: u64,
    /// All answers.
    pub answers: u64,
    /// The same two numbers for each participant who was asked.
    pub by_participant: Vec<(u64, u64)>,
}

impl Preference {
    /// The share that chose the first, with what other participants and answers might have given: participants are resampled as wholes,
    /// for the answers of one have much in common. Of a single participant the interval is Wilson's, and of those answers alone.
    pub fn share(&self) -> Estimate {
        let one =
            |&(wins, answers): &(u64, u64)| (0..answers).map(|i| f64::from(u8::from(i < wins))).collect::<Vec<f64>>();
        match self.by_participant.as_slice() {
            [_, _, ..] => {
                let answers: Vec<Vec<f64>> = self.by_participant.iter().map(one).collect();
                bootstrap_mean(&answers, &Bootstrap::default())
            }
            _ => {
                let (low, high) = wilson(self.wins, self.answers);
                Estimate { mean: self.wins as f64 / self.answers as f64, low, high }
            }
        }
    }
}

/// The result of a study.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// By pair of runs, sorted.
    pub preferences: Vec<Preference>,
    /// How many participants there were.
    pub participants: usize,
    /// How often the image on the left was chosen.
    pub left: u64,
    /// Files that are of the same participant as one before, and do not count.
    pub repeated: Vec<PathBuf>,
}

/// Counts the answers in files that pages of [`Comparison::study`](crate::Comparison::study) have saved.
///
/// # Errors
/// When a file cannot be read or is not of a study.
pub fn tally(files: &[PathBuf]) -> Result<Tally> {
    let mut pairs: BTreeMap<(String, String), BTreeMap<usize, (u64, u64)>> = BTreeMap::new();
    let mut sessions: Vec<(String, String)> = Vec::new();
    let (mut left, mut repeated) = (0, Vec::new());
    for file in files {
        let (answers, key) = read(file)?;
        let session = (answers.study, answers.session);
        if sessions.contains(&session) {
            repeated.push(file.clone());
            continue;
        }
        sessions.push(session);
        for Answer { question, choice } in &answers.answers {
            let Question { left: on_left, right: on_right, .. } = key.questions[*question];
            // The first run is one of the two in every question.
            let other = on_left.max(on_right);
            let chosen = if *choice == Choice::Left { on_left } else { on_right };
            let count = pairs.entry((key.runs[0].clone(), key.runs[other].clone())).or_default();
            let count = count.entry(sessions.len()).or_default();
            count.0 += u64::from(chosen == 0);
            count.1 += 1;
            left += u64::from(*choice == Choice::Left);
        }
    }
    let preferences = pairs.into_iter().map(|((run, other), by_participant)| {
        let by_participant: Vec<(u64, u64)> = by_participant.into_values().collect();
        let (wins, answers) = by_participant.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        Preference { run, other, wins, answers, by_participant }
    });
    Ok(Tally { preferences: preferences.collect(), participants: sessions.len(), left, repeated })
}

fn read(path: &Path) -> Result<(Answers, Key)> {
    let bytes = fs::read(path).with_context(|| format!("cannot read the answers {}", path.display()))?;
    let damaged = || format!("{} is damaged or not the answers of a study; have it saved again", path.display());
    let answers: Answers = json::parse(&bytes).with_context(damaged)?;
    let key = Key::unseal(&answers.sealed).with_context(damaged)?;
    let check = || -> Result<()> {
        for Question { left, right, .. } in &key.questions {
            let (first, other) = (*left.min(right), *left.max(right));
            ensure!(first == 0 && (1..key.runs.len()).contains(&other), "a question names runs that are not there");
        }
        for (i, answer) in answers.answers.iter().enumerate() {
            let number = answer.question;
            ensure!(number < key.questions.len(), "there is no question {number}");
            let twice = answers.answers[..i].iter().any(|before| before.question == number);
            ensure!(!twice, "question {number} is answered twice");
        }
        Ok(())
    };
    check().with_context(damaged)?;
    Ok((answers, key))
}

impl Tally {
    /// How the intervals were found, in words.
    pub(crate) fn interval(&self) -> &'static str {
        if self.participants > 1 {
            "the interval resamples participants as wholes"
        } else {
            "the interval is Wilson's, of this participant's answers alone"
        }
    }

    /// For a terminal: a line for each pair of runs, with the share that preferred the first ([`Preference::share`]).
    pub fn table(&self) -> String {
        let head = ["preferred to", "answers", "share", "95 % interval"].map(str::to_owned).to_vec();
        let mut rows = vec![("run".to_owned(), head)];
        for preference in &self.preferences {
            let Preference { run, other, wins, answers, .. } = preference;
            let Estimate { mean, low, high } = preference.share();
            let percent = |share: f64| format!("{:.1} %", 100.0 * share);
            let interval = format!("{} to {}", percent(low), percent(high));
            rows.push((run.clone(), vec![other.clone(), format!("{wins} of {answers}"), percent(mean), interval]));
        }
        let all: u64 = self.preferences.iter().map(|preference| preference.answers).sum();
        format!(
            "{}\n{} participant(s); the left image was chosen {} of {all} times; {}",
            align(&rows),
            self.participants,
            self.left,
            self.interval()
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn key() -> Key {
        let question = |left, right| Question { subject: None, prompt: "a dog".into(), seed: 0, left, right };
        let questions = vec![question(0, 1), question(1, 0), question(2, 0), question(0, 2)];
        Key { runs: vec!["ours".into(), "b".into(), "c".into()], questions }
    }

    fn answers(session: &str, choices: &[(usize, &str)]) -> Value {
        let answers: Vec<_> =
            choices.iter().map(|(q, choice)| json!({"question": q, "choice": choice, "seconds": 1.5})).collect();
        json!({"study": "s", "session": session, "sealed": key().seal().unwrap(), "answers": answers})
    }

    #[test]
    fn each_pair_is_counted_whichever_side_its_images_were_on() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, value: &Value| {
            let path = folder.path().join(name);
            fs::write(&path, value.to_string()).unwrap();
            path
        };
        let first = answers("1", &[(0, "left"), (1, "right"), (2, "left"), (3, "right")]);
        let files = [
            write("1.json", &first),
            write("2.json", &answers("2", &[(0, "right"), (2, "right")])),
            write("copy.json", &first),
        ];
        let tally = tally(&files).unwrap();
        let pair = |other: &str, by_participant: [(u64, u64); 2]| {
            let [wins, answers] =
                [by_participant[0].0 + by_participant[1].0, by_participant[0].1 + by_participant[1].1];
            Preference {
                run: "ours".into(),
                other: other.into(),
                wins,
                answers,
                by_participant: by_participant.to_vec(),
            }
        };
        assert_eq!(tally.preferences, [pair("b", [(2, 2), (0, 1)]), pair("c", [(0, 2), (1, 1)])]);
        assert_eq!((tally.participants, tally.left, &tally.repeated), (2, 2, &vec![files[2].clone()]));
        let table = tally.table();
        // Two participants of one opinion each: both may be drawn twice.
        assert!(table.contains("ours  b             2 of 3   50.0 %  0.0 % to 100.0 %"), "{table}");
        // Two of three: scipy.stats.binomtest(2, 3).proportion_ci(method="wilson") is 0.20766 to 0.93851.
        let alone = Preference { by_participant: vec![(2, 3)], ..tally.preferences[0].clone() };
        let Estimate { low, high, .. } = alone.share();
        assert!((low - 0.20766).abs() < 1e-5 && (high - 0.93851).abs() < 1e-5);
    }

    #[test]
    fn what_is_no_answer_is_refused_in_one_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.json");
        let good = answers("1", &[(0, "left")]);
        let mut bad = vec![json!({}), answers("1", &[(9, "left")]), answers("1", &[(0, "up")])];
        bad.push(answers("1", &[(0, "left"), (0, "left")]));
        let mut sealed = good;
        sealed["sealed"] = json!("bm90IGpzb24=");
        bad.push(sealed);
        for value in bad {
            fs::write(&path, value.to_string()).unwrap();
            let error = format!("{:#}", tally(std::slice::from_ref(&path)).unwrap_err());
            assert!(error.contains("answers.json is damaged or not the answers") && !error.contains('\n'), "{error}");
        }
        assert!(tally(&["/no/answers.json".into()]).unwrap_err().to_string().contains("/no/answers.json"));
    }
}
