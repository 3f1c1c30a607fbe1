//! The Hugging Face hub as the caller's environment has it.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Result, bail};

use crate::manifest::Source;

/// Where to ask, as whom, and what is cached, read as Python's `huggingface_hub` reads it.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    pub(crate) endpoint: String,
    pub(crate) token: Option<String>,
    pub(crate) cache: Option<PathBuf>,
    /// Nothing is to be asked of the network.
    pub(crate) offline: bool,
    /// The folder with a folder for each model.
    pub(crate) models: PathBuf,
}

impl Environment {
    pub(crate) fn read() -> Result<Self> {
        Self::new(|name| env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()))
    }

    pub(crate) fn new(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            bail!("HF_ENDPOINT is {endpoint:?}, which is not an address: write it like https://huggingface.co");
        }
        let home = get("HF_HOME").map(PathBuf::from).or_else(|| {
            let caches = get("XDG_CACHE_HOME").map(PathBuf::from);
            Some(caches.or_else(|| Some(PathBuf::from(get("HOME")?).join(".cache")))?.join("huggingface"))
        });
        let stored_token = || {
            let path = get("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join("token")))?;
            Some(limits::read_to_string(&path).ok()?.trim().to_owned()).filter(|token| !token.is_empty())
        };
        let cache = get("HF_HUB_CACHE").or_else(|| get("HUGGINGFACE_HUB_CACHE")).map(PathBuf::from);
        let is_true = |value: String| matches!(&*value.to_ascii_uppercase(), "1" | "ON" | "YES" | "TRUE");
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: get("HF_TOKEN").or_else(stored_token),
            cache: cache.or_else(|| Some(home.as_ref()?.join("hub"))),
            offline: get("HF_HUB_OFFLINE").is_some_and(is_true),
            models: get("ATTNDREAMBOOTH_MODELS").unwrap_or_else(|| "models".to_owned()).into(),
        })
    }

    /// The address of the file `path` at `source`.
    pub(crate) fn address(&self, source: &Source, path: &str) -> String {
        match source {
            Source::Hub { repo, revision } => {
                format!("{}/{repo}/resolve/{}/{path}", self.endpoint, revision.replace('/', "%2F"))
            }
            Source::ModelScope { repo } => format!("https://www.modelscope.cn/models/{repo}/resolve/master/{path}"),
            Source::Address(template) => template.replace("{path}", path),
        }
    }

    /// The token, for the hub alone: nobody else is shown it.
    pub(crate) fn token_for(&self, source: &Source) -> Option<&str> {
        self.token.as_deref().filter(|_| matches!(source, Source::Hub { .. }))
    }

    /// The folders of a repository in the Hugging Face cache: first of the revision asked for, then of any other.
    pub(crate) fn snapshots(&self, source: &Source) -> Vec<PathBuf> {
        let (Source::Hub { repo, revision }, Some(cache)) = (source, &self.cache) else { return Vec::new() };
        let folder = cache.join(format!("models--{}", repo.replace('/', "--")));
        let commit = limits::read_to_string(&folder.join("refs").join(revision)).unwrap_or_else(|_| revision.clone());
        let snapshots = folder.join("snapshots");
        let asked = snapshots.join(commit.trim());
        let others = fs::read_dir(snapshots).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut others: Vec<PathBuf> = others.filter(|other| *other != asked).collect();
        others.sort();
        others.insert(0, asked);
        others
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn source(text: &str) -> Source {
        Source::try_from(text.to_owned()).unwrap()
    }

    fn environment(variables: &[(&str, &str)]) -> Result<Environment> {
        Environment::new(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn addresses_are_those_of_the_hubs() {
        let hub = environment(&[("HF_ENDPOINT", "https://hub.example/"), ("HOME", "/nowhere")]).unwrap();
        for (text, address) in [
            ("hub:a/b", "https://hub.example/a/b/resolve/main/unet/config.json"),
            ("hub:a/b@refs/pr/15", "https://hub.example/a/b/resolve/refs%2Fpr%2F15/unet/config.json"),
            ("modelscope:a/b", "https://www.modelscope.cn/models/a/b/resolve/master/unet/config.json"),
            ("https://x.example/{path}?download=true", "https://x.example/unet/config.json?download=true"),
        ] {
            assert_eq!(hub.address(&source(text), "unet/config.json"), address);
        }
    }

    #[test]
    fn the_environment_is_read_as_huggingface_hub_reads_it() {
        let bare = environment(&[("HOME", "/home/u")]).unwrap();
        assert_eq!(bare.address(&source("hub:a/b"), "x"), "https://huggingface.co/a/b/resolve/main/x");
        assert_eq!(bare.cache.unwrap(), Path::new("/home/u/.cache/huggingface/hub"));
        assert!(bare.token.is_none() && !bare.offline);
        let xdg = environment(&[("HOME", "/home/u"), ("XDG_CACHE_HOME", "/c")]).unwrap();
        assert_eq!(xdg.cache.unwrap(), Path::new("/c/huggingface/hub"));
        let home = environment(&[("HF_HOME", "/h"), ("HF_HUB_OFFLINE", "yes")]).unwrap();
        assert!(home.offline);
        assert_eq!(home.cache.unwrap(), Path::new("/h/hub"));
        let cache = environment(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/k"), ("HF_HUB_OFFLINE", "0")]).unwrap();
        assert!(!cache.offline);
        assert_eq!(cache.cache.unwrap(), Path::new("/k"));
        assert!(environment(&[("HF_ENDPOINT", "hub.example")]).is_err());
    }

    #[test]
    fn the_token_is_for_the_hub_alone() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "stored\n").unwrap();
        let stored = environment(&[("HF_HOME", home.path().to_str().unwrap())]).unwrap();
        assert_eq!(stored.token_for(&source("hub:a/b")), Some("stored"));
        let given = environment(&[("HF_HOME", home.path().to_str().unwrap()), ("HF_TOKEN", "given")]).unwrap();
        assert_eq!(given.token_for(&source("hub:a/b")), Some("given"));
        assert_eq!(given.token_for(&source("modelscope:a/b")), None);
        assert_eq!(given.token_for(&source("https://x.example/{path}")), None);
    }
}
