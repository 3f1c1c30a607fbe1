//! Folders that are written, and folders that are wrong.

use std::fs;
use std::path::Path;

use crate::common::{data, fixtures, goldens, join, rows};
use serde_json::{Value, json};
use tokenizer::{Error, Tokenizer};

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// transformers loads these files to the same tokens: generate.py asserts it.
#[test]
fn what_is_written_is_what_transformers_was_shown_to_load() {
    let goldens = goldens();
    let mut tokenizer = Tokenizer::load(fixtures().join("tiny")).unwrap();
    for token in rows(&goldens, "placeholders") {
        tokenizer.add_placeholder(token.as_str().unwrap(), 1).unwrap();
    }
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("new/tokenizer");
    tokenizer.save(&folder).unwrap();
    for name in ["added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"] {
        assert_eq!(read_json(&folder.join(name)), read_json(&fixtures().join("export").join(name)), "{name}");
    }
    for name in ["vocab.json", "merges.txt"] {
        assert_eq!(fs::read(folder.join(name)).unwrap(), fs::read(fixtures().join("tiny").join(name)).unwrap());
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 5);

    let again = Tokenizer::load(&folder).unwrap();
    assert_eq!(again.added(), tokenizer.added());
    for row in rows(&goldens, "prompts").iter().chain(rows(&goldens, "placeholder_prompts")) {
        let text = row["text"].as_str().unwrap();
        assert_eq!(again.encode(text).unwrap(), tokenizer.encode(text).unwrap());
    }
    // Saved over it without placeholders, nothing of them is left.
    Tokenizer::load(fixtures().join("tiny")).unwrap().save(&folder).unwrap();
    assert_eq!(Tokenizer::load(&folder).unwrap().embedding_rows(), 1200);
    assert!(!folder.join("added_tokens.json").exists());
}

#[test]
fn the_vocabulary_of_stable_diffusion_comes_back_byte_for_byte() {
    for (style, pad) in [("sd15", 49407), ("sd21", 0)] {
        let folder = tempfile::tempdir().unwrap();
        Tokenizer::load(join(&["", style]).path()).unwrap().save(folder.path()).unwrap();
        for (name, original) in [("vocab.json", fixtures()), ("merges.txt", data())] {
            assert_eq!(fs::read(folder.path().join(name)).unwrap(), fs::read(original.join(name)).unwrap());
        }
        let again = Tokenizer::load(folder.path()).unwrap();
        assert_eq!((again.pad_id(), again.embedding_rows()), (pad, 49408));
    }
}

