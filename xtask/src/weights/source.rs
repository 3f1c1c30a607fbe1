//! Where model files are offered, and how the Hugging Face environment variables bear on that.

use std::path::{Path, PathBuf};
use std::{env, fmt, fs};

use anyhow::bail;
use serde::Deserialize;

/// A place that offers a model's files, written `hub:OWNER/NAME[@REVISION]`, `modelscope:OWNER/NAME` or as an address
/// in which `{path}` stands for the file's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum Source {
    Hub { repo: String, revision: String },
    ModelScope { repo: String },
    Address(String),
}

impl TryFrom<String> for Source {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_repo = |repo: &str| repo.split('/').count() == 2 && !repo.contains("..");
        if let Some(place) = text.strip_prefix("hub:") {
            let (repo, revision) = place.split_once('@').unwrap_or((place, "main"));
            if is_repo(repo) && !revision.is_empty() {
                return Ok(Self::Hub { repo: repo.to_owned(), revision: revision.to_owned() });
            }
        } else if let Some(repo) = text.strip_prefix("modelscope:") {
            if is_repo(repo) {
                return Ok(Self::ModelScope { repo: repo.to_owned() });
            }
        } else if text.starts_with("http") && text.contains("{path}") {
            return Ok(Self::Address(text));
        }
        Err(format!("{text:?} is none of hub:OWNER/NAME[@REVISION], modelscope:OWNER/NAME and http...{{path}}"))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub { repo, revision } if revision == "main" => write!(formatter, "{repo}"),
            // A commit is told by its first digits.
            Self::Hub { repo, revision } => write!(formatter, "{repo}@{}", revision.get(..12).unwrap_or(revision)),
            Self::ModelScope { repo } => write!(formatter, "ModelScope {repo}"),
            Self::Address(template) => write!(formatter, "{}", template.replace("/{path}", "")),
        }
    }
}

/// The Hugging Face hub as the caller's environment has it.
#[derive(Debug)]
pub(super) struct Hub {
    endpoint: String,
    token: Option<String>,
    cache: Option<PathBuf>,
    /// Nothing is to be asked of the network.
    pub(super) offline: bool,
}

impl Hub {
    /// From `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`, `HF_HUB_CACHE` and `HF_HOME`, with huggingface_hub's defaults.
    pub(super) fn from_env() -> anyhow::Result<Self> {
        Self::new(|name| env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()))
    }

    fn new(get: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
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
        })
    }

    /// The address of the file `path` at `source`.
    pub(super) fn address(&self, source: &Source, path: &str) -> String {
        match source {
            Source::Hub { repo, revision } => {
                format!("{}/{repo}/resolve/{}/{path}", self.endpoint, revision.replace('/', "%2F"))
            }
            Source::ModelScope { repo } => format!("https://www.modelscope.cn/models/{repo}/resolve/master/{path}"),
            Source::Address(template) => template.replace("{path}", path),
        }
    }

    /// The token, for the hub alone: nobody else is shown it.
    pub(super) fn token_for(&self, source: &Source) -> Option<&str> {
        self.token.as_deref().filter(|_| matches!(source, Source::Hub { .. }))
    }

    /// The file in the Hugging Face cache: first of the revision asked for, then of any other, which only a known hash
    /// can make acceptable.
    pub(super) fn cached(&self, source: &Source, path: &str, any_revision: bool) -> Vec<PathBuf> {
        let (Source::Hub { repo, revision }, Some(cache)) = (source, &self.cache) else { return Vec::new() };
        let folder = cache.join(format!("models--{}", repo.replace('/', "--")));
        let commit = fs::read_to_string(folder.join("refs").join(revision)).unwrap_or_else(|_| revision.clone());
        let snapshots = folder.join("snapshots");
        let mut found = vec![snapshots.join(commit.trim())];
        if any_revision {
            let mut others: Vec<_> =
                fs::read_dir(snapshots).into_iter().flatten().flatten().map(|e| e.path()).collect();
            others.retain(|other| *other != found[0]);
            others.sort();
            found.extend(others);
        }
        found.into_iter().map(|snapshot| snapshot.join(Path::new(path))).filter(|file| file.is_file()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::try_from(text.to_owned()).unwrap()
    }

    fn hub(variables: &[(&str, &str)]) -> anyhow::Result<Hub> {
        Hub::new(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn addresses_are_those_of_the_hubs() {
        let hub = hub(&[("HF_ENDPOINT", "https://hub.example/"), ("HOME", "/nowhere")]).unwrap();
        for (text, address) in [
            ("hub:a/b", "https://hub.example/a/b/resolve/main/unet/config.json"),
            ("hub:a/b@refs/pr/15", "https://hub.example/a/b/resolve/refs%2Fpr%2F15/unet/config.json"),
            ("modelscope:a/b", "https://www.modelscope.cn/models/a/b/resolve/master/unet/config.json"),
            ("https://x.example/{path}?download=true", "https://x.example/unet/config.json?download=true"),
        ] {
            assert_eq!(hub.address(&source(text), "unet/config.json"), address);
        }
        for wrong in ["hub:a", "hub:a/b@", "hub:a/../b", "modelscope:", "https://x.example/", "ftp://x/{path}"] {
            assert!(Source::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_environment_is_read_as_huggingface_hub_reads_it() {
        let bare = hub(&[("HOME", "/home/u")]).unwrap();
        assert_eq!(bare.address(&source("hub:a/b"), "x"), "https://huggingface.co/a/b/resolve/main/x");
        assert_eq!(bare.cache.unwrap(), Path::new("/home/u/.cache/huggingface/hub"));
        assert!(bare.token.is_none() && !bare.offline);
        let xdg = hub(&[("HOME", "/home/u"), ("XDG_CACHE_HOME", "/c")]).unwrap();
        assert_eq!(xdg.cache.unwrap(), Path::new("/c/huggingface/hub"));
        let home = hub(&[("HF_HOME", "/h"), ("HF_HUB_OFFLINE", "yes")]).unwrap();
        assert!(home.offline);
        assert_eq!(home.cache.unwrap(), Path::new("/h/hub"));
        let cache = hub(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/k"), ("HF_HUB_OFFLINE", "0")]).unwrap();
        assert!(!cache.offline);
        assert_eq!(cache.cache.unwrap(), Path::new("/k"));
        assert!(hub(&[("HF_ENDPOINT", "hub.example")]).is_err());
    }

    #[test]
    fn the_token_is_for_the_hub_alone() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "stored\n").unwrap();
        let stored = hub(&[("HF_HOME", home.path().to_str().unwrap())]).unwrap();
        assert_eq!(stored.token_for(&source("hub:a/b")), Some("stored"));
        let given = hub(&[("HF_HOME", home.path().to_str().unwrap()), ("HF_TOKEN", "given")]).unwrap();
        assert_eq!(given.token_for(&source("hub:a/b")), Some("given"));
        assert_eq!(given.token_for(&source("modelscope:a/b")), None);
        assert_eq!(given.token_for(&source("https://x.example/{path}")), None);
    }
}
