//! Checkpoints of any size that take no space.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use golden::fixtures;
use serde_json::{Map, Value, json};

/// Names and shapes.
pub(crate) type Shapes = BTreeMap<String, Vec<i64>>;

/// Writes a safetensors file of f16 zeros, all of which are a hole in the file.
pub(crate) fn hollow(path: &Path, shapes: &Shapes, metadata: &[(&str, &str)]) {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), metadata.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect());
    let mut end = 0;
    for (name, shape) in shapes {
        let start = end;
        end += 2 * shape.iter().product::<i64>() as u64;
        header.insert(name.clone(), json!({ "dtype": "F16", "shape": shape, "data_offsets": [start, end] }));
    }
    let header = Value::Object(header).to_string();
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
}

/// A hollow file in a folder.
pub(crate) fn hollow_in(folder: &Path, shapes: &Shapes, metadata: &[(&str, &str)]) -> PathBuf {
    let path = folder.join("model.safetensors");
    hollow(&path, shapes, metadata);
    path
}

/// All tensors of Stable Diffusion 1.5 or 2.1 in the original layout; see fixtures/export/generate.py.
pub(crate) fn original(v2: bool) -> Shapes {
    type Row = (String, String, Option<String>, Option<String>);
    let rows: Vec<Row> = weights::read_config(&fixtures().join("export/names.json")).unwrap();
    let rows = rows.into_iter().filter_map(|(name, _, v1, v2_shape)| Some((name, if v2 { v2_shape } else { v1 }?)));
    rows.map(|(name, text)| (name, shape(&text))).collect()
}

/// All tensors of SDXL, likewise; see fixtures/export/generate_sdxl.py.
pub(crate) fn original_sdxl() -> Shapes {
    let rows: Vec<(String, String, String)> = weights::read_config(&fixtures().join("export/names-sdxl.json")).unwrap();
    rows.into_iter().map(|(name, _, text)| (name, shape(&text))).collect()
}

fn shape(text: &str) -> Vec<i64> {
    text.split('x').filter(|side| !side.is_empty()).map(|side| side.parse().unwrap()).collect()
}
