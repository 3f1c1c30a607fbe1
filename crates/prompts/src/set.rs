//! Sets of prompts with a gap for the subject.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::text;

/// Where the subject goes in a prompt's text.
const GAP: &str = "{}";

/// The sets in `data`, which the program carries with it.
const SETS: [(&str, &str); 8] = [
    ("ours24", include_str!("../data/ours24.json")),
    ("dreambooth-objects", include_str!("../data/dreambooth-objects.json")),
    ("dreambooth-live", include_str!("../data/dreambooth-live.json")),
    ("core-inanimate", include_str!("../data/core-inanimate.json")),
    ("core-animate", include_str!("../data/core-animate.json")),
    ("neti", include_str!("../data/neti.json")),
    ("miniature", include_str!("../data/miniature.json")),
    ("miniature24", include_str!("../data/miniature24.json")),
];

/// PartiPrompts has 1600.
const MAX_PROMPTS: usize = 100_000;

/// Prompts under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptSet {
    /// Its name; that of its file where the file gives none.
    #[serde(default)]
    pub name: String,
    /// Who made the prompts.
    #[serde(default)]
    pub source: String,
    /// What a reader should know.
    #[serde(default)]
    pub note: String,
    /// At least one.
    pub prompts: Vec<Prompt>,
}

/// One prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// The text, with `{}` where the subject goes: `a {} on the beach`.
    pub text: String,
    /// What it asks to change, such as `background` or `style`; scores are also averaged by kind.
    #[serde(default = "any_kind")]
    pub kind: String,
}

fn any_kind() -> String {
    "prompt".to_owned()
}

impl Prompt {
    /// The text with a subject: `a [V] dog on the beach`.
    pub fn with(&self, subject: &str) -> String {
        self.text.replace(GAP, subject)
    }

    /// The text with nothing in the subject's place, as Textual Inversion's evaluation has it: `a on the beach`.
    pub fn without_subject(&self) -> String {
        self.with("").split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl PromptSet {
    /// The names of the sets that need no file.
    pub fn names() -> Vec<&'static str> {
        SETS.map(|(name, _)| name).to_vec()
    }

    /// A set by its name, or from a user's file.
    ///
    /// # Errors
    /// When there is neither, and as [`PromptSet::from_file`].
    pub fn load(name_or_file: &str) -> Result<Self> {
        let path = Path::new(name_or_file);
        match SETS.iter().find(|(name, _)| *name == name_or_file) {
            Some((name, text)) => Self::parse(text, Path::new(&format!("{name}.json"))),
            None if path.exists() => Self::from_file(path),
            None => Err(text::unknown("prompt set", name_or_file, &Self::names())),
        }
    }

    /// Reads a JSON file as those in `data`, or a text file with a prompt on each line, in which empty lines
    /// and those that begin with `#` do not count.
    ///
    /// # Errors
    /// When the file cannot be read, has no prompts, or one of them has no `{}` for the subject or stands there twice.
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::parse(&text::read("prompts", path)?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        let shown = path.display();
        let mut set = if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            json::parse(text).with_context(|| {
                format!(
                    "the prompts {shown} are not of the form {}",
                    r#"{"prompts": [{"text": "a {} on the beach", "kind": "background"}]}"#
                )
            })?
        } else {
            let prompts = text::lines(text).map(|line| Prompt { text: line.to_owned(), kind: any_kind() }).collect();
            Self { name: String::new(), source: shown.to_string(), note: String::new(), prompts }
        };
        if set.name.is_empty() {
            set.name = text::stem(path);
        }
        ensure!(
            !set.name.contains(['/', '\\']) && !set.name.starts_with('.'),
            "the name of the prompts {shown} is {:?}, but it must be fit for a folder's name",
            terminal::shortened(&set.name)
        );
        set.validate().with_context(|| format!("the prompts {shown} cannot be used"))?;
        Ok(set)
    }

