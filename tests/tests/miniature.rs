//! What the miniature is to learn subjects with is in its own words.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use prompts::{SizePhrases, TemplateSet, with_phrase};
use scenes::World;
use tokenizer::Tokenizer;

#[test]
fn templates_and_size_phrases_are_words_of_its_captions_of_one_token_each() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/miniature");
    let (tokenizer, words) = (Tokenizer::load(model.join("tokenizer")).unwrap(), World::miniature().words());
    let phrases = SizePhrases::load("miniature").unwrap();
    let sized = phrases.far.iter().chain(&phrases.near).map(|phrase| with_phrase(phrase, "a photo of a [V]"));
    let mut seen = 0;
    for prompt in TemplateSet::load("miniature").unwrap().prompts.into_iter().chain(sized) {
        for word in prompt.split(' ').filter(|word| !["[V]", "[category]"].contains(word)) {
            assert!(words.contains(word), "no caption has {word:?} of {prompt:?}");
            let (bos, eos) = (tokenizer.bos_id(), tokenizer.eos_id());
            let ids = tokenizer.encode(word).unwrap().ids;
            assert!(matches!(ids[..3], [a, b, c] if a == bos && b != eos && c == eos), "{word:?} has several tokens");
            seen += 1;
        }
    }
    assert!(seen > 10);
}
