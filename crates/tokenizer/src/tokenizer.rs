use std::fmt;
use std::ops::Range;
use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, TokenizerImpl};

use crate::error::{Error, Result};
use crate::folder::{Folder, malformed};

/// CLIP's words: special tokens, English contractions, runs of letters, single digits, runs of anything else.
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// Marks the last token of a word.
pub(crate) const END_OF_WORD: &str = "</w>";

pub(crate) type Backend = TokenizerImpl<BPE, Normalizers, PreTokenizers, ByteLevel, ByteLevel>;

/// A CLIP tokenizer with the special tokens and the length of one model.
#[derive(Clone)]
pub struct Tokenizer {
    pub(crate) backend: Backend,
    pub(crate) max_length: usize,
    pub(crate) bos: Special,
    pub(crate) eos: Special,
    pub(crate) unk: Special,
    pub(crate) pad: Special,
}

#[derive(Clone, Debug)]
pub(crate) struct Special {
    pub(crate) id: u32,
    pub(crate) token: String,
}

/// A prompt as the text encoder takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// BOS, the prompt, EOS and padding: exactly [`Tokenizer::max_length`] ids.
    pub ids: Vec<i64>,
    /// The token at each position as the vocabulary spells it (`cat</w>`), for display.
    pub tokens: Vec<String>,
    /// The bytes of the prompt that each position came from; empty at BOS, EOS and padding. A character that takes
    /// several tokens is named by each of them.
    pub text: Vec<Range<usize>>,
    /// Positions up to and with EOS; the rest is padding.
    pub len: usize,
    /// What did not fit.
    pub truncation: Option<Truncation>,
}

/// The end of a prompt that was too long. Its `Display` is a sentence for a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// How many tokens were cut.
    pub tokens: usize,
    /// The part of the prompt that they stood for.
    pub text: String,
}

impl fmt::Display for Truncation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens, text } = self;
        let text = terminal::shortened(text);
        write!(f, "the prompt is {tokens} token(s) too long and the model will not see its end, {text:?}")
    }
}

