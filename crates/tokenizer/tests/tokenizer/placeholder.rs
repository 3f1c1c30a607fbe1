//! Placeholders, their vectors and their spans.

use crate::common::{fixtures, join};
use tokenizer::{Error, Tokenizer};

fn tiny() -> Tokenizer {
    Tokenizer::load(fixtures().join("tiny")).unwrap()
}

#[test]
fn ids_follow_the_vocabulary() {
    let mut tokenizer = tiny();
    assert_eq!(tokenizer.add_placeholder("<a>", 1).unwrap(), [1200]);
    assert_eq!(tokenizer.add_placeholder("<b>", 3).unwrap(), [1201, 1202, 1203]);
    assert_eq!(tokenizer.add_placeholder("<c>", 1).unwrap(), [1204]);
    assert_eq!((tokenizer.vocab_size(), tokenizer.embedding_rows()), (1200, 1205));
    assert_eq!(tokenizer.vectors("<b>"), [1201, 1202, 1203]);
    assert_eq!(tokenizer.vectors("<b>_1"), [1202]);
    assert!(tokenizer.vectors("<d>").is_empty());
    assert!(tokenizer.vectors("cat</w>").is_empty());
    let added: Vec<_> = tokenizer.added().into_iter().collect();
    let names = ["<a>", "<b>", "<b>_1", "<b>_2", "<c>"];
    assert_eq!(added, names.iter().enumerate().map(|(i, n)| (1200 + i as i64, n.to_string())).collect::<Vec<_>>());
    assert_eq!(tokenizer.token(1202).unwrap(), "<b>_1");
    assert_eq!(tokenizer.id("<b>_1"), Some(1202));
}

#[test]
fn one_token_in_any_surroundings() {
    let mut tokenizer = tiny();
    for name in ["<new>", "new_concept_v0", "S*", "[V]", "Über"] {
        let id = tokenizer.add_placeholder(name, 1).unwrap()[0];
        for around in (' '..='~').chain("…“”«»é猫\u{301}😀\u{200d}\u{a0}\t\n\0".chars()) {
            let prompt = format!("a{around}{name}{around}b");
            let encoding = tokenizer.encode(&prompt).unwrap();
            // A combining mark may join the name's last letter: then it is another name.
            if around == '\u{301}' {
                continue;
            }
            let positions: Vec<_> = (0..77).filter(|&i| encoding.ids[i] == id).collect();
            assert_eq!(positions.len(), 1, "{prompt:?} {:?}", encoding.tokens);
            assert_eq!(&prompt[encoding.text[positions[0]].clone()], name);
            assert_eq!(tokenizer.spans(&encoding, name).unwrap(), [positions[0]..positions[0] + 1]);
        }
    }
}

#[test]
fn a_name_that_means_something_is_refused() {
    let mut tokenizer = Tokenizer::load(join(&["", "sd21"]).path()).unwrap();
    tokenizer.add_placeholder("<New>", 2).unwrap();
    let before = tokenizer.embedding_rows();
    // A piece of words, a whole word, specials, present placeholders in any case, one that an addition would need.
    for (name, vectors, existing) in [
        ("cat", 1, Some("cat</w>")),
        ("sks", 1, Some("sks</w>")),
        ("*", 1, Some("*</w>")),
        ("cat</w>", 1, Some("cat</w>")),
        ("!", 1, Some("!")),
        ("<|endoftext|>", 1, Some("<|endoftext|>")),
        ("<New>", 1, Some("<New>")),
        ("<new>", 1, Some("<New>")),
        ("<NEW>_1", 1, Some("<New>_1")),
        ("<New>", 3, Some("<New>")),
    ] {
        let error = tokenizer.add_placeholder(name, vectors).unwrap_err();
        let Error::PlaceholderExists { token, id } = &error else { panic!("{name}: {error}") };
        assert_eq!((token.as_str(), tokenizer.token(*id).as_deref()), (name, existing));
        assert!(error.to_string().contains(name) && error.to_string().contains(&id.to_string()));
    }
    // The second vector's name is taken.
    tokenizer.add_placeholder("x_tok_1", 1).unwrap();
    let error = tokenizer.add_placeholder("x_tok", 2).unwrap_err();
    assert!(matches!(error, Error::PlaceholderExists { token, .. } if token == "x_tok_1"));
    for (name, vectors) in [("", 1), (" ", 1), ("my cat", 1), ("<x>", 0), ("wow!wow", 1)] {
        let error = tokenizer.add_placeholder(name, vectors).unwrap_err();
        assert!(matches!(error, Error::InvalidPlaceholder { .. }), "{name:?}: {error}");
    }
    assert_eq!(tokenizer.embedding_rows(), before + 1);
    assert!(tokenizer.vectors("x_tok").is_empty());
}

