//! CLIP's own vocabulary, which checkpoints in a single file lack.
//!
//! The merges are those of OpenAI's CLIP (<https://github.com/openai/CLIP>, MIT licence: `data/LICENSE`);
//! the vocabulary follows from them as in `clip/simple_tokenizer.py`: the symbols of the 256 bytes, the same at the end of
//! a word, what each merge makes, and the two special tokens.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use crate::error::Result;
use crate::folder::{Folder, malformed, parse_merges};
use crate::special::Settings;
use crate::tokenizer::{END_OF_WORD, Tokenizer};

const MERGES: &str = include_str!("../data/merges.txt");
const SD1: &str = include_str!("../data/sd15/special_tokens_map.json");
const SD2: &str = include_str!("../data/sd21/special_tokens_map.json");
/// Positions of CLIP's text encoder.
const MAX_LENGTH: usize = 77;

impl Tokenizer {
    /// CLIP's tokenizer as Stable Diffusion 1.x has it, which pads with the end of the text.
    ///
    /// # Errors
    /// None in practice: the vocabulary is part of the program.
    pub fn stable_diffusion_1() -> Result<Self> {
        Self::from_contents(contents(SD1)?)
    }

    /// CLIP's tokenizer as Stable Diffusion 2.x has it, which pads with `!`, the id 0.
    ///
    /// # Errors
    /// None in practice: the vocabulary is part of the program.
    pub fn stable_diffusion_2() -> Result<Self> {
        Self::from_contents(contents(SD2)?)
    }
}

fn contents(special_tokens_map: &str) -> Result<Folder> {
    let place = PathBuf::from("CLIP's vocabulary");
    let settings: Settings =
        serde_json::from_str(special_tokens_map).map_err(|error| malformed(&place, error.to_string()))?;
    let merges = parse_merges(MERGES.as_bytes()).map_err(|reason| malformed(&place, reason))?;
    let symbols = byte_symbols();
    let ends = symbols.iter().map(|symbol| format!("{symbol}{END_OF_WORD}"));
    let made = merges.iter().map(|(left, right)| format!("{left}{right}"));
    let special = ["<|startoftext|>", "<|endoftext|>"].map(str::to_owned);
    let tokens = symbols.iter().map(char::to_string).chain(ends).chain(made).chain(special);
    let vocab: HashMap<String, u32> = tokens.zip(0..).collect();
    Ok(Folder { vocab, merges, vocab_path: place, added: BTreeMap::new(), settings, max_length: MAX_LENGTH })
}

/// A printable character for each byte, first for those that are printable themselves, as in GPT-2's `bytes_to_unicode`.
fn byte_symbols() -> Vec<char> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let own = (0..=u8::MAX).filter(printable).map(char::from);
    let others = (0..=u8::MAX).filter(|byte| !printable(byte)).zip('\u{100}'..).map(|(_, symbol)| symbol);
    own.chain(others).collect()
}