impl Tokenizer {
    /// Reads the `tokenizer` folder of a diffusers model.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Unreadable`], [`Error::Malformed`] or [`Error::MissingToken`] with the file.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        Self::from_contents(Folder::read(folder.as_ref())?)
    }

    /// Puts together what a folder holds.
    pub(crate) fn from_contents(contents: Folder) -> Result<Self> {
        let Folder { vocab, merges, vocab_path, added, settings, max_length } = contents;
        let roles = settings.roles();
        let [_, _, (_, unk), _] = &roles;
        let bpe = BPE::builder()
            .vocab_and_merges(vocab.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
            .end_of_word_suffix(END_OF_WORD.into())
            .unk_token(unk.content().into())
            .build()?;
        let mut backend = backend(bpe)?;

        // As in transformers: the listed tokens by id, then the special ones that the list does not have.
        let is_role = |content: &str| roles.iter().any(|(_, token)| token.content() == content);
        let is_listed = |content: &str| added.values().any(|(token, _)| token.content() == content);
        let listed = added.values().map(|(token, _)| token.clone().into_added(is_role(token.content())));
        backend.add_tokens(listed)?;
        for (id, (token, path)) in &added {
            let content = token.content();
            let actual = backend.token_to_id(content);
            if actual != Some(*id) {
                let actual = actual.map_or("no id".into(), |id| format!("id {id}"));
                return Err(malformed(path, format!("the added token {content:?} has id {id} here but gets {actual}")));
            }
        }
        let find = |backend: &Backend, (role, token): &(&'static str, crate::special::Token)| {
            let token = token.content().to_owned();
            match backend.token_to_id(&token) {
                Some(id) => Ok(Special { id, token }),
                None => Err(Error::MissingToken { path: vocab_path.clone(), role, token }),
            }
        };
        let [bos, eos, unk, pad] = roles.each_ref().map(|role| find(&backend, role));
        let (bos, eos, unk, pad) = (bos?, eos?, unk?, pad?);
        let unlisted = roles.into_iter().map(|(_, token)| token).filter(|token| !is_listed(token.content()));
        backend.add_tokens(unlisted.map(|token| token.into_added(true)))?;
        Ok(Self { backend, max_length, bos, eos, unk, pad })
    }

    /// Tokenises a prompt; an empty one is valid. One that is too long is cut, and [`Encoding::truncation`] says so.
    ///
    /// # Errors
    /// [`Error::Backend`] only.
    pub fn encode(&self, prompt: &str) -> Result<Encoding> {
        let full = self.backend.encode(prompt, false)?;
        let kept = full.len().min(self.max_length - 2);

        let mut encoding = Encoding {
            ids: Vec::with_capacity(self.max_length),
            tokens: Vec::with_capacity(self.max_length),
            text: Vec::with_capacity(self.max_length),
            len: kept + 2,
            truncation: None,
        };
        let mut push = |id: u32, token: &str, (start, end): (usize, usize)| {
            encoding.ids.push(i64::from(id));
            encoding.tokens.push(token.to_owned());
            encoding.text.push(start..end);
        };
        let none = (0, 0);
        push(self.bos.id, &self.bos.token, none);
        for i in 0..kept {
            push(full.get_ids()[i], &full.get_tokens()[i], full.get_offsets()[i]);
        }
        push(self.eos.id, &self.eos.token, none);
        for _ in kept + 2..self.max_length {
            push(self.pad.id, &self.pad.token, none);
        }
        encoding.truncation = full.get_offsets().get(kept).map(|&(start, _)| Truncation {
            tokens: full.len() - kept,
            text: prompt.get(start..).unwrap_or_default().to_owned(),
        });
        Ok(encoding)
    }

    /// The text of some ids, as transformers' `decode` writes it: one space after each word.
    ///
    /// # Errors
    /// [`Error::Backend`] only; ids outside the vocabulary are left out.
    pub fn decode(&self, ids: &[i64], skip_special: bool) -> Result<String> {
        let ids: Vec<u32> = ids.iter().filter_map(|&id| u32::try_from(id).ok()).collect();
        let text = self.backend.decode(&ids, skip_special)?.replace(END_OF_WORD, " ");
        // Python's strip() takes these four separators for white space too.
        Ok(text.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)).to_owned())
    }

    /// The token with this id, added ones included.
    #[must_use]
    pub fn token(&self, id: i64) -> Option<String> {
        let id = u32::try_from(id).ok()?;
        let added = self.backend.get_added_vocabulary().get_added_tokens_decoder().get(&id);
        added.map(|token| token.content.clone()).or_else(|| self.backend.id_to_token(id))
    }

    /// The id of exactly this token (a whole word is `cat</w>`), added ones included.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<i64> {
        self.backend.token_to_id(token).map(i64::from)
    }

    /// Entries of the vocabulary without added tokens: 49408 for CLIP.
    #[must_use]
    pub fn vocab_size(&self) -> i64 {
        self.backend.get_vocab_size(false) as i64
    }

    /// Entries with added tokens, which is how many rows the embedding table must have.
    #[must_use]
    pub fn embedding_rows(&self) -> i64 {
        self.backend.get_vocab_size(true) as i64
    }

    /// Positions of an encoding: 77 for CLIP.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The id at position 0.
    #[must_use]
    pub fn bos_id(&self) -> i64 {
        self.bos.id.into()
    }

    /// The id after the prompt.
    #[must_use]
    pub fn eos_id(&self) -> i64 {
        self.eos.id.into()
    }

    /// The id of the positions after EOS: 0 for Stable Diffusion 2.x, that of EOS for 1.x.
    #[must_use]
    pub fn pad_id(&self) -> i64 {
        self.pad.id.into()
    }

    /// Ids of a text, without BOS and EOS and however long.
    pub(crate) fn bare_ids(&self, text: &str) -> Result<Vec<i64>> {
        Ok(self.backend.encode_fast(text, false)?.get_ids().iter().map(|&id| i64::from(id)).collect())
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("added", &(self.embedding_rows() - self.vocab_size()))
            .field("max_length", &self.max_length)
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .field("pad", &self.pad)
            .finish_non_exhaustive()
    }
}

fn backend(bpe: BPE) -> Result<Backend> {
    let white_space = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    let words = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::default().add_prefix_space(false);
    let mut backend = Backend::new(bpe);
    backend.with_normalizer(Some(Normalizers::new(vec![NFC.into(), white_space.into(), Lowercase.into()])))?;
    backend.with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
    backend.with_decoder(Some(ByteLevel::default()));
    Ok(backend)
}
