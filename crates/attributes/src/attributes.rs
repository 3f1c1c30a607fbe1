//! What there is to be told apart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What there is to be told apart, each list in the order of its numbers, and how prompts say it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// "plain", and then the names of colours and places.
    pub backgrounds: Vec<String>,
    /// "own", and then colours, in which the first thing may be.
    pub colors: Vec<String>,
    /// "none", and then the names of styles.
    pub styles: Vec<String>,
    /// The words for things: an image may show several.
    pub things: Vec<String>,
    /// The phrase of each place: `snow` and `in the snow`.
    pub places: BTreeMap<String, String>,
    /// The phrase of each style: `sketch` and `a sketch of`.
    pub style_phrases: BTreeMap<String, String>,
    /// Plurals and their things: `apples` and `apple`.
    pub plurals: BTreeMap<String, String>,
}

/// The numbers of what one image shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Label {
    /// Of its background.
    pub background: i64,
    /// Of the colour of its first thing.
    pub color: i64,
    /// Of its style.
    pub style: i64,
    /// Of all words that are true of its things.
    pub things: Vec<i64>,
}
