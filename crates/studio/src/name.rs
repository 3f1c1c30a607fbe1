//! Names of runs, sets of photos and models: all that a page may say of a place.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, bail};
use serde::{Deserialize, Serialize};

/// One name within a folder: never a path, and never hidden.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Name(String);

/// What file systems allow.
const LONGEST: usize = 100;

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// As a part of an address.
    pub(crate) fn url(&self) -> String {
        encoded(&self.0)
    }
}

/// A text as a part of an address: all but unreserved characters (RFC 3986) as `%XX`.
pub(crate) fn encoded(text: &str) -> String {
    let mut url = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => url.push(byte.into()),
            byte => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let shown = terminal::shortened(text);
        if text.is_empty() {
            bail!("a name is missing");
        }
        if text.len() > LONGEST {
            bail!("the name {shown:?} is longer than {LONGEST} bytes");
        }
        let wrong = |c: char| c.is_control() || matches!(c, '/' | '\\' | ':');
        if text.starts_with(['.', '-']) || text.contains(wrong) || text.trim() != text {
            bail!("{shown:?} cannot be a name: use letters, digits, - and _, and begin with a letter or a digit");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_elsewhere() {
        for name in ["my-dog", "Käthe 2", "a_b.c", "10_dog", "100%"] {
            assert_eq!(name.parse::<Name>().unwrap().as_str(), name);
        }
        let long = "x".repeat(101);
        for name in ["", ".", "..", "../x", "a/b", "a\\b", "/etc", "-rf", ".hidden", "a\0b", "a\nb", " a", "C:x", &long]
        {
            assert!(name.parse::<Name>().is_err(), "{name:?}");
            assert!(serde_json::from_value::<Name>(name.into()).is_err());
        }
        assert_eq!(encoded("Käthe 2/?"), "K%C3%A4the%202%2F%3F");
    }
}