    /// Checks that each prompt has a place for the subject and is unlike the others.
    ///
    /// # Errors
    /// Names the first prompt that does not.
    pub fn validate(&self) -> Result<()> {
        ensure!(!self.prompts.is_empty(), "there is no prompt in them");
        limits::within("the number of prompts", self.prompts.len(), 1..=MAX_PROMPTS, "images are generated of each")?;
        let mut seen = HashMap::new();
        for (i, Prompt { text, .. }) in self.prompts.iter().enumerate() {
            let shown = terminal::shortened(text);
            ensure!(
                text.contains(GAP),
                "prompt {}, {shown:?}, does not say where the subject goes; write {GAP} there{}",
                i + 1,
                if text.contains("[V]") { ", for [V] and the category" } else { "" }
            );
            ensure!(
                !text.contains("[V]"),
                "prompt {}, {shown:?}, names [V]; write only {GAP}, which stands for [V] and the category",
                i + 1
            );
            if let Some(first) = seen.insert(text.as_str(), i) {
                bail!("prompts {} and {} are both {shown:?}; remove one", first + 1, i + 1);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_loads_and_has_as_many_prompts_as_it_says() {
        let counts = [24, 25, 25, 20, 20, 15, 16];
        for (name, count) in PromptSet::names().into_iter().zip(counts) {
            let set = PromptSet::load(name).unwrap();
            assert_eq!((set.name.as_str(), set.prompts.len()), (name, count));
            assert!(!set.source.is_empty() && !set.note.is_empty(), "{name} says where it is from");
        }
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/data")).unwrap();
        assert_eq!(files.count(), PromptSet::names().len(), "each file is one of the sets");
    }

    /// "Background change, environment interaction, colour change, artistic style" (the paper, section 5.1).
    #[test]
    fn ours24_has_six_prompts_of_each_of_the_papers_kinds() {
        let set = PromptSet::load("ours24").unwrap();
        for kind in ["background", "interaction", "colour", "style"] {
            assert_eq!(set.prompts.iter().filter(|prompt| prompt.kind == kind).count(), 6, "{kind}");
        }
    }

    #[test]
    fn a_subject_fills_the_gap() {
        let prompt = Prompt { text: "a  {} on the beach".to_owned(), kind: any_kind() };
        assert_eq!(prompt.with("[V] dog"), "a  [V] dog on the beach");
        assert_eq!(prompt.without_subject(), "a on the beach");
    }

    #[test]
    fn users_files_are_json_or_lines() {
        let folder = tempfile::tempdir().unwrap();
        let load = |name: &str, text: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            PromptSet::load(&path.display().to_string()).map_err(|error| format!("{error:#}"))
        };
        let set = load("mine.txt", "\u{feff}# first\n\na {} im Schnee \r\na {} ❄\n".as_bytes()).unwrap();
        assert_eq!(set.name, "mine");
        assert_eq!(
            set.prompts.iter().map(|prompt| prompt.text.as_str()).collect::<Vec<_>>(),
            ["a {} im Schnee", "a {} ❄"]
        );
        let set = load("two.json", br#"{"prompts": [{"text": "a {}", "kind": "photo"}, {"text": "two {}"}]}"#).unwrap();
        assert_eq!(set.name, "two");
        assert_eq!(set.prompts[1].kind, "prompt");

        let says = |name: &str, text: &[u8], words: &[&str]| {
            let error = load(name, text).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)) && error.contains(name), "{error}");
            assert!(!error.contains('\n'), "{error}");
        };
        says("a.txt", b"a {}\na dog", &[r#"prompt 2, "a dog""#, "write {} there"]);
        says("b.txt", b"a [V] dog", &["write {} there, for [V] and the category"]);
        says("b2.txt", b"a [V] {}", &["write only {}"]);
        says("c.txt", b"a {}\nb {}\na {}", &["prompts 1 and 3"]);
        says("d.txt", b"# nothing", &["no prompt"]);
        says("e.txt", b"\xff\xfe", &["UTF-8"]);
        says("f.json", br#"{"prompts": [{"txt": "a {}"}]}"#, &["prompts[0]", "txt", r#"{"prompts": [{"text""#]);
        says("g.json", br#"{"name": "../x", "prompts": [{"text": "a {}"}]}"#, &["folder's name"]);
        let error = PromptSet::load("ours25").unwrap_err().to_string();
        assert!(error.contains("ours25") && error.contains("ours24, dreambooth-objects"), "{error}");
    }
}
