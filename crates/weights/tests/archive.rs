//! Files that are as they should be, and files that lie.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use tch::{Device, Kind, Tensor};
use weights::{Archive, Init, LoadError, OpenError, Problem, Scope};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

fn numbers(shape: &[i64]) -> Tensor {
    Tensor::arange(shape.iter().product::<i64>(), F32).reshape(shape) - 2.5
}

/// A safetensors file made by hand: whatever header, whatever data.
fn write_raw(path: &Path, header: &str, data: &[u8]) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    fs::write(path, bytes).unwrap();
}

fn damaged(path: &Path) -> String {
    match Archive::open(path) {
        Err(error @ OpenError::Damaged { .. }) => error.to_string(),
        other => panic!("expected a damaged file, got {other:?}"),
    }
}

#[test]
fn what_was_saved_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let (matrix, scalar) = (numbers(&[3, 4]), Tensor::from_slice(&[7i64]).squeeze());
    let transposed = matrix.transpose(0, 1);
    weights::save(&path, [("matrix", &matrix), ("scalar", &scalar), ("transposed", &transposed)]).unwrap();

    // Others may read it as they may read any new file.
    fs::write(folder.path().join("ordinary"), "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions();
    assert_eq!(mode(&path), mode(&folder.path().join("ordinary")));

    let archive = Archive::open(&path).unwrap();
    assert_eq!(archive.metadata()["format"], "pt");
    let tensors = archive.tensors().unwrap();
    assert_eq!(tensors["matrix"], matrix);
    assert_eq!(tensors["scalar"], scalar);
    assert_eq!(tensors["transposed"], transposed);
    assert!(archive.tensor("other").unwrap().is_none());
}

#[test]
fn half_precision_files_fill_single_precision_models_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let values = numbers(&[5]);
    for (stored, target) in [(Kind::Half, Kind::Float), (Kind::BFloat16, Kind::Float), (Kind::Float, Kind::BFloat16)] {
        weights::save(&path, [("w", values.to_kind(stored))]).unwrap();
        let source = Archive::open(&path).unwrap();
        let (w, _) =
            weights::build(&source, (target, Device::Cpu), |vs| Ok(vs.get("w", &[5], Init::Const(0.0)))).unwrap();
        assert_eq!((w.kind(), w), (target, values.to_kind(target)));
    }
}

#[test]
fn everything_that_does_not_fit_is_listed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let ids = Tensor::from_slice(&[1i64, 2]);
    let w = numbers(&[2]);
    weights::save(&path, [("a.shape", &w), ("a.type", &ids), ("a.ignored", &ids), ("b.extra", &w)]).unwrap();

    let error = weights::build(&Archive::open(&path).unwrap(), F32, |vs| {
        let vs = vs / "a";
        vs.ignore("ignored");
        Ok([("shape", 3), ("type", 2), ("missing", 1)].map(|(name, n)| vs.get(name, &[n], Init::Const(0.0))))
    })
    .unwrap_err();
    let error = error.downcast_ref::<LoadError>().unwrap();
    let wrong: Vec<(&str, &Problem)> = error.problems.iter().map(|(name, problem)| (name.as_str(), problem)).collect();
    assert!(matches!(
        wrong[..],
        [
            ("a.missing", Problem::Missing),
            ("a.shape", Problem::Shape { .. }),
            ("a.type", Problem::Type { .. }),
            ("b.extra", Problem::Unexpected)
        ]
    ));
    let text = error.to_string();
    assert!(text.contains("4 tensors do not fit") && text.contains("a.safetensors"), "{text}");
    assert!(text.contains("a.shape has shape [2], the model expects [3]"), "{text}");
    assert!(text.contains("a.type has type I64, which cannot become Float"), "{text}");
}

#[test]
fn a_name_asked_for_twice_is_an_error() {
    let get = |vs: &Scope, name: &str| vs.get(name, &[2], Init::Const(0.0));
    let problems = |model: &dyn Fn(&Scope)| {
        let tensors: weights::Tensors = [("a.w".to_owned(), numbers(&[2]))].into();
        let sources: [&dyn weights::Source; 2] = [&tensors, &weights::Random { seed: 0 }];
        let build = |source| {
            weights::build(source, F32, |vs| {
                model(vs);
                Ok(())
            })
        };
        sources.map(|source| match build(source) {
            Ok(_) => Vec::new(),
            Err(error) => error.downcast::<LoadError>().unwrap().problems,
        })
    };
    let repeated = vec![("a.w".to_owned(), Problem::Repeated)];
    assert_eq!(problems(&|vs| drop(get(vs, "a.w"))), [vec![], vec![]]);
    assert_eq!(problems(&|vs| drop([get(vs, "a.w"), get(&(vs / "a"), "w")])), [repeated.clone(), repeated.clone()]);
    // Two parameters, but one tensor of the file for both.
    let older = |vs: &Scope| drop([get(vs, "a.w"), vs.get_any(&["a.new", "a.w"], &[2], Init::Const(0.0))]);
    assert_eq!(problems(&older), [repeated, vec![]]);
}

