//! What the files of an upload are called: photos, and the captions and masks beside them.

use std::collections::{HashMap, HashSet};

use crate::name::Name;

/// The names of the files of an upload: numbers, as two photos may be called the same; a file beside a photo has the photo's.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// The number of each name without the end, such as that of captions and masks.
    numbers: HashMap<String, usize>,
    files: HashSet<String>,
    last: usize,
    /// How many were given.
    pub(crate) given: usize,
}

impl Names {
    /// A name for a file that is uploaded as `name`: the last part of it, if that is one.
    pub(crate) fn give(&mut self, name: &str) -> String {
        let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
        let plain: String =
            last.chars().filter(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ')).take(80).collect();
        let name = plain.trim_matches(['.', ' ', '-']);
        let name = name.parse().map_or_else(|_| ".image".to_owned(), |name: Name| format!("-{name}"));
        self.given += 1;
        let numbered = |number: usize| format!("{number:02}{name}");
        let known = self.numbers.get(of_photo(&name)).map(|number| numbered(*number));
        let file = known.filter(|file| !self.files.contains(file)).unwrap_or_else(|| {
            self.last += 1;
            self.numbers.insert(of_photo(&name).to_owned(), self.last);
            numbered(self.last)
        });
        self.files.insert(file.clone());
        file
    }
}

/// A file's name without its extension, and without the end of a mask's name.
fn of_photo(name: &str) -> &str {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    ["-masklabel", "-mask", "_mask", ".mask"].iter().find_map(|end| stem.strip_suffix(end)).unwrap_or(stem)
}

/// Whether a file is called as a caption or a mask is.
pub(crate) fn is_beside(name: &str) -> bool {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    is_caption(name) || of_photo(name) != stem
}

/// Whether a file is called as a caption is.
pub(crate) fn is_caption(name: &str) -> bool {
    [".txt", ".caption"].iter().any(|end| name.to_ascii_lowercase().ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_the_last_part_of_what_a_browser_gives() {
        for (given, expected) in [
            ("dog.jpg", "01-dog.jpg"),
            ("../../etc/passwd", "01-passwd"),
            ("C:\\photos\\dog.JPG", "01-dog.JPG"),
            ("..", "01.image"),
            ("", "01.image"),
            (".hidden.png", "01-hidden.png"),
            ("Ein Hündchen 🐕.jpg", "01-Ein Hündchen .jpg"),
        ] {
            assert_eq!(Names::default().give(given), expected);
        }
    }

    #[test]
    fn captions_and_masks_have_the_number_of_their_photo() {
        let mut names = Names::default();
        let given = ["b.txt", "a.jpg", "b.jpg", "a-masklabel.png", "a.caption", "a.jpg", "x/a.jpg", "b_mask.png"];
        let expected = [
            "01-b.txt",
            "02-a.jpg",
            "01-b.jpg",
            "02-a-masklabel.png",
            "02-a.caption",
            "03-a.jpg",
            "04-a.jpg",
            "01-b_mask.png",
        ];
        assert_eq!(given.map(|name| names.give(name)), expected);
        assert_eq!(expected.map(is_beside), [true, false, false, true, true, false, false, true]);
    }
}
