//! Captions of ordinary images.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::text;

/// The sets in `captions`, which the program carries with it.
const SETS: [(&str, &str); 1] = [("everyday", include_str!("../captions/everyday.txt"))];

/// Captions under a name: sentences that name no subject, in which merged runs are to stay as the base model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptionSet {
    /// Its name; that of its file, without its ending.
    pub name: String,
    /// At least one.
    pub captions: Vec<String>,
}

impl CaptionSet {
    /// The names of the sets that need no file: `everyday` is in the words of the miniature, which other models know too.
    pub fn names() -> Vec<&'static str> {
        SETS.map(|(name, _)| name).to_vec()
    }

    /// A set by its name, or from a user's text file with a caption on each line, in which empty lines and those that begin
    /// with `#` do not count.
    ///
    /// # Errors
    /// When there is neither, or the file cannot be read, has no captions, or one with `[V]`.
    pub fn load(name_or_file: &str) -> Result<Self> {
        Self::parse(&text::named(["caption set", "captions"], &SETS, name_or_file)?, Path::new(name_or_file))
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        let captions: Vec<String> = text::lines(text).map(str::to_owned).collect();
        let shown = path.display();
        ensure!(!captions.is_empty(), "there is no caption in {shown}; write one on each line");
        let reason = "each is encoded";
        limits::within(&format!("the number of captions in {shown}"), captions.len(), 1..=100_000, reason)?;
        if let Some(number) = captions.iter().position(|caption| caption.contains("[V]")) {
            anyhow::bail!(
                "caption {} of {shown} names a subject, [V], but captions are what stays as it is; leave it out",
                number + 1
            );
        }
        Ok(Self { name: text::stem(path), captions })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Text features are of prefixes, as the text encoder is causal; each model's are as many as its width or more.
    #[test]
    fn the_set_has_more_prefixes_than_text_encoders_are_wide() {
        let set = CaptionSet::load("everyday").unwrap();
        let prefixes: BTreeSet<Vec<&str>> = set
            .captions
            .iter()
            .flat_map(|caption| {
                let words: Vec<&str> = caption.split(' ').chain([""]).collect();
                (1..=words.len()).map(|n| words[..n].to_vec()).collect::<Vec<_>>()
            })
            .collect();
        assert!(prefixes.len() > 2 * 1024, "{}", prefixes.len());
    }

    #[test]
    fn users_files_have_a_caption_on_each_line() {
        let folder = tempfile::tempdir().unwrap();
        let load = |text: &[u8]| {
            let path = folder.path().join("mine.txt");
            std::fs::write(&path, text).unwrap();
            CaptionSet::load(&path.display().to_string()).map_err(|error| format!("{error:#}"))
        };
        let set = load("\u{feff}# mine\n\n a cat\r\na dog ❄".as_bytes()).unwrap();
        assert_eq!((set.name.as_str(), set.captions), ("mine", vec!["a cat".to_owned(), "a dog ❄".to_owned()]));
        for (text, words) in [
            (&b"# nothing\n"[..], "there is no caption in"),
            (b"a cat\na [V] cat", "caption 2 of"),
            (b"\xff\xfe", "not UTF-8 text"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(words) && error.contains("mine.txt") && !error.contains('\n'), "{error}");
        }
        let error = CaptionSet::load("everyday2").unwrap_err().to_string();
        assert_eq!(error, "there is no caption set and no file called \"everyday2\"; use a file or one of everyday");
    }
}