#[test]
fn older_names_are_found_and_saved_under_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old.safetensors"), folder.path().join("new.safetensors"));
    weights::save(&old, [("attention.query", numbers(&[2]))]).unwrap();
    let model = |vs: &Scope| Ok((vs / "attention").get_any(&["to_q", "query"], &[2], Init::Const(0.0)));
    let (_, parameters) = weights::build(&Archive::open(&old).unwrap(), F32, model).unwrap();
    parameters.save(&new).unwrap();
    let names: Vec<String> = Archive::open(&new).unwrap().shapes().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names, ["attention.to_q"]);
}

#[test]
fn shards_are_one_archive() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    weights::save(&at("model-1.safetensors"), [("a", numbers(&[2]))]).unwrap();
    weights::save(&at("model-2.safetensors"), [("b", numbers(&[3]))]).unwrap();
    let index =
        |map: &str| fs::write(at("model.safetensors.index.json"), format!("{{\"weight_map\": {map}}}")).unwrap();

    index(r#"{"a": "model-1.safetensors", "b": "model-2.safetensors"}"#);
    let tensors = Archive::open_folder(folder.path()).unwrap().tensors().unwrap();
    assert_eq!((&tensors["a"], &tensors["b"]), (&numbers(&[2]), &numbers(&[3])));

    for (map, complaint) in [
        (r#"{"a": "model-1.safetensors", "c": "model-2.safetensors"}"#, "\"c\" is in none of its shards"),
        (r#"{"a": "../model-1.safetensors"}"#, "must be a plain file name"),
        (r#"{"a": "model-3.safetensors"}"#, "model-3.safetensors"),
        ("[]", "is wrong"),
    ] {
        index(map);
        let error = Archive::open_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
    }
}

#[test]
fn a_variant_is_read_with_a_note_where_the_plain_weights_are_missing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let put = |name: &str, number: i64| weights::save(&at(name), [("w", numbers(&[number]))]).unwrap();
    let index =
        |name: &str, shard: &str| fs::write(at(name), format!(r#"{{"weight_map": {{"w": "{shard}"}}}}"#)).unwrap();
    // From the last resort to the best.
    put("model.non_ema.safetensors", 1);
    put("shard-non-ema.safetensors", 2);
    put("shard.safetensors", 3);
    let steps: [(&str, &dyn Fn(), &str, i64); 7] = [
        ("model.non_ema.safetensors", &|| (), "model.safetensors", 1),
        ("model.bf16.safetensors", &|| put("model.bf16.safetensors", 4), "model.safetensors", 4),
        (
            "model.safetensors.index.fp16.json",
            &|| index("model.safetensors.index.fp16.json", "shard.safetensors"),
            "model.safetensors.index.json",
            3,
        ),
        (
            "diffusion_pytorch_model.safetensors.fp16.index.json",
            &|| index("diffusion_pytorch_model.safetensors.fp16.index.json", "shard-non-ema.safetensors"),
            "diffusion_pytorch_model.safetensors.index.json",
            2,
        ),
        (
            "diffusion_pytorch_model.fp16.safetensors",
            &|| put("diffusion_pytorch_model.fp16.safetensors", 5),
            "diffusion_pytorch_model.safetensors",
            5,
        ),
        ("", &|| index("model.safetensors.index.json", "shard.safetensors"), "", 3),
        ("", &|| put("model.safetensors", 6), "", 6),
    ];
    for (file, prepare, plain, size) in steps {
        prepare();
        let archive = Archive::open_folder(folder.path()).unwrap();
        assert_eq!(archive.tensors().unwrap()["w"].size(), [size], "{file}");
        let build = |vs: &Scope| Ok(vs.get("w", &[size], Init::Const(0.0)));
        let notes = weights::build(&archive, F32, build).unwrap().1.notes().to_vec();
        if plain.is_empty() {
            assert!(notes.is_empty() && archive.variant().is_none());
        } else {
            assert_eq!(notes, [format!("{} is read, because its folder has no {plain}", at(file).display())]);
            assert_eq!(archive.variant().unwrap().plain_name, plain);
        }
    }
    // What is no variant of a model's weights is not taken for one.
    let other = tempfile::tempdir().unwrap();
    weights::save(&other.path().join("model.lora.safetensors"), [("w", numbers(&[1]))]).unwrap();
    assert!(matches!(Archive::open_folder(other.path()), Err(OpenError::NoWeights { .. })));
    fs::write(other.path().join("pytorch_model.fp16.bin"), "PK").unwrap();
    assert!(matches!(Archive::open_folder(other.path()), Err(OpenError::Pickle { .. })));
}

#[test]
fn tensors_that_mean_nothing_are_passed_over_with_a_note_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let w = numbers(&[2]);
    let load = |extra: &[&str]| {
        let tensors = extra.iter().map(|name| (*name, &w)).chain([("w", &w)]);
        weights::save(&path, tensors).unwrap();
        weights::build(&Archive::open(&path).unwrap(), F32, |vs| {
            vs.ignore("loss");
            Ok(vs.get("w", &[2], Init::Const(0.0)))
        })
        .map(|(_, parameters)| parameters.notes().to_vec())
    };
    assert_eq!(load(&[]).unwrap(), [""; 0]);
    let shown = path.display();
    let note = "holds a tensor, which is no part of the model and passed over: loss";
    assert_eq!(load(&["loss"]).unwrap(), [format!("{shown} {note}")]);
    let note = "holds 4 tensors, which are no part of the model and passed over: decay, loss.a, model_ema.w, ...";
    assert_eq!(load(&["model_ema.w", "decay", "num_updates", "loss.a"]).unwrap(), [format!("{shown} {note}")]);
    // What is only called alike is unknown.
    let error = load(&["losses.a", "decay", "ema.w"]).unwrap_err().to_string();
    assert!(error.contains("unexpected (2): ema.w, losses.a"), "{error}");
}

#[test]
fn an_index_and_a_configuration_may_begin_with_a_byte_order_mark() {
    let folder = tempfile::tempdir().unwrap();
    weights::save(&folder.path().join("1.safetensors"), [("w", numbers(&[2]))]).unwrap();
    let index = folder.path().join("model.safetensors.index.json");
    fs::write(&index, "\u{feff}{\"weight_map\": {\"w\": \"1.safetensors\"}}").unwrap();
    assert_eq!(Archive::open_folder(folder.path()).unwrap().tensors().unwrap()["w"], numbers(&[2]));
    let config: std::collections::BTreeMap<String, std::collections::BTreeMap<String, String>> =
        weights::read_config(&index).unwrap();
    assert_eq!(config["weight_map"]["w"], "1.safetensors");
    let error = format!("{:#}", weights::read_config::<Vec<String>>(&index).unwrap_err());
    assert!(error.contains("index.json is not the configuration of this kind of model: invalid type: map"), "{error}");
}

#[test]
fn pickle_files_are_refused_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let error = Archive::open_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("diffusion_pytorch_model.safetensors or model.safetensors"), "{error}");
    for name in ["diffusion_pytorch_model.bin", "pytorch_model.bin"] {
        let path = folder.path().join(name);
        fs::write(&path, b"PK").unwrap();
        for result in [Archive::open(&path), Archive::open_folder(folder.path())] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("may run code") && error.contains("save_file"), "{error}");
        }
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn truncated_and_lying_headers_are_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let tensor =
        |shape: &str, offsets: &str| format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#);

    write_raw(&path, &tensor("[2]", "[0,8]"), &[0; 8]);
    assert_eq!(Archive::open(&path).unwrap().tensors().unwrap()["w"], Tensor::zeros([2], F32));

    for (header, data) in [
        (tensor("[2]", "[0,8]"), 7),                       // truncated data
        (tensor("[2]", "[0,8]"), 9),                       // trailing data
        (tensor("[3]", "[0,8]"), 8),                       // shape and length disagree
        (tensor("[2]", "[8,0]"), 8),                       // backwards
        (tensor("[2]", "[0,999999999999]"), 8),            // beyond the end
        (tensor("[4611686018427387904,4]", "[0,8]"), 8),   // overflowing shape
        (tensor("[-2]", "[0,8]"), 8),                      // negative side
        (tensor("[2]", "[0,8]").replace("F32", "F33"), 8), // unknown type
        ("{\"w\":".to_owned(), 8),                         // cut JSON
        ("\u{0}".to_owned(), 8),                           // no JSON
    ] {
        write_raw(&path, &header, &vec![0; data]);
        let error = damaged(&path);
        assert!(error.contains("a.safetensors is not a valid safetensors file"), "{error}");
    }
    for bytes in [&[][..], &[1, 2, 3], &[0xff; 8], &[0xff; 64]] {
        fs::write(&path, bytes).unwrap();
        damaged(&path);
    }
    assert!(matches!(Archive::open(&folder.path().join("none.safetensors")), Err(OpenError::Io { .. })));
    assert!(matches!(Archive::open(folder.path()), Err(OpenError::Io { .. })));
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    weights::save(&path, [("w", numbers(&[2]))]).unwrap();
    let before = fs::read(&path).unwrap();
    let complex = Tensor::zeros([2], (Kind::ComplexFloat, Device::Cpu));
    assert!(weights::save(&path, [("w", complex)]).unwrap_err().to_string().contains("ComplexFloat"));
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let error = weights::save(&folder.path().join("no/such/a.safetensors"), [("w", numbers(&[2]))]).unwrap_err();
    assert!(format!("{error:#}").contains("no/such/a.safetensors"), "{error:#}");
}