#[test]
fn vectors_are_expanded_once() {
    let mut tokenizer = tiny();
    tokenizer.add_placeholder("tok", 3).unwrap();
    tokenizer.add_placeholder("<one>", 1).unwrap();
    for (prompt, expanded) in [
        ("", ""),
        ("a cat", "a cat"),
        ("a tok cat", "a tok tok_1 tok_2 cat"),
        ("a TOK's <one>", "a TOK tok_1 tok_2's <one>"),
        ("tok, tok", "tok tok_1 tok_2, tok tok_1 tok_2"),
        ("tok tok_1 tok_2 tok", "tok tok_1 tok_2 tok tok_1 tok_2"),
        ("tok_1 alone", "tok_1 alone"),
        ("é\u{301}tok😀", "é\u{301}tok tok_1 tok_2😀"),
    ] {
        assert_eq!(tokenizer.expand(prompt).unwrap(), expanded);
        assert_eq!(tokenizer.expand(expanded).unwrap(), expanded);
    }
    let all = tokenizer.vectors("tok");
    let encoding = tokenizer.encode(&tokenizer.expand("a tok, a cat, <one> tok").unwrap()).unwrap();
    let spans = tokenizer.spans(&encoding, &tokenizer.expand("tok").unwrap()).unwrap();
    assert_eq!(spans.len(), 2);
    for span in spans {
        assert_eq!(encoding.ids[span], all);
    }
}

#[test]
fn spans_are_the_ids_of_the_phrase_and_never_padding() {
    let tokenizer = tiny();
    let encoding = tokenizer.encode("a furby photo!").unwrap();
    // "!" is the pad token here: only the one in the prompt counts.
    assert_eq!(tokenizer.spans(&encoding, "!").unwrap(), [encoding.len - 2..encoding.len - 1]);
    assert!(tokenizer.spans(&encoding, "").unwrap().is_empty());
    assert!(tokenizer.spans(&encoding, "  ").unwrap().is_empty());
    let empty = tokenizer.encode("").unwrap();
    assert!(tokenizer.spans(&empty, "!").unwrap().is_empty());
    assert!(tokenizer.spans(&empty, "<|endoftext|>").unwrap().is_empty());
    let overlapping = tokenizer.encode("cat cat cat cat cat").unwrap();
    let word = tokenizer.spans(&overlapping, "cat").unwrap();
    assert_eq!(word.len(), 5);
    assert_eq!(
        tokenizer.spans(&overlapping, "cat cat").unwrap(),
        [word[0].start..word[1].end, word[2].start..word[3].end]
    );
}

#[test]
fn truncation_tells_what_was_cut() {
    let tokenizer = tiny();
    let fits = "a ".repeat(75);
    assert!(tokenizer.encode(&fits).unwrap().truncation.is_none());
    let long = format!("{fits}the a");
    let encoding = tokenizer.encode(&long).unwrap();
    assert_eq!((encoding.len, encoding.ids[76]), (77, tokenizer.eos_id()));
    let truncation = encoding.truncation.unwrap();
    assert_eq!((truncation.tokens, truncation.text.as_str()), (2, "the a"));
    assert!(truncation.to_string().contains("2 token(s)") && truncation.to_string().contains("\"the a\""));
    // A cut inside a character shows the character.
    let emoji = "😀".repeat(40);
    let truncation = tokenizer.encode(&emoji).unwrap().truncation.unwrap();
    assert!(truncation.text.starts_with('😀') && emoji.ends_with(&truncation.text));
}
