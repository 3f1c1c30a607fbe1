//! Text within SVG or HTML.

use std::fmt::{self, Display, Write};

/// Text as it may stand in an element or a quoted attribute of SVG or HTML: nothing breaks out, and nothing disguises what
/// it says. Control characters but line feeds and tabs, and those that change the direction of writing, are shown as
/// escapes.
///
/// ```
/// assert_eq!(images::Escaped("a <b> & \"c\"").to_string(), "a &lt;b&gt; &amp; &quot;c&quot;");
/// assert_eq!(images::Escaped("dog\u{202e}gnp.\u{1b}").to_string(), r"dog\u{202e}gnp.\u{1b}");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in terminal::escaped_lines(self.0).chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