#[test]
fn not_a_number_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let huge = Tensor::full([4], f64::from(f32::MAX), F32);
    weights::save(&path, [("good", huge), ("bad", Tensor::from_slice(&[1.0, f32::NAN]))]).unwrap();
    let (_, parameters) = weights::build(&Archive::open(&path).unwrap(), F32, |vs| {
        Ok((vs.get("good", &[4], Init::Const(0.0)), vs.get("bad", &[2], Init::Const(0.0))))
    })
    .unwrap();
    let error = parameters.check_finite().unwrap_err().to_string();
    assert!(error.contains("1 parameters hold NaN or infinite values: bad"), "{error}");
}

#[test]
fn random_parameters_depend_on_seed_and_name_alone() {
    let draw = |seed, names: &[&str]| {
        let source = weights::Random { seed };
        let new = |vs: &Scope| Ok(names.iter().map(|n| vs.get(n, &[64], Init::FanIn(16))).collect::<Vec<_>>());
        weights::build(&source, F32, new).unwrap().0
    };
    let both = draw(1, &["a", "b"]);
    assert_eq!(both[1], draw(1, &["b"])[0]);
    assert_ne!(both[0], both[1]);
    assert_ne!(both[0], draw(2, &["a"])[0]);
    assert!(both[0].abs().max().double_value(&[]) <= 0.25);
}

