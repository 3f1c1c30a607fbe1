//! A further subject on the command line.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Photos of a subject, and its class noun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedConcept {
    /// The folder of photos, or a single photo.
    pub photos: PathBuf,
    /// The class noun.
    pub category: String,
}

impl FromStr for AddedConcept {
    type Err = String;

    /// `PHOTOS:NOUN`, at the last colon.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.rsplit_once(':') {
            Some((photos, category)) if !photos.is_empty() && !category.trim().is_empty() => {
                Ok(Self { photos: photos.into(), category: category.to_owned() })
            }
            _ => Err("give the photos and the class noun, as in photos/my-cat:cat".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_noun_follows_the_last_colon() {
        let concept: AddedConcept = "c:/photos:toy cat".parse().unwrap();
        assert_eq!(concept, AddedConcept { photos: "c:/photos".into(), category: "toy cat".to_owned() });
        assert_eq!(serde_json::from_value::<AddedConcept>(serde_json::to_value(&concept).unwrap()).unwrap(), concept);
        for text in ["photos", "photos:", ":cat", "photos: "] {
            assert!(text.parse::<AddedConcept>().is_err(), "{text}");
        }
    }
}
