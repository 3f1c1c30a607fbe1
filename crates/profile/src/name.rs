//! What spans are called.

use std::fmt;

/// The name of a span, such as `vae/decode`: the area of the program before the first slash, and the part of it. From a
/// text, or from a text and a number: `("unet/down_blocks", 0)` is `unet/down_blocks.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    text: &'static str,
    number: Option<usize>,
}

impl Name {
    /// What stands before the first slash; all of it where there is none.
    pub(crate) fn area(&self) -> &'static str {
        self.text.split('/').next().unwrap_or(self.text)
    }
}

impl From<&'static str> for Name {
    fn from(text: &'static str) -> Self {
        Self { text, number: None }
    }
}

impl From<(&'static str, usize)> for Name {
    fn from((text, number): (&'static str, usize)) -> Self {
        Self { text, number: Some(number) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => write!(f, "{}.{number}", self.text),
            None => f.write_str(self.text),
        }
    }
}
