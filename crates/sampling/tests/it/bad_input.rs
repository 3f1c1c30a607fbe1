//! What users get wrong, and what they are told.

use std::fs;
use std::path::Path;

use golden::{copy_folder, fixtures};
use options::SchedulerKind;
use sampling::{ModelFolder, Pipeline, Request, Settings};
use tch::{Device, Kind, Tensor};
use weights::Archive;

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

fn complaint(folder: &Path) -> String {
    let text = format!("{:#}", Pipeline::from_folder(folder, F32).unwrap_err());
    assert!(text.contains(&folder.display().to_string()), "{text}");
    text
}

#[test]
fn wrong_folders_are_told_apart() {
    let root = fixtures();
    let says = |path: &Path, words: &str| {
        let text = ModelFolder::open(path).unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
    };
    says(&root.join("no-such-model"), "there is no model folder");
    says(&root.join("fill.py"), "is a file");
    says(&root.join("tiny-sd21/unet"), "is a single component");
    says(&root, "not a complete model");
    assert!(ModelFolder::open(&root.join("tiny-sd21")).is_ok());
    let temporary = tempfile::tempdir().unwrap();
    copy_folder(&root.join("tiny-sd21"), temporary.path());
    fs::create_dir(temporary.path().join("text_encoder_2")).unwrap();
    says(
        temporary.path(),
        "is SDXL, since it has a text_encoder_2, but not complete: it has no text_encoder_2/config.json",
    );
    fs::remove_dir_all(temporary.path().join("text_encoder")).unwrap();
    says(temporary.path(), "is SDXL's refiner");
}

#[test]
fn inpainting_models_are_refused_by_name() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("model");
    copy_folder(&fixtures().join("tiny-sdxl"), &folder);
    let (config, file) = (folder.join("unet/config.json"), folder.join("unet/diffusion_pytorch_model.safetensors"));
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"in_channels\": 4", "\"in_channels\": 9")).unwrap();
    let mut tensors = Archive::open(&file).unwrap().tensors().unwrap();
    let conv_in = tensors.get_mut("conv_in.weight").unwrap();
    *conv_in = Tensor::cat(&[&*conv_in, &conv_in.zeros_like(), &conv_in.narrow(1, 0, 1)], 1);
    weights::save(&file, &tensors).unwrap();
    assert!(complaint(&folder).contains("takes 9 channels, as that of an inpainting model does"));
}

#[test]
fn damaged_models_name_the_file() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("model");
    copy_folder(&fixtures().join("tiny-sd21"), &folder);
    let weights = folder.join("unet/diffusion_pytorch_model.safetensors");
    let whole = fs::read(&weights).unwrap();

    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    assert!(complaint(&folder).contains("diffusion_pytorch_model.safetensors is not a valid safetensors file"));
    fs::remove_file(&weights).unwrap();
    assert!(complaint(&folder).contains("no weights in"));
    fs::write(folder.join("unet/diffusion_pytorch_model.bin"), "pickle").unwrap();
    assert!(complaint(&folder).contains("is a pickle file"));
    fs::write(&weights, &whole).unwrap();

    let config = folder.join("unet/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"block_out_channels\"", "\"blocks\"")).unwrap();
    assert!(complaint(&folder).contains("block_out_channels"));
    fs::write(&config, &text).unwrap();

    copy_folder(&fixtures().join("tiny-clip"), &folder.join("text_encoder"));
    assert!(complaint(&folder).contains("text_encoder"));
}

#[test]
fn impossible_settings_are_refused_before_anything_is_drawn() {
    let pipeline = Pipeline::from_folder(&fixtures().join("tiny-sd21"), F32).unwrap();
    let default = pipeline.default_settings();
    let request = [Request::new("a cat", 0)];
    let says = |settings: Settings, words: &str| {
        let error = pipeline.generate(&request, &settings, &mut |_| panic!("a step was done")).unwrap_err();
        assert!(format!("{error:#}").contains(words), "{error:#}");
    };
    says(
        Settings { height: 100, ..default.clone() },
        "height 100 is not a positive multiple of 8; the nearest that is one is 104",
    );
    says(Settings { width: -8, ..default.clone() }, "width -8");
    says(Settings { steps: 0, ..default.clone() }, "0");
    says(Settings { steps: 2000, ..default.clone() }, "2000");
    says(Settings { guidance_scale: f64::NAN, ..default }, "guidance_scale");
    assert!(pipeline.generate(&[], &pipeline.default_settings(), &mut |_| {}).is_err());
}

