//! A LoRA file on the command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A LoRA file, and how strongly it counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LoraFile {
    /// The file.
    pub path: PathBuf,
    /// What its changes are multiplied by.
    pub scale: f64,
}

impl fmt::Display for LoraFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.scale)
    }
}

impl FromStr for LoraFile {
    type Err = String;

    /// `FILE` or `FILE:SCALE`; what follows a colon and is no number belongs to the file's name.
    fn from_str(text: &str) -> Result<Self, String> {
        let scaled = text.rsplit_once(':').and_then(|(path, scale)| Some((path, scale.parse::<f64>().ok()?)));
        let (path, scale) = scaled.unwrap_or((text, 1.0));
        if !scale.is_finite() {
            return Err(format!("the scale is {scale}, but must be a finite number"));
        }
        if path.is_empty() {
            return Err("give a file, as in my-dog.safetensors:0.8".to_owned());
        }
        Ok(Self { path: path.into(), scale })
    }
}

impl From<LoraFile> for String {
    fn from(file: LoraFile) -> Self {
        file.to_string()
    }
}

impl TryFrom<String> for LoraFile {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_may_follow_a_colon() {
        let read = |text: &str| text.parse::<LoraFile>().map(|file| (file.path.display().to_string(), file.scale));
        assert_eq!(read("a.safetensors"), Ok(("a.safetensors".to_owned(), 1.0)));
        assert_eq!(read("a:b.safetensors:-0.5"), Ok(("a:b.safetensors".to_owned(), -0.5)));
        assert_eq!(read("a:b.safetensors"), Ok(("a:b.safetensors".to_owned(), 1.0)));
        assert_eq!(read("a:inf"), Err("the scale is inf, but must be a finite number".to_owned()));
        assert!(read(":0.5").is_err() && read("").is_err());
        let file: LoraFile = "a:b:2".parse().unwrap();
        assert_eq!(serde_json::from_value::<LoraFile>(serde_json::to_value(&file).unwrap()).unwrap(), file);
    }
}
