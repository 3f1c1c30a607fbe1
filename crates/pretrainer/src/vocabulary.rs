//! CLIP's vocabulary without what the world has no word for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::shapes;

/// The single bytes, inside and at the end of a word, have the first ids.
const BYTES: u32 = 512;
const END_OF_WORD: &str = "</w>";

/// Writes a tokenizer folder with the byte alphabet of the one in `from` and those of its merges that turn each of `words`
/// into one token. Any other text still has tokens: its letters, and whatever parts it shares with the words.
pub(crate) fn write_truncated(from: &Path, words: &BTreeSet<String>, to: &Path) -> Result<()> {
    let read = |name: &str| {
        let path = from.join(name);
        limits::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let full: BTreeMap<String, u32> = json::read(&from.join("vocab.json"), "a vocabulary")?;
    let text = read("merges.txt")?;
    let merges: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let ranks: BTreeMap<(&str, &str), usize> = merges.iter().enumerate().map(|(rank, pair)| (*pair, rank)).collect();
    let needed: BTreeSet<usize> = words.iter().flat_map(|word| merges_of(word, &ranks)).collect();

    let mut vocab: BTreeMap<String, u32> = full.into_iter().filter(|(_, id)| *id < BYTES).collect();
    let mut lines = String::from("#version: 0.2\n");
    for &rank in &needed {
        let (left, right) = merges[rank];
        lines.extend([left, " ", right, "\n"]);
        vocab.insert(format!("{left}{right}"), vocab.len() as u32);
    }
    for special in ["<|startoftext|>", "<|endoftext|>"] {
        vocab.insert(special.to_owned(), vocab.len() as u32);
    }
    let special = |content: &str| json!({"content": content, "lstrip": false, "normalized": true, "rstrip": false, "single_word": false});
    let (bos, eos) = (special("<|startoftext|>"), special("<|endoftext|>"));
    let map = json!({"bos_token": bos, "eos_token": eos, "unk_token": eos, "pad_token": "!"});
    let mut config = map.clone();
    config["model_max_length"] = json!(shapes::POSITIONS);
    config["tokenizer_class"] = json!("CLIPTokenizer");
    config["do_lower_case"] = json!(true);
    config["errors"] = json!("replace");
    config["add_prefix_space"] = json!(false);
    atomic::write(&to.join("vocab.json"), serde_json::to_string_pretty(&vocab)?)?;
    atomic::write(&to.join("merges.txt"), lines)?;
    atomic::write(&to.join("special_tokens_map.json"), serde_json::to_string_pretty(&map)?)?;
    atomic::write(&to.join("tokenizer_config.json"), serde_json::to_string_pretty(&config)?)
}

/// The ranks of the merges that a word of plain letters takes, by always joining the pair of the best rank.
fn merges_of(word: &str, ranks: &BTreeMap<(&str, &str), usize>) -> Vec<usize> {
    let mut parts: Vec<String> = word.chars().map(String::from).collect();
    if let Some(last) = parts.last_mut() {
        last.push_str(END_OF_WORD);
    }
    let mut taken = Vec::new();
    loop {
        let pairs = parts.windows(2).enumerate();
        let best = pairs.filter_map(|(i, pair)| Some((*ranks.get(&(pair[0].as_str(), pair[1].as_str()))?, i))).min();
        let Some((rank, place)) = best else { return taken };
        let right = parts.remove(place + 1);
        parts[place].push_str(&right);
        taken.push(rank);
    }
}