#[test]
fn which_file_names_the_pad_token() {
    // The map wins over the config, ...
    let folder = join(&["tiny"]);
    assert_eq!(read_json(&folder.path().join("tokenizer_config.json"))["pad_token"], "<|endoftext|>");
    assert_eq!(Tokenizer::load(folder.path()).unwrap().pad_id(), 0);
    // ... which alone decides where there is no map, ...
    fs::remove_file(folder.path().join("special_tokens_map.json")).unwrap();
    assert_eq!(Tokenizer::load(folder.path()).unwrap().pad_id(), 1199);
    // ... and also where it lists the added tokens itself.
    let folder = join(&["tiny", "export"]);
    fs::write(folder.path().join("special_tokens_map.json"), r#"{"pad_token": "<|endoftext|>"}"#).unwrap();
    assert_eq!(Tokenizer::load(folder.path()).unwrap().pad_id(), 0);
    // With neither file, CLIP's defaults hold.
    let folder = join(&["tiny"]);
    for name in ["special_tokens_map.json", "tokenizer_config.json"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let bare = Tokenizer::load(folder.path()).unwrap();
    assert_eq!((bare.pad_id(), bare.max_length()), (1199, 77));
}

#[test]
fn the_length_comes_from_the_config() {
    for (value, length) in [(json!(20), 20), (json!(null), 77), (json!(1e30), 77)] {
        let folder = join(&["tiny"]);
        fs::write(folder.path().join("tokenizer_config.json"), json!({ "model_max_length": value }).to_string())
            .unwrap();
        let tokenizer = Tokenizer::load(folder.path()).unwrap();
        let encoding = tokenizer.encode(&"cat ".repeat(100)).unwrap();
        assert_eq!((tokenizer.max_length(), encoding.ids.len(), encoding.len), (length, length, length));
    }
}

/// Each case breaks one file; the message is one sentence that names it.
#[test]
fn broken_folders_are_refused_by_file_name() {
    type Break = fn(&Path);
    let cases: &[(&str, &str, &str, Break)] = &[
        ("tiny", "merges.txt", "not found", |f| fs::remove_file(f.join("merges.txt")).unwrap()),
        ("tiny", "vocab.json", "not found", |f| fs::remove_file(f.join("vocab.json")).unwrap()),
        ("tiny", "tokenizer.json, or vocab.json", "not found", |f| {
            fs::remove_file(f.join("vocab.json")).unwrap();
            fs::remove_file(f.join("merges.txt")).unwrap();
        }),
        ("tiny", "vocab.json", "EOF", |f| cut(&f.join("vocab.json"), 5000)),
        ("tiny", "vocab.json", "line 1", |f| fs::write(f.join("vocab.json"), "").unwrap()),
        ("tiny", "vocab.json", "invalid type", |f| fs::write(f.join("vocab.json"), "[1, 2]").unwrap()),
        ("tiny", "vocab.json", "invalid value", |f| edit(&f.join("vocab.json"), |v| v["a"] = json!(-1))),
        ("tiny", "vocab.json", "both have id 0", |f| edit(&f.join("vocab.json"), |v| v["a"] = json!(0))),
        ("tiny", "vocab.json", "has id 1300", |f| edit(&f.join("vocab.json"), |v| v["a"] = json!(1300))),
        ("tiny", "merges.txt", "\"new line\" needs the token", |f| append(&f.join("merges.txt"), "new line\n")),
        ("tiny", "merges.txt", "\"zz zz</w>\" needs the token \"zz\"", |f| {
            append(&f.join("merges.txt"), "zz zz</w>\n");
        }),
        ("tiny", "merges.txt", "line 688 is \"a b c\"", |f| append(&f.join("merges.txt"), "a b c\n")),
        ("tiny", "merges.txt", "line 688 is \"ab\"", |f| append(&f.join("merges.txt"), "ab\n")),
        ("tiny", "merges.txt", "UTF-8", |f| fs::write(f.join("merges.txt"), [b'a', b' ', 0xff]).unwrap()),
        ("tiny", "special_tokens_map.json", "EOF", |f| cut(&f.join("special_tokens_map.json"), 40)),
        ("tiny", "tokenizer_config.json", "expected", |f| fs::write(f.join("tokenizer_config.json"), "x").unwrap()),
        ("tiny", "tokenizer_config.json", "model_max_length is 2", |f| {
            edit(&f.join("tokenizer_config.json"), |v| v["model_max_length"] = json!(2));
        }),
        ("tiny", "added_tokens.json", "\"<x>\" has id 7 here but gets id 1200", |f| {
            fs::write(f.join("added_tokens.json"), r#"{"<x>": 7}"#).unwrap();
        }),
        ("tiny", "added_tokens.json", "has id 1300 here", |f| {
            fs::write(f.join("added_tokens.json"), r#"{"<x>": 1200, "<y>": 1300}"#).unwrap();
        }),
        ("tiny", "vocab.json", "no token \"<|startoftext|>\", which is the bos_token", |f| {
            edit(&f.join("vocab.json"), |v| {
                v.as_object_mut().unwrap().remove("<|startoftext|>");
                v["<|endoftext|>"] = json!(1198);
            });
        }),
        ("tiny", "vocab.json", "no token \"<pad>\", which is the pad_token", |f| {
            edit(&f.join("special_tokens_map.json"), |v| v["pad_token"] = json!("<pad>"));
        }),
        ("tiny_json", "tokenizer.json", "EOF", |f| cut(&f.join("tokenizer.json"), 9000)),
        ("tiny_json", "tokenizer.json", "missing field `model`", |f| {
            fs::write(f.join("tokenizer.json"), "{}").unwrap();
        }),
        ("tiny_json", "tokenizer.json", "needs the token", |f| {
            edit(&f.join("tokenizer.json"), |v| v["model"]["merges"][3] = json!(["qq", "zz"]));
        }),
        ("tiny_json", "tokenizer.json", "not a pair", |f| {
            edit(&f.join("tokenizer.json"), |v| v["model"]["merges"][3] = json!("qq"));
        }),
    ];
    for (fixture, file, reason, break_it) in cases {
        let folder = join(&[fixture]);
        break_it(folder.path());
        let error = Tokenizer::load(folder.path()).expect_err(reason);
        let message = error.to_string();
        assert!(message.contains(file) && message.contains(reason), "{message}");
        assert!(message.contains(folder.path().to_str().unwrap()) && !message.contains('\n'), "{message}");
    }
}

#[test]
fn paths_that_are_no_folder() {
    let file = data().join("merges.txt");
    for path in [Path::new("/no/such/folder"), &file] {
        let error = Tokenizer::load(path).unwrap_err();
        assert!(matches!(&error, Error::Missing { folder, .. } if folder == path), "{error}");
    }
    let folder = join(&["tiny"]);
    fs::remove_file(folder.path().join("vocab.json")).unwrap();
    fs::create_dir(folder.path().join("vocab.json")).unwrap();
    let error = Tokenizer::load(folder.path()).unwrap_err();
    assert!(matches!(&error, Error::Unreadable { path, .. } if path.ends_with("vocab.json")), "{error}");
}

#[test]
fn saving_where_it_cannot_be() {
    let tokenizer = Tokenizer::load(fixtures().join("tiny")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = tokenizer.save(file.join("tokenizer")).unwrap_err();
    assert!(matches!(&error, Error::Write(message) if message.contains(file.to_str().unwrap())), "{error}");
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    let error = tokenizer.save(folder.path()).unwrap_err();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    assert!(!folder.path().join("vocab.json").exists());
}

fn cut(path: &Path, length: usize) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..length]).unwrap();
}

fn append(path: &Path, line: &str) {
    let mut text = fs::read_to_string(path).unwrap();
    text.push_str(line);
    fs::write(path, text).unwrap();
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = read_json(path);
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}