#[test]
fn the_empty_prompt_is_valid() {
    let pipeline = Pipeline::from_folder(&fixtures().join("tiny-sd21"), F32).unwrap();
    let settings = Settings { steps: 1, height: 16, width: 16, ..pipeline.default_settings() };
    assert_eq!(pipeline.generate(&[Request::new("", 0)], &settings, &mut |_| {}).unwrap().len(), 1);
}

fn edit(path: &Path, change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(json.as_object_mut().unwrap());
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn every_file_may_begin_with_a_byte_order_mark() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("model");
    copy_folder(&fixtures().join("tiny-sd21"), &folder);
    let mut marked = 0;
    for component in ["unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        for path in fs::read_dir(folder.join(component)).unwrap().map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|e| e == "json" || e == "txt") {
                fs::write(&path, ["\u{feff}".as_bytes(), &fs::read(&path).unwrap()].concat()).unwrap();
                marked += 1;
            }
        }
    }
    assert_eq!(marked, 8);
    let [pipeline, plain] = [&folder, &fixtures().join("tiny-sd21")].map(|f| Pipeline::from_folder(f, F32).unwrap());
    let prompt = "a photo of a cat";
    assert_eq!(pipeline.tokenizer.encode(prompt).unwrap(), plain.tokenizer.encode(prompt).unwrap());
    assert_eq!(pipeline.scheduler, plain.scheduler);
    assert_eq!(ModelFolder::open(&folder).unwrap().image_size().unwrap(), 128);
}

#[test]
fn a_scheduler_that_does_not_exist_here_has_a_stand_in_and_a_note() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("model");
    copy_folder(&fixtures().join("tiny-sd21"), &folder);
    let path = folder.join("scheduler/scheduler_config.json");
    let settings = |pipeline: &Pipeline| Settings { steps: 3, height: 64, width: 64, ..pipeline.default_settings() };
    let requests = [Request::new("a photo of a cat", 0)];
    let plain = Pipeline::from_folder(&folder, F32).unwrap();
    assert_eq!(plain.notes(), [""; 0]);

    edit(&path, |json| drop(json.insert("_class_name".to_owned(), "UniPCMultistepScheduler".into())));
    let pipeline = Pipeline::from_folder(&folder, F32).unwrap();
    let [note] = pipeline.notes() else { panic!("{:?}", pipeline.notes()) };
    for part in
        ["scheduler_config.json: UniPCMultistepScheduler does not exist here", "DPMSolverMultistep", "--scheduler"]
    {
        assert!(note.contains(part), "{note}");
    }
    let dpm = Settings { scheduler: Some(scheduler::SchedulerKind::DpmSolverPlusPlus), ..settings(&plain) };
    let expected = plain.generate(&requests, &dpm, &mut |_| {}).unwrap();
    assert_eq!(pipeline.generate(&requests, &settings(&pipeline), &mut |_| {}).unwrap(), expected);

    edit(&path, |json| drop(json.insert("_class_name".to_owned(), "NoSuchScheduler".into())));
    let pipeline = Pipeline::from_folder(&folder, F32).unwrap();
    let text = format!("{:#}", pipeline.check(&requests, &settings(&pipeline)).unwrap_err());
    for part in ["scheduler_config.json", "--scheduler", "unknown scheduler \"NoSuchScheduler\""] {
        assert!(text.contains(part), "{text}");
    }
    assert!(pipeline.check(&requests, &dpm).is_ok());
}

#[test]
fn an_eta_is_for_ddim() {
    let pipeline = Pipeline::from_folder(&fixtures().join("tiny-sd21"), F32).unwrap();
    let says = |settings: Settings| pipeline.check(&[Request::new("a cat", 0)], &settings).unwrap_err().to_string();
    let asked = Settings { eta: Some(1.0), ..pipeline.default_settings() };
    assert!(says(asked.clone()).starts_with("PNDMScheduler has no eta, but eta 1 was asked for: use ddim"));
    let ddim = Settings { scheduler: Some(SchedulerKind::Ddim), ..asked };
    assert!(says(Settings { eta: Some(-1.0), ..ddim }).starts_with("eta is -1, but must be from 0 to 1"));
}

