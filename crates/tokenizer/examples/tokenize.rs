//! Shows a prompt as the text encoder takes it: `cargo run -p attndreambooth-tokenizer --example tokenize -- [FOLDER [PROMPT
//! [PHRASE]]]`. The phrase's positions get a mark. Without arguments, a small vocabulary in fixtures shows it.
#![allow(clippy::print_stdout, reason = "the table is what it is for")]

use anyhow::Result;
use tokenizer::Tokenizer;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let folder = next(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tokenizer/tiny"));
    let (prompt, phrase) = (next("a photo of a cat"), next("cat"));

    let tokenizer = Tokenizer::load(folder)?;
    let encoding = tokenizer.encode(&prompt)?;
    let spans = tokenizer.spans(&encoding, &phrase)?;

    println!("position     id  token                 text");
    for (position, range) in encoding.text.iter().enumerate().take(encoding.len) {
        let mark = if spans.iter().any(|span| span.contains(&position)) { '*' } else { ' ' };
        let (id, token) = (encoding.ids[position], &encoding.tokens[position]);
        println!("{position:>8} {id:>6}{mark} {token:<20}  {:?}", &prompt[range.clone()]);
    }
    println!("{} positions of padding, id {}", encoding.ids.len() - encoding.len, tokenizer.pad_id());
    if let Some(truncation) = encoding.truncation {
        println!("{truncation}");
    }
    Ok(())
}
