//! Reading and checking the files of a tokenizer folder.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::special::{Settings, Token};

/// Positions of CLIP's text encoder.
const DEFAULT_MAX_LENGTH: usize = 77;
/// Values of `model_max_length` from here on mean "not set".
const NO_LIMIT: f64 = 1e6;

/// The files of a tokenizer folder that are read, where they are there.
pub const FILES: [&str; 6] = [
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
];

pub(crate) type Merges = Vec<(String, String)>;

/// A folder's contents, checked: ids run from 0 without gaps, and each merge joins two tokens to a third.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) vocab: HashMap<String, u32>,
    pub(crate) merges: Merges,
    /// The file that the vocabulary came from, for messages.
    pub(crate) vocab_path: PathBuf,
    /// Tokens beyond the vocabulary or with flags of their own, by id, and the file that lists them.
    pub(crate) added: BTreeMap<u32, (Token, PathBuf)>,
    pub(crate) settings: Settings,
    pub(crate) max_length: usize,
}

impl Folder {
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let (vocabulary, vocab_path) = Vocabulary::read(folder)?;

        let config_path = folder.join("tokenizer_config.json");
        let config: Settings = read_json(&config_path)?.unwrap_or_default();
        let max_length = max_length(&config, &config_path)?;
        let mut added = BTreeMap::new();
        let settings = if let Some(complete) = &config.added_tokens_decoder {
            added.extend(complete.iter().map(|(&id, token)| (id, (token.clone(), config_path.clone()))));
            config
        } else {
            let path = folder.join("added_tokens.json");
            let listed: HashMap<String, u32> = read_json(&path)?.unwrap_or_default();
            added.extend(listed.into_iter().map(|(token, id)| (id, (Token::Text(token), path.clone()))));
            added.extend(vocabulary.added.into_iter().map(|t| (t.id, (t.token, vocab_path.clone()))));
            let map: Settings = read_json(&folder.join("special_tokens_map.json"))?.unwrap_or_default();
            map.or(config)
        };
        Ok(Self { vocab: vocabulary.vocab, merges: vocabulary.merges, vocab_path, added, settings, max_length })
    }
}

fn max_length(config: &Settings, path: &Path) -> Result<usize> {
    match config.model_max_length {
        Some(length) if length < 3.0 => Err(malformed(
            path,
            format!("model_max_length is {length}, which has no room for a prompt between BOS and EOS"),
        )),
        Some(length) if length < NO_LIMIT => Ok(length as usize),
        _ => Ok(DEFAULT_MAX_LENGTH),
    }
}

struct Vocabulary {
    vocab: HashMap<String, u32>,
    merges: Merges,
    added: Vec<NumberedToken>,
}

/// An entry of `added_tokens` in `tokenizer.json`.
#[derive(Deserialize)]
struct NumberedToken {
    id: u32,
    #[serde(flatten)]
    token: Token,
}

impl Vocabulary {
    fn read(folder: &Path) -> Result<(Self, PathBuf)> {
        let path = folder.join("tokenizer.json");
        if let Some(file) = read_json::<TokenizerJson>(&path)? {
            let merges = file.model.merges.into_iter().map(Merge::into_pair).collect::<Option<_>>();
            let merges = merges.ok_or_else(|| malformed(&path, "an entry of model.merges is not a pair"))?;
            let this = Self { vocab: file.model.vocab, merges, added: file.added_tokens };
            check_ids(&this.vocab, &path)?;
            check_merges(&this.vocab, &this.merges, &path)?;
            return Ok((this, path));
        }
        let (vocab_path, merges_path) = (folder.join("vocab.json"), folder.join("merges.txt"));
        let vocab: Option<HashMap<String, u32>> = read_json(&vocab_path)?;
        let text = read(&merges_path)?;
        let missing = |missing| Err(Error::Missing { folder: folder.to_owned(), missing });
        let (vocab, text) = match (vocab, text) {
            (Some(vocab), Some(text)) => (vocab, text),
            (Some(_), None) => return missing("merges.txt"),
            (None, Some(_)) => return missing("vocab.json"),
            (None, None) => return missing("tokenizer.json, or vocab.json and merges.txt,"),
        };
        check_ids(&vocab, &vocab_path)?;
        let merges = parse_merges(&text).map_err(|reason| malformed(&merges_path, reason))?;
        check_merges(&vocab, &merges, &merges_path)?;
        Ok((Self { vocab, merges, added: Vec::new() }, vocab_path))
    }
}

#[derive(Deserialize)]
struct TokenizerJson {
    model: BpeJson,
    #[serde(default)]
    added_tokens: Vec<NumberedToken>,
}

#[derive(Deserialize)]
struct BpeJson {
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

/// Newer files hold `["a", "b"]`, older ones `"a b"`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

impl Merge {
    fn into_pair(self) -> Option<(String, String)> {
        match self {
            Self::Pair(left, right) => Some((left, right)),
            Self::Line(line) => split_pair(&line),
        }
    }
}

fn split_pair(line: &str) -> Option<(String, String)> {
    let (left, right) = line.split_once(' ')?;
    let whole = !left.is_empty() && !right.is_empty() && !right.contains(' ');
    whole.then(|| (left.to_owned(), right.to_owned()))
}

/// One merge a line, best first; a `#version` line may stand at the top.
pub(crate) fn parse_merges(text: &[u8]) -> std::result::Result<Merges, String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8 text")?.trim_start_matches('\u{feff}');
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"));
    lines
        .map(|(i, line)| {
            split_pair(line).ok_or_else(|| {
                format!("line {} is {:?} and not two tokens and a space", i + 1, terminal::shortened(line))
            })
        })
        .collect()
}

fn check_ids(vocab: &HashMap<String, u32>, path: &Path) -> Result<()> {
    let mut owners = vec![None; vocab.len()];
    for (token, &id) in vocab {
        let Some(owner) = owners.get_mut(id as usize) else {
            let reason =
                format!("{token:?} has id {id}, but {} tokens have the ids 0 to {}", vocab.len(), vocab.len() - 1);
            return Err(malformed(path, reason));
        };
        if let Some(other) = owner.replace(token) {
            return Err(malformed(path, format!("{token:?} and {other:?} both have id {id}")));
        }
    }
    Ok(())
}

fn check_merges(vocab: &HashMap<String, u32>, merges: &Merges, path: &Path) -> Result<()> {
    let mut joined = String::new();
    for (left, right) in merges {
        joined.clear();
        joined.extend([left.as_str(), right]);
        if let Some(unknown) = [left, right, &joined].into_iter().find(|&token| !vocab.contains_key(token)) {
            let unknown = terminal::shortened(unknown);
            let reason = format!(
                "the merge {:?} needs the token {unknown:?}, which the vocabulary lacks",
                terminal::shortened(&format!("{left} {right}"))
            );
            return Err(malformed(path, reason));
        }
    }
    Ok(())
}

pub(crate) fn malformed(path: &Path, reason: impl Into<String>) -> Error {
    Error::Malformed { path: path.to_owned(), reason: reason.into() }
}

/// `None` where there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match limits::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(cause) => Err(Error::Unreadable { path: path.to_owned(), cause }),
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    json::parse(&bytes).map(Some).map_err(|error| malformed(path, error.to_string()))
}
