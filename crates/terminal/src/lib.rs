//! The one place that writes to standard output and standard error.
//!
//! ```
//! terminal::say!("3 images in {}", terminal::path("my photos"));
//! terminal::note!("{} is ignored", "notes.txt");
//! terminal::output!("CLIP-I 0.57");
//! assert_eq!(terminal::path("my photos").to_string(), "'my photos'");
//! assert_eq!(terminal::escaped("\u{1b}[2Jdog").to_string(), "\\u{1b}[2Jdog");
//! ```
//!
//! Invariants: writing never panics and never fails, because a missing reader (a closed pipe, a full device, a dead
//! terminal) is no reason to lose work; no name or prompt in the text can control the terminal.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Writes a line to standard error, as `eprintln!` does.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::to_stderr(::std::format_args!($($text)*)) };
}

/// Writes a line to standard error that begins with `note: `, once in a process.
#[macro_export]
macro_rules! note {
    ($($text:tt)*) => { $crate::note_once(::std::format_args!($($text)*)) };
}

/// Writes a line to standard output, as `println!` does: the result of a command.
#[macro_export]
macro_rules! output {
    ($($text:tt)*) => { $crate::to_stdout(::std::format_args!($($text)*)) };
}

/// The function behind [`say!`]. Words longer than any path are [`shortened`].
pub fn to_stderr(text: fmt::Arguments<'_>) {
    let text = readable(text.to_string());
    let _ = io::stderr().lock().write_all(line(format_args!("{text}")).as_bytes());
}

/// The function behind [`note!`]. Several parts of a command may give the same note, such as on a model that is loaded twice.
pub fn note_once(text: fmt::Arguments<'_>) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let text = text.to_string();
    let is_new = SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(text.clone());
    if is_new {
        to_stderr(format_args!("note: {text}"));
    }
}

/// `text` with the middle of overlong words left out.
fn readable(text: String) -> String {
    // Linux's longest path.
    const MOST: usize = 4096;
    let is_long = |word: &str| word.len() > MOST;
    if !text.split_whitespace().any(is_long) {
        return text;
    }
    let words = text.split_inclusive(char::is_whitespace);
    words.map(|word| if is_long(word) { shortened(word) } else { Cow::Borrowed(word) }).collect()
}

/// The function behind [`output!`].
pub fn to_stdout(text: fmt::Arguments<'_>) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(line(text).as_bytes()).and_then(|()| stdout.flush());
}

/// One string, so that lines of several threads do not mix.
fn line(text: fmt::Arguments<'_>) -> String {
    let mut line = escaped_lines(&text.to_string());
    line.push('\n');
    line
}

/// `text` with everything escaped that could control a terminal or disguise what it says: control characters and those
/// that change the direction of writing. Line feeds too, so that a name cannot pretend to be a message of its own.
pub fn escaped(text: &str) -> impl Display + '_ {
    Escaped { text, keep: |_| false }
}

/// As [`escaped`], but line feeds and tabs stay: for whole messages and tables.
pub fn escaped_lines(text: &str) -> String {
    Escaped { text, keep: |c| matches!(c, '\n' | '\t') }.to_string()
}

/// `text` if it is short, else its beginning and its end with an ellipsis between: for a value in a message, so
/// that the message stays readable.
///
/// ```
/// assert_eq!(terminal::shortened("a dog"), "a dog");
/// assert_eq!(terminal::shortened(&"dog ".repeat(1000)).chars().count(), 160);
/// ```
pub fn shortened(text: &str) -> Cow<'_, str> {
    const MOST: usize = 160;
    const END: usize = 40;
    // Where the characters begin that stay at the end.
    let end = text.char_indices().rev().nth(END - 1);
    match (text.char_indices().nth(MOST - END - 1), text.char_indices().nth(MOST), end) {
        (Some((start, _)), Some(_), Some((end, _))) => Cow::Owned(format!("{}…{}", &text[..start], &text[end..])),
        _ => Cow::Borrowed(text),
    }
}

struct Escaped<'a> {
    text: &'a str,
    keep: fn(char) -> bool,
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.text.chars() {
            if (c.is_control() || reorders(c)) && !(self.keep)(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Whether a character changes the direction of the text around it (Unicode's bidirectional controls), or ends a line
/// other than by a line feed.
fn reorders(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A path as it can be pasted into a shell: quoted where it has to be, with control characters escaped.
pub fn path(path: impl AsRef<Path>) -> impl Display {
    quoted(&path.as_ref().to_string_lossy()).into_owned()
}

/// A word as it can be pasted into a POSIX shell.
pub fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "/._-+:=@%,".contains(c);
    if word.chars().any(|c| c.is_control() || reorders(c)) {
        // $'...' is understood by bash, zsh and ksh.
        let inner = word.chars().map(|c| match c {
            '\'' | '\\' => format!("\\{c}"),
            c if c.is_ascii_control() => format!("\\x{:02x}", u32::from(c)),
            c if c.is_control() || reorders(c) => format!("\\u{:04x}", u32::from(c)),
            c => c.to_string(),
        });
        Cow::Owned(format!("$'{}'", inner.collect::<String>()))
    } else if !word.is_empty() && word.chars().all(plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_controls_the_terminal() {
        assert_eq!(escaped("a\u{1b}[31m\r\n\u{202e}b\u{7f}").to_string(), r"a\u{1b}[31m\r\n\u{202e}b\u{7f}");
        assert_eq!(escaped("Kätzchen 🐱 \u{200d}").to_string(), "Kätzchen 🐱 \u{200d}");
        assert_eq!(escaped_lines("a\tb\nc\u{9b}"), "a\tb\nc\\u{9b}");
    }

    #[test]
    fn a_word_longer_than_any_path_is_shortened_where_it_stands() {
        let path = "/a".repeat(2047);
        let message = format!("error: no file {path},\n  or {}\tthere", "x".repeat(5000));
        let read = readable(message);
        assert!(read.starts_with(&format!("error: no file {path},\n  or xxx")) && read.ends_with("xxx\tthere"));
        assert!(read.len() < 4400, "{}", read.len());
    }

    #[test]
    fn long_values_lose_their_middle() {
        for text in ["", "a dog", &"ä".repeat(160)] {
            assert_eq!(shortened(text), text);
        }
        assert_eq!(shortened(&"ä".repeat(161)), format!("{}…{}", "ä".repeat(119), "ä".repeat(40)));
        let long = format!("from{}to", "🐱".repeat(1 << 20));
        let short = shortened(&long);
        assert!(short.starts_with("from🐱") && short.ends_with("🐱to") && short.chars().count() == 160);
    }

    #[test]
    fn a_path_can_be_pasted() {
        assert_eq!(path("runs/my-dog").to_string(), "runs/my-dog");
        assert_eq!(path("my dog's").to_string(), r"'my dog'\''s'");
        assert_eq!(path("").to_string(), "''");
        assert_eq!(quoted("a\nb\u{202e}"), r"$'a\x0ab\u202e'");
        let shell = |word: &str| {
            let mut bash = std::process::Command::new("bash");
            bash.args(["-c", &format!("printf %s {}", quoted(word))]).env("LC_ALL", "C.UTF-8");
            String::from_utf8(bash.output().unwrap().stdout).unwrap()
        };
        for word in ["plain", "a b", "it's", "$HOME `x` \"y\"", "a\nb\t'c'\\", "ä\u{202e}b"] {
            assert_eq!(shell(word), word);
        }
    }
}
