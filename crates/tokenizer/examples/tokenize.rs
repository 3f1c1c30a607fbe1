//! Shows a prompt as the text encoder takes it: `cargo run -p tokenizer --example tokenize -- FOLDER PROMPT [PHRASE]`,
//! for instance with `fixtures/tokenizer/tiny "a photo of a cat" cat`. The phrase's positions get a mark.
#![allow(clippy::print_stdout, reason = "the table is what it is for")]

use anyhow::{Context, Result};
use tokenizer::Tokenizer;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "give the folder of a tokenizer and a prompt";
    let (folder, prompt) = (arguments.next().context(usage)?, arguments.next().context(usage)?);

    let tokenizer = Tokenizer::load(folder)?;
    let encoding = tokenizer.encode(&prompt)?;
    let spans = arguments.next().map_or(Ok(Vec::new()), |phrase| tokenizer.spans(&encoding, &phrase))?;

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
