//! Loading CLIP's vocabulary and encoding prompts.
#![allow(missing_docs, reason = "made by criterion's macros")]

use std::fs;
use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use tokenizer::Tokenizer;

fn encode(c: &mut Criterion) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    for (file, root) in [("vocab.json", &fixtures), ("merges.txt", &data)] {
        fs::copy(root.join(file), folder.path().join(file)).expect("the fixture is there");
    }
    c.bench_function("load CLIP's vocabulary", |b| b.iter(|| Tokenizer::load(black_box(folder.path()))));

    let tokenizer = Tokenizer::load(folder.path()).expect("the fixture loads");
    let prompt = "An oil painting of a sloth dressed as a musketeer in an old French town";
    let encoding = tokenizer.encode(prompt).expect("a prompt is valid");
    c.bench_function("encode 15 words", |b| b.iter(|| tokenizer.encode(black_box(prompt))));
    c.bench_function("spans of a word", |b| b.iter(|| tokenizer.spans(&encoding, black_box("musketeer"))));
}

criterion_group!(benches, encode);
criterion_main!(benches);
