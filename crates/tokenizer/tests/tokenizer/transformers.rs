//! Ids, tokens, texts and spans equal what transformers' CLIPTokenizer makes of the same strings.

use crate::common::{data, fixtures, goldens, ids, join, padded, rows};
use tokenizer::Tokenizer;

#[test]
fn every_prompt_in_every_style() {
    let goldens = goldens();
    // Folder, golden, index of its count of cut tokens, pad id.
    let styles = [(vec!["", "sd15"], "sd15", 0, 49407), (vec!["", "sd21"], "sd21", 1, 0), (vec!["tiny"], "tiny", 2, 0)];
    let from_folders =
        styles.map(|(folders, style, index, pad)| (Tokenizer::load(join(&folders).path()).unwrap(), style, index, pad));
    // The vocabulary that is part of the program.
    let own = [
        (Tokenizer::stable_diffusion_1().unwrap(), "sd15", 0, 49407),
        (Tokenizer::stable_diffusion_2().unwrap(), "sd21", 1, 0),
    ];
    for (tokenizer, style, index, pad) in from_folders.into_iter().chain(own) {
        assert_eq!((tokenizer.pad_id(), tokenizer.max_length()), (pad, 77));
        assert_eq!(
            (tokenizer.bos_id(), tokenizer.eos_id()),
            (tokenizer.embedding_rows() - 2, tokenizer.embedding_rows() - 1)
        );
        let rows = rows(&goldens, "prompts");
        assert!(rows.len() > 300);
        for row in rows {
            let text = row["text"].as_str().unwrap();
            let encoding = tokenizer.encode(text).unwrap();
            assert_eq!(encoding.ids, padded(&row[style], pad), "{style}: {text:?}");
            assert_eq!(encoding.len, row[style].as_array().unwrap().len(), "{style}: {text:?}");
            let cut = encoding.truncation.as_ref().map_or(0, |t| t.tokens);
            assert_eq!(cut as u64, row["cut"][index].as_u64().unwrap(), "{style}: {text:?}");
            assert_eq!((encoding.tokens.len(), encoding.text.len()), (77, 77));
            for (position, range) in encoding.text.iter().enumerate() {
                assert!(text.get(range.clone()).is_some(), "{range:?} splits a character of {text:?}");
                let inside = 0 < position && position < encoding.len - 1;
                assert_eq!(range.is_empty(), !inside, "{style}: {text:?} at {position}");
            }
        }
    }
}

#[test]
fn tokens_and_decoded_text() {
    let goldens = goldens();
    let tokenizer = Tokenizer::load(join(&["", "sd21"]).path()).unwrap();
    for row in rows(&goldens, "decoded") {
        let text = row["text"].as_str().unwrap();
        let encoding = tokenizer.encode(text).unwrap();
        let content = &encoding.ids[..encoding.len];
        let tokens: Vec<_> = row["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        assert_eq!(encoding.tokens[..encoding.len], tokens, "{text:?}");
        assert_eq!(content.iter().map(|&id| tokenizer.token(id).unwrap()).collect::<Vec<_>>(), tokens);
        assert_eq!(tokens.iter().map(|t| tokenizer.id(t).unwrap()).collect::<Vec<_>>(), content);
        assert_eq!(tokenizer.decode(content, false).unwrap(), row["decoded"].as_str().unwrap());
        assert_eq!(tokenizer.decode(content, true).unwrap(), row["without_special"].as_str().unwrap());
    }
}

#[test]
fn spans_found_by_tokens_are_those_found_by_characters() {
    let goldens = goldens();
    for (style, pad) in [("sd15", 49407), ("sd21", 0)] {
        let tokenizer = Tokenizer::load(join(&["", style]).path()).unwrap();
        assert_eq!(tokenizer.pad_id(), pad);
        for row in rows(&goldens, "spans") {
            let (text, phrase) = (row["text"].as_str().unwrap(), row["phrase"].as_str().unwrap());
            let encoding = tokenizer.encode(text).unwrap();
            let found: Vec<_> = tokenizer
                .spans(&encoding, phrase)
                .unwrap()
                .iter()
                .map(|s| vec![s.start as i64, s.end as i64])
                .collect();
            let expected: Vec<_> = row["spans"].as_array().unwrap().iter().map(ids).collect();
            assert_eq!(found, expected, "{phrase:?} in {text:?}");
        }
    }
}

#[test]
fn placeholders() {
    let goldens = goldens();
    let mut tokenizer = Tokenizer::load(join(&["", "sd21"]).path()).unwrap();
    for (i, token) in goldens["placeholders"].as_array().unwrap().iter().enumerate() {
        assert_eq!(tokenizer.add_placeholder(token.as_str().unwrap(), 1).unwrap(), [49408 + i as i64]);
    }
    for row in rows(&goldens, "placeholder_prompts") {
        let text = row["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text).unwrap().ids, padded(&row["ids"], 0), "{text:?}");
    }
}

#[test]
fn a_single_tokenizer_json() {
    let goldens = goldens();
    let tokenizer = Tokenizer::load(fixtures().join("tiny_json")).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.embedding_rows(), tokenizer.pad_id()), (1200, 1201, 0));
    for row in rows(&goldens, "placeholder_prompts") {
        let text = row["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text).unwrap().ids, padded(&row["tiny_json"], 0), "{text:?}");
    }
    let without = Tokenizer::load(fixtures().join("tiny")).unwrap();
    for row in rows(&goldens, "prompts") {
        let text = row["text"].as_str().unwrap();
        if !text.contains("<new>") {
            assert_eq!(tokenizer.encode(text).unwrap(), without.encode(text).unwrap(), "{text:?}");
        }
    }
}

/// vocab.json in the fixtures and merges.txt in the data are byte for byte those of Stable Diffusion.
#[test]
fn the_vocabulary_in_the_program_is_that_of_stable_diffusion() {
    for tokenizer in [Tokenizer::stable_diffusion_1().unwrap(), Tokenizer::stable_diffusion_2().unwrap()] {
        let folder = tempfile::tempdir().unwrap();
        tokenizer.save(folder.path()).unwrap();
        for (file, root) in [("vocab.json", fixtures()), ("merges.txt", data())] {
            let [own, original] = [folder.path(), &root].map(|folder| std::fs::read(folder.join(file)).unwrap());
            assert!(own == original, "{file}");
        }
    }
}
