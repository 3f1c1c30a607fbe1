//! The file of subjects.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use requests::TrainOptions;
use serde_json::{Map, Value};

use crate::{check_names, options_over};

/// What the file says under names of its own.
const OWN: [&str; 2] = ["concept", "category"];

/// Whom to learn, and how.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its name, fit for a folder's.
    pub name: String,
    /// All options of its training, its photos and class noun among them.
    pub options: TrainOptions,
}

/// Reads a file of subjects, TOML or by its name CSV. `all` are options that hold where a subject has none. Photos that exist as
/// seen from the file's folder are those.
///
/// # Errors
/// When the file cannot be read or has no subjects, or names the subject and the key that are wrong.
pub fn read(path: &Path, all: &TrainOptions) -> Result<Vec<Subject>> {
    let shown = path.display();
    let text = json::text(path).with_context(|| format!("cannot read {shown}"))?;
    let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let rows = if is_csv { of_csv(&text) } else { of_toml(&text) };
    let rows = rows.with_context(|| format!("{shown} is not a file of subjects"))?;
    ensure!(!rows.is_empty(), "{shown} has no subjects");
    let folder = path.parent().unwrap_or(Path::new(""));
    let subject = |(place, row)| subject(row, all, folder).with_context(|| format!("{shown}, {place}"));
    let subjects = rows.into_iter().map(subject).collect::<Result<Vec<_>>>()?;
    check_names("subject", subjects.iter().map(|subject| &subject.name)).with_context(|| shown.to_string())?;
    Ok(subjects)
}

fn subject(mut row: Map<String, Value>, all: &TrainOptions, folder: &Path) -> Result<Subject> {
    let mut text = |key: &str| match row.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => bail!("{key} is {other}, which is no text"),
    };
    let photos = PathBuf::from(text("photos")?.context("it has no photos")?);
    let category = text("category")?.or_else(|| all.category.clone()).context("it has no category, the class noun")?;
    let name = match text("name")? {
        Some(name) => name,
        None => photos.file_stem().context("it has no name, nor have its photos")?.to_string_lossy().into_owned(),
    };
    let seen = folder.join(&photos);
    let mut options = options_over(all, row, &OWN, "it")?;
    options.concept = Some(if seen.exists() { seen } else { photos });
    options.category = Some(category);
    Ok(Subject { name, options })
}

/// Each subject with its place in the file.
type Rows = Vec<(String, Map<String, Value>)>;

fn of_toml(text: &str) -> Result<Rows> {
    let mut whole: Map<String, Value> = toml::from_str(text)?;
    let subjects = whole.remove("subjects").unwrap_or_default();
    if let Some(key) = whole.keys().next() {
        bail!("it has {key:?} outside of [[subjects]]");
    }
    let Value::Array(subjects) = subjects else { bail!("it has no [[subjects]]") };
    let row = |(i, row)| match row {
        Value::Object(row) => Ok((format!("subject {}", i + 1), row)),
        other => bail!("subject {} is {other}, which is no table", i + 1),
    };
    subjects.into_iter().enumerate().map(row).collect()
}

fn of_csv(text: &str) -> Result<Rows> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let names: Vec<String> = reader.headers()?.iter().map(|name| name.replace('-', "_")).collect();
    let mut rows = Rows::new();
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let given = names.iter().zip(&record).filter(|(_, text)| !text.is_empty());
        let row = given.map(|(name, text)| (name.clone(), value(name, text))).collect();
        rows.push((format!("line {line}"), row));
    }
    Ok(rows)
}

/// What a field of CSV says: it has no types, so it is a number or a truth value where the option takes one. Values of `set` are
/// separated by semicolons.
fn value(name: &str, text: &str) -> Value {
    if name == "set" {
        return text.split(';').map(|pair| Value::from(pair.trim())).collect();
    }
    let typed = serde_json::from_str::<Value>(text).ok();
    let fits = |value: &Value| {
        let alone = Map::from_iter([(name.to_owned(), value.clone())]);
        options_over(&TrainOptions::default(), alone, &OWN, "").is_ok()
    };
    typed.filter(fits).unwrap_or_else(|| Value::from(text))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn written(name: &str, text: &str) -> Result<Vec<Subject>> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("photos/rex")).unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let all = TrainOptions { steps: Some(9), set: vec!["a=1".to_owned()], ..TrainOptions::default() };
        read(&path, &all)
    }

    #[test]
    fn csv_and_toml_say_the_same() {
        let csv = "photos, category, name, learning-rate, captions, set, method\n\
                   photos/rex, dog,, 1e-4, true, b=2; c=3,\n\
                   shared/7,\"toy, red\", 7,,,, lora\n";
        let toml = r#"
            [[subjects]]
            photos = "photos/rex"
            category = "dog"
            learning_rate = 1e-4
            captions = true
            set = ["b=2", "c=3"]
            [[subjects]]
            photos = "shared/7"
            category = "toy, red"
            name = "7"
            method = "lora"
        "#;
        for (name, text) in [("s.csv", csv), ("s.CSV", csv), ("s.toml", toml)] {
            let subjects = written(name, text).unwrap();
            let [rex, seven] = &subjects[..] else { panic!("{subjects:?}") };
            assert_eq!((rex.name.as_str(), seven.name.as_str()), ("rex", "7"));
            assert!(rex.options.concept.as_ref().unwrap().is_absolute());
            assert_eq!(seven.options.concept, Some("shared/7".into()));
            assert_eq!(seven.options.category.as_deref(), Some("toy, red"));
            assert_eq!((rex.options.learning_rate, rex.options.steps), (Some(1e-4), Some(9)));
            assert!(rex.options.photos.captions && !seven.options.photos.captions);
            assert_eq!(
                (&rex.options.set[..], seven.options.set.len()),
                (&["a=1", "b=2", "c=3"].map(String::from)[..], 1)
            );
            assert_eq!((&rex.options.method, seven.options.method.as_deref()), (&None, Some("lora")));
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let says = |name: &str, text: &str, words: &str| {
            let error = format!("{:#}", written(name, text).unwrap_err());
            assert!(error.contains(words), "{error}");
        };
        says(
            "s.csv",
            "photos,category,stepz\na,dog,3\n",
            "s.csv, line 2: it has \"stepz\", which is no option of `train`",
        );
        says("s.csv", "photos,category\na,dog\nb\n", "s.csv is not a file of subjects");
        says("s.csv", "photos,category\n", "has no subjects");
        says("s.csv", "photos,category,steps\na,dog,many\n", "line 2");
        says("s.csv", "photos,category\nx/a,dog\ny/A,dog\n", "two subjects are called A");
        says("s.csv", "photos,category,name\na,dog,../b\n", "must be fit for a folder's name");
        says("s.csv", "category\ndog\n", "line 2: it has no photos");
        says("s.toml", "[[subjects]]\nphotos = \"a\"\n", "subject 1: it has no category");
        says("s.toml", "[[subjects]]\nphotos = 3\ncategory = \"a\"", "photos is 3");
        says(
            "s.toml",
            "[[subjects]]\nphotos = \"a\"\ncategory = \"a\"\nconcept = \"b\"",
            "\"concept\", which is given elsewhere",
        );
        says("s.toml", "subject = []", "\"subject\" outside of [[subjects]]");
        says("s.toml", "", "has no [[subjects]]");
    }
}
