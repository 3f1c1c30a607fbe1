//! The nouns, subjects, colours, places and styles that scenes are made of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// The places that can be painted.
pub(crate) const PLACES: [&str; 12] =
    ["snow", "beach", "grass", "forest", "desert", "water", "sky", "space", "city", "night", "sunset", "table"];

/// The styles that can be applied.
pub(crate) const STYLES: [&str; 4] = ["sketch", "painting", "pixel", "neon"];

/// Everything that scenes are made of, as `world.json` lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// What the file is.
    pub about: String,
    /// The things that are taught.
    pub nouns: Vec<Noun>,
    /// The characters that are kept from training, to be learned later.
    pub subjects: Vec<Subject>,
    /// Colour words and their RGB.
    pub colors: BTreeMap<String, [u8; 3]>,
    /// Places by name, and the words for being there.
    pub places: BTreeMap<String, String>,
    /// Styles by name, and the words that begin a caption.
    pub styles: BTreeMap<String, String>,
}

/// A thing, its word and its drawings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noun {
    /// The word in captions.
    pub word: String,
    /// Its plural, where that is not the word with an s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plural: Option<String>,
    /// Names of drawings.
    #[serde(rename = "pictures")]
    pub drawings: Vec<String>,
    /// A wider word, which captions use now and then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Whether it is among those that most scenes show: a small model learns them well, and has heard of the others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub common: bool,
}

/// A character that no training scene shows or names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// What it is called here.
    pub name: String,
    /// Its class noun, one of the nouns that are taught.
    pub category: String,
    /// Names of drawings.
    #[serde(rename = "pictures")]
    pub drawings: Vec<String>,
}

impl World {
    /// The miniature's world, which this crate carries (`data/world.json`).
    pub fn miniature() -> Self {
        let world: Self = serde_json::from_str(include_str!("../data/world.json")).expect("a test reads it");
        debug_assert!(world.validate().is_ok());
        world
    }

    /// Reads another `world.json`.
    ///
    /// # Errors
    /// When the file cannot be read or what it says is not consistent: a drawing or a subject's name is also taught, a
    /// category is not, or a place or style has no painter.
    pub fn open(path: &Path) -> Result<Self> {
        let world: Self = json::read(path, "a world of scenes")?;
        world.validate().with_context(|| format!("{} is not a usable world", path.display()))?;
        Ok(world)
    }

    fn validate(&self) -> Result<()> {
        // Two things side by side differ, and a background has another colour than they.
        for (what, count, least) in [
            ("nouns", self.nouns.len(), 2),
            ("colors", self.colors.len(), 3),
            ("places", self.places.len(), 1),
            ("styles", self.styles.len(), 1),
        ] {
            ensure!(count >= least, "it has {count} {what} where scenes need {least}");
        }
        let taught = self.taught();
        let drawings: BTreeSet<&str> = self.nouns.iter().flat_map(|noun| &noun.drawings).map(String::as_str).collect();
        for noun in &self.nouns {
            ensure!(!noun.drawings.is_empty(), "the noun {:?} has no drawings", noun.word);
        }
        for Subject { name, category, drawings: own } in &self.subjects {
            ensure!(!taught.contains(name.as_str()), "the subject {name:?} is also a noun or a wider word");
            ensure!(taught.contains(category.as_str()), "the category {category:?} of {name:?} is not taught");
            ensure!(!own.is_empty(), "the subject {name:?} has no drawings");
            if let Some(drawing) = own.iter().find(|drawing| drawings.contains(drawing.as_str())) {
                anyhow::bail!("the drawing {drawing} of the subject {name:?} is also one of a noun");
            }
        }
        let known = |name: &String, painters: &[&str]| painters.contains(&name.as_str());
        for place in self.places.keys() {
            ensure!(known(place, &PLACES), "the place {place:?} has no painter");
        }
        for style in self.styles.keys() {
            ensure!(known(style, &STYLES), "the style {style:?} has no painter");
        }
        Ok(())
    }

    /// The indices of the nouns that are common.
    pub fn common(&self) -> Vec<usize> {
        (0..self.nouns.len()).filter(|&noun| self.nouns[noun].common).collect()
    }

    /// All words that stand for things in captions: nouns and wider words.
    pub fn taught(&self) -> BTreeSet<&str> {
        self.nouns.iter().flat_map(|noun| [Some(noun.word.as_str()), noun.kind.as_deref()]).flatten().collect()
    }

    /// Every word that a caption can have, in alphabetical order.
    pub fn words(&self) -> BTreeSet<String> {
        let nouns = self.nouns.iter().flat_map(|noun| [noun.word.clone(), noun.plural()]);
        let kinds = self.nouns.iter().filter_map(|noun| noun.kind.clone());
        let phrases = self.places.values().chain(self.styles.values()).cloned();
        let fixed = ["a an two and photo of on background".to_owned()];
        let texts = nouns.chain(kinds).chain(self.colors.keys().cloned()).chain(phrases).chain(fixed);
        texts.flat_map(|text| text.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    /// The subject called `name`.
    pub fn subject(&self, name: &str) -> Option<&Subject> {
        self.subjects.iter().find(|subject| subject.name == name)
    }
}

impl Noun {
    /// The word for several.
    pub fn plural(&self) -> String {
        self.plural.clone().unwrap_or_else(|| format!("{}s", self.word))
    }
}