#[test]
fn embeddings_are_added_one_after_the_other_and_once_each() {
    let mut pipeline = Pipeline::from_folder(&fixtures().join("tiny-sd21"), F32).unwrap();
    let rows = tch::Tensor::linspace(-1.0, 1.0, 96, F32).reshape([3, 32]);
    pipeline.add_token("<two>", &rows.narrow(0, 0, 2)).unwrap();
    let before = pipeline.encode_prompts(&["a <two> dog"]).unwrap().hidden_states;
    assert!(format!("{:#}", pipeline.add_token("<two>", &rows).unwrap_err()).contains("<two>"));
    let narrow = rows.narrow(1, 0, 16);
    assert!(pipeline.add_token("<three>", &narrow).unwrap_err().to_string().contains("[tokens, 32]"));
    pipeline.add_placeholder("<three>", &rows.narrow(0, 2, 1)).unwrap();
    assert_eq!(pipeline.encode_prompts(&["a <two> dog"]).unwrap().hidden_states, before);
    let [both, named] = ["a [V] <two>", "a <three> <two> <two>_1"]
        .map(|prompt| pipeline.encode_prompts(&[prompt]).unwrap().hidden_states);
    assert_eq!(both, named);
}

#[test]
fn a_padded_vocabulary_is_as_good_as_another() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("model");
    copy_folder(&fixtures().join("tiny-sd21"), &folder);
    let encoder = folder.join("text_encoder");
    let mut tensors = weights::Archive::open_folder(&encoder).unwrap().tensors().unwrap();
    let table = tensors.iter_mut().find(|(name, _)| name.ends_with("token_embedding.weight")).unwrap().1;
    let padding = tch::Tensor::ones([16, 32], F32) * 7.0;
    *table = tch::Tensor::cat(&[&*table, &padding], 0);
    weights::save(&encoder.join("model.safetensors"), &tensors).unwrap();
    edit(&encoder.join("config.json"), |json| drop(json.insert("vocab_size".to_owned(), 1216.into())));

    let row = tch::Tensor::linspace(-1.0, 1.0, 64, F32).reshape([2, 32]);
    let [padded, plain] = [&folder, &fixtures().join("tiny-sd21")].map(|folder| {
        let mut pipeline = Pipeline::from_folder(folder, F32).unwrap();
        pipeline.add_placeholder("<new>", &row).unwrap();
        pipeline.encode_prompts(&["a photo of a [V] dog"]).unwrap().hidden_states
    });
    assert_eq!(padded, plain);
    // Too few rows are no padding.
    edit(&encoder.join("config.json"), |json| drop(json.insert("vocab_size".to_owned(), 1100.into())));
    let table = tensors.iter_mut().find(|(name, _)| name.ends_with("token_embedding.weight")).unwrap().1;
    *table = table.narrow(0, 0, 1100);
    weights::save(&encoder.join("model.safetensors"), &tensors).unwrap();
    assert!(complaint(&folder).contains("the tokenizer has 1200 tokens, but the text encoder knows 1100"));
}

#[test]
fn several_subjects_have_their_own_names() {
    let rows = |seed, count: i64| libtorch::random::normal(seed, &[count, 32]);
    let open = || Pipeline::from_folder(&fixtures().join("tiny-sd21"), F32).unwrap();
    let mut both = open();
    both.add_placeholder("<one>", &rows(1, 2)).unwrap();
    both.add_token("<two>", &rows(2, 3)).unwrap();
    assert_eq!(both.subject(), Some("<one>"));
    for (name, rows) in [("<one>", rows(1, 2)), ("<two>", rows(2, 3))] {
        let mut alone = open();
        alone.add_placeholder(name, &rows).unwrap();
        let prompt = format!("a photo of a {name} dog");
        let states = |pipeline: &Pipeline| pipeline.encode_prompts(&[&prompt]).unwrap().hidden_states;
        assert_eq!(states(&both), states(&alone));
    }
    assert_eq!(both.resolve("a [V]").unwrap(), both.resolve("a <one>").unwrap());
    let error = both.add_token("<one>", &rows(1, 2)).unwrap_err().to_string();
    assert!(error.contains("<one>"), "{error}");
    let wide = tch::Tensor::ones([1, 64], F32);
    let error = both.add_token("<three>", &wide).unwrap_err().to_string();
    assert!(error.contains("have shape [1, 64], but this text encoder needs [tokens, 32]"), "{error}");
    assert!(both.tokenizer.vectors("<three>").is_empty());
}
