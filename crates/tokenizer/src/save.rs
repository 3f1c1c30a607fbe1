use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

impl Tokenizer {
    /// Writes a `tokenizer` folder that transformers' `CLIPTokenizer.from_pretrained` loads, added tokens included:
    /// vocab.json and merges.txt (for CLIP's vocabulary byte for byte those of Stable Diffusion), added_tokens.json
    /// where there are any, special_tokens_map.json and tokenizer_config.json. Each file is complete or absent.
    ///
    /// # Errors
    /// [`Error::Write`] where the folder cannot be written, or holds a tokenizer.json, which readers would prefer.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let failed = |what: &dyn std::fmt::Display| Error::Write(format!("cannot write {}: {what}", folder.display()));
        fs::create_dir_all(folder).map_err(|e| failed(&e))?;
        if folder.join("tokenizer.json").exists() {
            return Err(failed(
                &"it holds a tokenizer.json, which readers prefer to the files written here; remove that or choose another folder",
            ));
        }

        let (vocab, merges) = self.vocabulary()?;
        write_json(folder, "vocab.json", &vocab)?;
        write(folder, "merges.txt", merges)?;
        let added: BTreeMap<String, i64> = self.added().into_iter().map(|(id, token)| (token, id)).collect();
        if added.is_empty() {
            // One left over from before would be wrong now.
            match fs::remove_file(folder.join("added_tokens.json")) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&error)),
                _ => {}
            }
        } else {
            write_json(folder, "added_tokens.json", &added)?;
        }
        write_json(folder, "special_tokens_map.json", &self.special_tokens_map())?;
        write_json(folder, "tokenizer_config.json", &self.config())
    }

    /// The contents of vocab.json (sorted by token, as in Stable Diffusion's folders) and of merges.txt.
    fn vocabulary(&self) -> Result<(BTreeMap<String, u32>, String)> {
        let model = self.backend.get_model();
        let vocab = model.get_vocab().into_iter().collect();
        // The library shows its merges only in this way.
        let value = serde_json::to_value(model).map_err(|error| Error::Backend(Box::new(error)))?;
        let mut merges = String::from("#version: 0.2\n");
        for pair in value["merges"].as_array().into_iter().flatten() {
            if let (Some(left), Some(right)) = (pair[0].as_str(), pair[1].as_str()) {
                merges.extend([left, " ", right, "\n"]);
            }
        }
        Ok((vocab, merges))
    }

    /// For readers from before transformers 4.34, which take the special tokens from here.
    fn special_tokens_map(&self) -> Value {
        let added = self.backend.get_added_vocabulary().get_added_tokens_decoder();
        let flags = |id: u32| added.get(&id).map(flags);
        self.roles()
            .map(|(role, special)| (role.to_owned(), json!(flags(special.id))))
            .into_iter()
            .collect::<Map<_, _>>()
            .into()
    }

    /// Complete by itself for later readers.
    fn config(&self) -> Value {
        let added = self.backend.get_added_vocabulary().get_added_tokens_decoder();
        let by_id: BTreeMap<u32, &AddedToken> = added.iter().map(|(id, token)| (*id, token)).collect();
        let decoder: Map<String, Value> = by_id
            .into_iter()
            .map(|(id, token)| {
                let mut value = flags(token);
                value["special"] = token.special.into();
                (id.to_string(), value)
            })
            .collect();
        let mut config = json!({
            "add_prefix_space": false,
            "added_tokens_decoder": decoder,
            "do_lower_case": true,
            "errors": "replace",
            "model_max_length": self.max_length,
            "tokenizer_class": "CLIPTokenizer",
        });
        for (role, special) in self.roles() {
            config[role] = special.token.as_str().into();
        }
        config
    }

    fn roles(&self) -> [(&'static str, &crate::tokenizer::Special); 4] {
        [("bos_token", &self.bos), ("eos_token", &self.eos), ("pad_token", &self.pad), ("unk_token", &self.unk)]
    }
}

fn flags(token: &AddedToken) -> Value {
    json!({
        "content": token.content,
        "lstrip": token.lstrip,
        "normalized": token.normalized,
        "rstrip": token.rstrip,
        "single_word": token.single_word,
    })
}

/// Two spaces of indentation and a line end, as Python's `json.dumps(indent=2)` in transformers.
fn write_json(folder: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|error| Error::Write(format!("cannot write {name}: {error}")))?;
    text.push('\n');
    write(folder, name, text)
}

fn write(folder: &Path, name: &str, contents: String) -> Result<()> {
    atomic::write(&folder.join(name), contents).map_err(|error| Error::Write(format!("{error:#}")))
}