#[test]
fn the_same_tensors_and_metadata_make_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (wide, narrow) = (numbers(&[2, 3]), numbers(&[3]).to_kind(Kind::Half));
    let metadata: Vec<(String, String)> = (0..20).map(|i| (format!("key{i}"), format!("value {i}"))).collect();
    let mut metadata: Vec<(&str, &str)> = metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let mut tensors = [("a", &narrow), ("b", &wide), ("c", &wide)];
    let mut save = |name: &str| {
        let path = folder.path().join(name);
        weights::save_with_metadata(&path, tensors, &metadata).unwrap();
        metadata.reverse();
        tensors.reverse();
        fs::read(&path).unwrap()
    };
    let bytes = save("1");
    assert_eq!(bytes, save("2"));
    let expected =
        "{\"__metadata__\":{\"format\":\"pt\",\"key0\":\"value 0\",\"key1\":\"value 1\",\"key10\":\"value 10\",";
    assert!(bytes[8..].starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&bytes[..200]));
    assert_eq!(&bytes[bytes.len() - 6..], narrow_bytes(), "f32 comes before f16");
    assert_eq!(Archive::open(&folder.path().join("1")).unwrap().tensors().unwrap()["c"], wide);
}

/// -2.5, -1.5 and -0.5 as f16.
fn narrow_bytes() -> [u8; 6] {
    [0x00, 0xc1, 0x00, 0xbe, 0x00, 0xb8]
}

#[test]
fn two_tensors_of_one_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let w = numbers(&[2]);
    let error = weights::save(&path, [("w", &w), ("w", &w)]).unwrap_err().to_string();
    assert_eq!(error, "two tensors are called \"w\", but a safetensors file holds one of each name");
    assert!(!path.exists());
}
