//! CLIP's byte-pair tokenizer, read from the `tokenizer` folder of a diffusers model.
//!
//! ```
//! use tokenizer::Tokenizer;
//!
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tokenizer/tiny");
//! let mut tokenizer = Tokenizer::load(folder)?;
//! let ids = tokenizer.add_placeholder("<new>", 1)?;
//! assert_eq!(ids, [tokenizer.vocab_size()]); // the first row after the embedding table
//!
//! let encoding = tokenizer.encode("a photo of a <new>, a photo.")?;
//! assert_eq!(encoding.ids.len(), 77); // BOS, the prompt, EOS, padding
//! assert_eq!(encoding.ids[5], ids[0]);
//! assert_eq!(tokenizer.spans(&encoding, "<new>")?, [5..6]);
//! assert_eq!(tokenizer.spans(&encoding, "photo")?, [2..3, 8..9]);
//! assert!(encoding.truncation.is_none());
//! # Ok::<(), tokenizer::Error>(())
//! ```
//!
//! # What it equals
//!
//! The ids are those of transformers 5's `CLIPTokenizer` called with
//! `padding="max_length", truncation=True, max_length=77`: NFC, runs of white space to one space, lower case, CLIP's
//! word pattern, byte-level BPE with `</w>` at the end of a word. Special and added tokens are cut out of the text
//! first, so in Stable Diffusion 2.x, whose pad token is `!`, every `!` of a prompt is the pad id 0.
//!
//! The slow tokenizer of transformers 4 differs on unusual characters only: with `ftfy` installed it straightens curly
//! quotes and decodes HTML entities, ligatures and full-width letters (41 of the 344 strings in
//! `fixtures/tokenizer/prompts.py`); without it, it splits between Chinese characters and drops control and format
//! characters (53 of them). Ordinary English prompts give the same ids in all three.
//!
//! # Without a folder
//!
//! [`Tokenizer::stable_diffusion_1`] and [`Tokenizer::stable_diffusion_2`] have CLIP's vocabulary with them, for checkpoints
//! in a single file, which hold none.
//!
//! # Which of the folder's files count
//!
//! `tokenizer.json` if present (only its vocabulary, merges and added tokens), else `vocab.json` and `merges.txt`. The
//! pad, BOS and EOS tokens come from `special_tokens_map.json`, which wins over `tokenizer_config.json` unless the latter
//! holds `added_tokens_decoder` and so is complete by itself; this too is what transformers does.
//!
//! Invariants: knows nothing of tensors or models. An [`Encoding`] has exactly [`Tokenizer::max_length`] ids. A
//! placeholder is one token wherever it stands.

mod clip;
mod error;
mod folder;
mod placeholder;
mod save;
mod span;
mod special;
mod tokenizer;

pub use error::Error;
pub use folder::FILES;
pub use tokenizer::{Encoding, Tokenizer, Truncation};
