//! Training prompts of which each sample takes one.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::text;

/// The token that is learned, in a template.
const TOKEN: &str = "[V]";

/// The sets in `templates`, which the program carries with it.
const SETS: [(&str, &str); 3] = [
    ("photo27", include_str!("../templates/photo27.txt")),
    ("authors81", include_str!("../templates/authors81.txt")),
    ("miniature", include_str!("../templates/miniature.txt")),
];

/// Training prompts under a name, in which `[V]` stands for the placeholder token and `[category]` for the class noun.
///
/// Which one a sample takes is the trainer's choice, each as likely as the others; one that stands there twice is twice
/// as likely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSet {
    /// Its name; that of its file, without its ending.
    pub name: String,
    /// At least one.
    pub prompts: Vec<String>,
}

impl TemplateSet {
    /// The names of the sets that need no file: `photo27` is Textual Inversion's as diffusers has it, `authors81` its
    /// authors', `miniature` is in the words of the miniature.
    pub fn names() -> Vec<&'static str> {
        SETS.map(|(name, _)| name).to_vec()
    }

    /// A set by its name, or from a user's file.
    ///
    /// # Errors
    /// When there is neither, and as [`TemplateSet::from_file`].
    pub fn load(name_or_file: &str) -> Result<Self> {
        Self::parse(&text::named(["template set", "templates"], &SETS, name_or_file)?, Path::new(name_or_file))
    }

    /// Reads a text file with a prompt on each line, in which empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// When the file cannot be read, has no prompts, or one of them does not say `[V]`.
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::parse(&text::read("templates", path)?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        let set = Self { name: text::stem(path), prompts: text::lines(text).map(str::to_owned).collect() };
        set.validate().with_context(|| format!("the templates {} cannot be used", path.display()))?;
        Ok(set)
    }

    /// Checks that there are prompts and that each has the placeholder token.
    ///
    /// # Errors
    /// Names the first prompt that does not.
    pub fn validate(&self) -> Result<()> {
        ensure!(!self.prompts.is_empty(), "there is no prompt in them; write one on each line");
        limits::within("the number of templates", self.prompts.len(), 1..=100_000, "each sample takes one")?;
        for (i, prompt) in self.prompts.iter().enumerate() {
            let (number, shown) = (i + 1, terminal::shortened(prompt));
            ensure!(!prompt.contains("{}"), "prompt {number}, {shown:?}, has {{}}; write {TOKEN} in its place");
            ensure!(
                prompt.contains(TOKEN),
                "prompt {number}, {shown:?}, does not name what is learned; write {TOKEN} there, and [category] for \
                 the class noun"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_photo_templates_are_those_of_the_golden() {
        let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/methods/textual_inversion/cases.json");
        let cases: Value = serde_json::from_slice(&std::fs::read(cases).unwrap()).unwrap();
        let theirs =
            cases["templates"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().replace("{}", "[V]"));
        let photos = TemplateSet::load("photo27").unwrap();
        assert!(photos.prompts.iter().cloned().eq(theirs));
        // The authors' list begins with them, and goes on with illustrations and depictions.
        let authors = TemplateSet::load("authors81").unwrap();
        assert_eq!((authors.name.as_str(), authors.prompts.len()), ("authors81", 81));
        assert_eq!(authors.prompts[..27], photos.prompts);
        let depictions = authors.prompts[27..54].iter().map(|text| text.replace("an illustration", "a depiction"));
        assert!(depictions.eq(authors.prompts[54..].iter().cloned()));
        assert_eq!(authors.prompts.iter().filter(|text| text.starts_with("an illustration")).count(), 15);
    }

    #[test]
    fn users_files_have_a_prompt_on_each_line() {
        let folder = tempfile::tempdir().unwrap();
        let load = |name: &str, text: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            TemplateSet::load(&path.display().to_string()).map_err(|error| format!("{error:#}"))
        };
        let set = load("mine.txt", "\u{feff}# mine\n\n a [V] [category] ❄\r\na [V]\na [V]".as_bytes()).unwrap();
        assert_eq!(
            set,
            TemplateSet {
                name: "mine".to_owned(),
                prompts: ["a [V] [category] ❄", "a [V]", "a [V]"].map(str::to_owned).to_vec()
            }
        );
        for (name, text, words) in [
            ("a.txt", &b"a [V]\na dog"[..], r#"prompt 2, "a dog", does not name what is learned; write [V] there"#),
            ("b.txt", b"a {}", "write [V] in its place"),
            ("c.txt", b"# nothing\n", "there is no prompt in them"),
            ("d.txt", b"\xff\xfe", "not UTF-8 text"),
        ] {
            let error = load(name, text).unwrap_err();
            assert!(error.contains(words) && error.contains(name) && !error.contains('\n'), "{error}");
        }
        let error = TemplateSet::load("photo28").unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no template set and no file called \"photo28\"; use a file or one of photo27, authors81, \
             miniature"
        );
    }
}
