//! The mapper and the bypass beside fixtures/methods/neti: before training, and their forms.
#![allow(clippy::unwrap_used)]

use clip::ClipTextModel;
use golden::{Formula, Golden, fixtures};
use neti::{Config, Mapper, Prompts, nested_dropout};
use tch::{Device, Kind, Tensor};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// As the loop in Python has it before its first step.
fn given(golden: &Golden) -> Mapper {
    let norm = golden.get("norm").double_value(&[0]);
    let mapper = Mapper::new(&Config::default(), 0, (32, 16), norm, Device::Cpu).unwrap();
    mapper.frequencies().shallow_clone().copy_(&golden.get("frequencies"));
    mapper.parameters().iter().for_each(|(name, parameter)| Formula.fill(name, parameter));
    mapper.start_at_anchors();
    mapper
}

/// What the mapper gives at the file's points.
fn outputs(mapper: &Mapper, points: &Tensor) -> Tensor {
    let rows = (0..points.size()[0]).map(|i| {
        let layer = points.int64_value(&[i, 1]) as usize;
        Tensor::cat(&mapper.forward(&points.get(i).narrow(0, 0, 1), layer, None).unwrap(), 1)
    });
    Tensor::cat(&rows.collect::<Vec<_>>(), 0)
}

#[test]
fn features_and_outputs_are_the_references() {
    let golden = Golden::open("methods/neti/neti.safetensors");
    let (mapper, points) = (given(&golden), golden.get("points"));
    let four = points.narrow(0, 0, 4);
    golden.assert_close("encodings", &mapper.encode(&four.select(1, 0), &four.select(1, 1)), 1e-6);
    golden.assert_close("initial_outputs", &outputs(&mapper, &points), 1e-6);
}

/// fixtures/methods/counts.json.
#[test]
fn as_many_numbers_are_trained_as_are_said() {
    let path = fixtures().join("methods/counts.json");
    let counts: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (model, width) in [("sd21", 1024), ("sd15", 768)] {
        let mapper = Mapper::new(&Config::default(), 0, (width, 16), 1.0, Device::Cpu).unwrap();
        let count: usize = mapper.parameters().iter().map(|(_, parameter)| parameter.numel()).sum();
        assert_eq!(counts[model]["neti"], count, "{model}");
        let names: Vec<String> = mapper.parameters().into_iter().map(|(name, _)| name).collect();
        let expected = ["input_layer", "net.1", "net.2", "net.4", "net.5", "output_layer.0"];
        assert_eq!(names, expected.map(|name| [format!("{name}.weight"), format!("{name}.bias")]).concat());
        assert_eq!(mapper.frequencies().numel(), 2048);
    }
}

#[test]
fn nested_dropout_keeps_the_first_numbers_and_depends_on_its_seed_alone() {
    let config = Config::default();
    let kept = nested_dropout(&config, 7, 1000, 3);
    assert_eq!(kept, nested_dropout(&config, 7, 1000, 3));
    assert_ne!(kept, nested_dropout(&config, 8, 1000, 3));
    let whole = kept.eq(config.hidden);
    // A call is under dropout with all of its samples.
    assert!(whole.all_dim(1, false) == whole.any_dim(1, false));
    let calls = i64::try_from(whole.select(1, 0).sum(Kind::Int64)).unwrap();
    assert!((430..570).contains(&calls), "{calls} of 1000 calls keep all");
    assert_eq!((i64::try_from(kept.min()).unwrap(), i64::try_from(kept.max()).unwrap()), (0, config.hidden));

    // All beyond is as if it were not there: of the last layer's weight only the first columns matter.
    let mapper = Mapper::new(&config, 1, (8, 16), 1.0, Device::Cpu).unwrap();
    let times = Tensor::from_slice(&[3i64, 700]);
    let [some, _] = mapper.forward(&times, 2, Some(&Tensor::from_slice(&[5i64, 128]))).unwrap();
    let (name, weight) = mapper.parameters().into_iter().rev().nth(1).unwrap();
    assert_eq!(name, "output_layer.0.weight");
    let _ = tch::no_grad(|| weight.narrow(1, 5, 123).zero_());
    let [first, _] = mapper.forward(&times, 2, None).unwrap();
    golden::assert_close("the first five", &some.get(0), &first.get(0), 1e-6);
    assert_ne!(some.get(1), first.get(1));
}

