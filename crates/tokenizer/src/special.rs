//! The special tokens, as `special_tokens_map.json` and `tokenizer_config.json` give them.

use std::collections::BTreeMap;

use serde::Deserialize;
use tokenizers::AddedToken;

/// A token as these files write it: its text, or an object with flags as well.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Token {
    Text(String),
    Flagged {
        content: String,
        #[serde(default)]
        single_word: bool,
        #[serde(default)]
        lstrip: bool,
        #[serde(default)]
        rstrip: bool,
        normalized: Option<bool>,
        #[serde(default)]
        special: bool,
    },
}

impl Token {
    pub(crate) fn content(&self) -> &str {
        match self {
            Self::Text(content) | Self::Flagged { content, .. } => content,
        }
    }

    /// `special` makes it so even where the file does not say it. A special token is searched for in the text as
    /// written, any other in the normalized text, unless the file says otherwise.
    pub(crate) fn into_added(self, special: bool) -> AddedToken {
        match self {
            Self::Text(content) => AddedToken::from(content, special),
            Self::Flagged { content, single_word, lstrip, rstrip, normalized, special: flagged } => {
                let special = special || flagged;
                AddedToken { content, single_word, lstrip, rstrip, normalized: normalized.unwrap_or(!special), special }
            }
        }
    }
}

/// The keys of either file that matter here; all others are ignored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    pub(crate) bos_token: Option<Token>,
    pub(crate) eos_token: Option<Token>,
    pub(crate) unk_token: Option<Token>,
    pub(crate) pad_token: Option<Token>,
    /// A float, because transformers writes 1e30 for "no limit".
    pub(crate) model_max_length: Option<f64>,
    /// Id to token; transformers has written it since version 4.34.
    pub(crate) added_tokens_decoder: Option<BTreeMap<u32, Token>>,
}

impl Settings {
    /// These, and where they are silent, `other`.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            bos_token: self.bos_token.or(other.bos_token),
            eos_token: self.eos_token.or(other.eos_token),
            unk_token: self.unk_token.or(other.unk_token),
            pad_token: self.pad_token.or(other.pad_token),
            model_max_length: self.model_max_length.or(other.model_max_length),
            added_tokens_decoder: self.added_tokens_decoder.or(other.added_tokens_decoder),
        }
    }

    /// Role and token of each, with CLIP's defaults, in the order in which transformers adds them: where two roles
    /// share a token, the flags of the later one hold.
    pub(crate) fn roles(&self) -> [(&'static str, Token); 4] {
        let or = |token: &Option<Token>, default: &str| token.clone().unwrap_or_else(|| Token::Text(default.into()));
        [
            ("bos_token", or(&self.bos_token, "<|startoftext|>")),
            ("eos_token", or(&self.eos_token, "<|endoftext|>")),
            ("unk_token", or(&self.unk_token, "<|endoftext|>")),
            ("pad_token", or(&self.pad_token, "<|endoftext|>")),
        ]
    }
}