#[test]
fn a_file_has_all_that_the_mapper_is() {
    let folder = tempfile::tempdir().unwrap();
    let (path, again) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    let mapper = given(&Golden::open("methods/neti/neti.safetensors"));
    mapper.write(&path, "<new>").unwrap();
    let (read, token) = Mapper::read(&path, (32, 16), Device::Cpu).unwrap();
    assert_eq!((token.as_str(), read.config(), read.norm()), ("<new>", mapper.config(), mapper.norm()));
    assert_eq!(read.frequencies(), mapper.frequencies());
    for ((name, found), (_, expected)) in read.parameters().iter().zip(mapper.parameters()) {
        assert_eq!(*found, expected, "{name}");
    }
    read.write(&again, "<new>").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap());
}

#[test]
fn a_file_that_does_not_fit_is_refused_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mapper.safetensors");
    let says = |size, words: &str| {
        let error = format!("{:#}", Mapper::read(&path, size, Device::Cpu).unwrap_err());
        assert!(error.contains(words) && error.contains("mapper.safetensors") && !error.contains('\n'), "{error}");
    };
    says((32, 16), "cannot read");
    let mapper = Mapper::new(&Config::default(), 0, (32, 16), 1.0, Device::Cpu).unwrap();
    mapper.write(&path, "<new>").unwrap();
    says((1024, 16), "width 32 and 16 cross-attention layers, but this model has 1024 and 16");
    says((32, 12), "but this model has 32 and 12");
    let tensors = || mapper.parameters().into_iter().chain([("frequencies".to_owned(), mapper.frequencies().copy())]);
    weights::save(&path, tensors()).unwrap();
    says((32, 16), "does not say in its metadata (neti)");
    weights::save(&path, mapper.parameters()).unwrap();
    says((32, 16), "holds no mapper of NeTI");
    let config = |config: &str| {
        let header = format!(r#"{{"config": {config}, "layers": 16, "norm": 1.0, "token": "<new>"}}"#);
        weights::save_with_metadata(&path, tensors(), &[("neti", &header)]).unwrap();
    };
    config("{}");
    says((32, 16), "no mapper's configuration: missing field");
    let mut value = serde_json::to_value(Config::default()).unwrap();
    value["hidden"] = (1i64 << 40).into();
    config(&value.to_string());
    says((32, 16), "hidden is 1099511627776, but must be from 1 to 65536");
    mapper.write(&path, " ").unwrap();
    says((32, 16), "has no token");
    let _ = tch::no_grad(|| mapper.parameters()[1].1.shallow_clone().fill_(f64::NAN));
    mapper.write(&path, "<new>").unwrap();
    says((32, 16), "input_layer.bias");
    let pickle = Mapper::read(&folder.path().join("mapper-steps-250.pt"), (32, 16), Device::Cpu);
    assert!(pickle.unwrap_err().to_string().contains("convert it with the script in docs/methods/neti.md"));
}

#[test]
fn what_cannot_be_mapped_is_refused_in_a_sentence() {
    let says = |result: anyhow::Result<[Tensor; 2]>, words: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains('\n'), "{error}");
    };
    let new = |config: &Config, size, norm| {
        let made = Mapper::new(config, 0, size, norm, Device::Cpu);
        made.map(|_| [Tensor::new(), Tensor::new()])
    };
    says(new(&Config::default(), (0, 16), 1.0), "embeddings of width 0");
    says(new(&Config::default(), (8, 1001), 1.0), "for 1001 layers");
    says(new(&Config::default(), (8, 16), 0.0), "the norm 0, to which nothing can be scaled");
    says(new(&Config { anchors: 0, ..Config::default() }, (8, 16), 1.0), "anchors is 0, but must be from 1 to 1000");
    says(new(&Config { dropout: 1.5, ..Config::default() }, (8, 16), 1.0), "dropout is 1.5");
    let mapper = Mapper::new(&Config::default(), 0, (32, 16), 1.0, Device::Cpu).unwrap();
    let times = Tensor::from_slice(&[1i64]);
    says(mapper.forward(&times, 16, None), "no layer number 16: the mapper knows 16");
    says(mapper.forward(&times, 0, Some(&Tensor::from_slice(&[1i64, 2]))), "both must be [n]");
    let (text_encoder, _) = ClipTextModel::from_folder(&fixtures().join("tiny-sd21/text_encoder"), F32).unwrap();
    let ids = Tensor::from_slice(&[1i64, 2]).view([2, 1]);
    let prompts = Prompts { ids: &ids, token: 2, timesteps: &times, dtype: Kind::Float };
    let texts = |prompts, kept| mapper.texts(&text_encoder, prompts, kept).map(|mut texts| texts.remove(0));
    says(texts(&prompts, None), "each prompt has one timestep");
    let prompts = Prompts { ids: &ids.get(0).unsqueeze(0), ..prompts };
    says(texts(&prompts, Some(&times)), "[1], but there are 1 prompts in 16 layers");
}
