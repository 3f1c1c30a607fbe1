//! A run that was stopped and goes on ends in the same bits as one that was not.

use std::path::Path;

use optimizer::EmaConfig;
use runs::{Group, TrainConfig};
use tch::{Device, Kind, Tensor};
use trainer::{Checkpoint, PhotoBatches, Trainer};

use crate::common::{self, learned, run_to_end};

/// With everything that a checkpoint must remember.
fn start() -> (Trainer, PhotoBatches) {
    common::start(TrainConfig { ema: Some(EmaConfig::default()), max_grad_norm: Some(1.0), ..common::config() })
}

fn assert_same(a: &[(String, Tensor)], b: &[(String, Tensor)]) {
    assert_eq!(a.len(), b.len());
    for ((name, a), (_, b)) in a.iter().zip(b) {
        assert!(a.equal(b), "{name} differs");
    }
}

/// Where the feature map is a single pixel, as on the lowest level here, attention to itself has nothing to learn: its
/// gradient is zero or rounding.
fn blind(name: &str) -> bool {
    name.contains("attn1.to_q") || name.contains("attn1.to_k")
}

#[test]
fn stopped_anywhere_it_ends_in_the_same_bits() {
    let (trainer, mut batches) = start();
    let before = learned(&trainer);
    let mut losses = Vec::new();
    run_to_end(&trainer, &mut batches, trainer.start(0).unwrap(), &mut losses);
    let expected = learned(&trainer);
    let unchanged = before.iter().zip(&expected).filter(|((_, a), (_, b))| a.equal(b));
    let unchanged: Vec<&str> = unchanged.map(|((name, _), _)| name.as_str()).collect();
    assert!(unchanged.iter().all(|name| blind(name)), "{unchanged:?}");

    let folder = tempfile::tempdir().unwrap();
    for phase in 0..3 {
        for done in [1, 2] {
            // A process that gets this far and dies ...
            let path = folder.path().join(format!("{phase}-{done}"));
            let (trainer, mut batches) = start();
            let mut seen = Vec::new();
            for earlier in 0..=phase {
                let steps = if earlier == phase { done } else { 3 };
                let mut phase_run = trainer.start(earlier).unwrap();
                for _ in 0..steps {
                    let report = phase_run.step(&trainer, &mut batches).unwrap().wait().unwrap();
                    seen.extend(report.losses.iter().map(|(_, loss)| *loss));
                }
                if earlier == phase {
                    phase_run.save(&trainer, &path).unwrap();
                } else {
                    phase_run.finish(&trainer).unwrap();
                }
            }
            drop((trainer, batches));
            // ... and another that goes on.
            let (trainer, mut batches) = start();
            let checkpoint = Checkpoint::latest(folder.path()).unwrap().unwrap();
            assert_eq!((checkpoint.state.number, checkpoint.state.step), (phase, done));
            run_to_end(&trainer, &mut batches, trainer.resume(&checkpoint).unwrap(), &mut seen);
            assert_eq!(seen, losses);
            assert_same(&learned(&trainer), &expected);
        }
    }
}

#[test]
fn each_phase_changes_what_it_trains_and_nothing_else() {
    let (trainer, mut batches) = start();
    for (phase, group) in [Group::Embedding, Group::CrossAttention, Group::Unet].into_iter().enumerate() {
        let before = learned(&trainer);
        let frozen: Vec<Tensor> = [&trainer.pipeline.parameters.text_encoder, &trainer.pipeline.parameters.vae]
            .iter()
            .flat_map(|parameters| parameters.iter().map(|(_, tensor)| tensor.copy()))
            .collect();
        let mut phase_run = trainer.start(phase).unwrap();
        let _launched = phase_run.step(&trainer, &mut batches).unwrap();
        for ((name, before), (_, after)) in before.iter().zip(&learned(&trainer)) {
            let trains = if name == "[V]" { group == Group::Embedding } else { group.has_unet(name) };
            assert!(before.equal(after) != trains || (trains && blind(name)), "{name} in phase {phase}");
        }
        let now = [&trainer.pipeline.parameters.text_encoder, &trainer.pipeline.parameters.vae];
        let now = now.iter().flat_map(|parameters| parameters.iter().map(|(_, tensor)| tensor));
        assert!(frozen.iter().zip(now).all(|(before, after)| before.equal(after)));
    }
}

#[test]
fn a_failed_checkpoint_leaves_the_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let (trainer, mut batches) = start();
    let mut phase_run = trainer.start(0).unwrap();
    let _launched = phase_run.step(&trainer, &mut batches).unwrap();
    phase_run.save(&trainer, &folder.path().join("1")).unwrap();
    let error = phase_run.save(&trainer, Path::new("/proc/no/2")).unwrap_err();
    assert!(format!("{error:#}").contains("cannot write the checkpoint /proc/no/2"), "{error:#}");

    // What a killed process leaves behind is not taken for a checkpoint.
    std::fs::create_dir(folder.path().join(".partial-x")).unwrap();
    let _launched = phase_run.step(&trainer, &mut batches).unwrap();
    phase_run.save(&trainer, &folder.path().join("2")).unwrap();
    Checkpoint::folder(folder.path()).keep_latest().unwrap();
    assert!(!folder.path().join("1").exists() && !folder.path().join(".partial-x").exists());
    assert_eq!(Checkpoint::latest(folder.path()).unwrap().unwrap().state.step, 2);
}

#[test]
fn a_copied_snapshot_is_of_its_step_whatever_is_trained_meanwhile() {
    for phase in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (trainer, mut batches) = start();
        let mut phase_run = trainer.start(phase).unwrap();
        let _launched = phase_run.step(&trainer, &mut batches).unwrap();
        phase_run.save(&trainer, &at("now")).unwrap();
        let pending = phase_run.pending_checkpoint(&trainer).unwrap().copied().unwrap();
        let _launched = phase_run.step(&trainer, &mut batches).unwrap();
        let path = at("copied");
        std::thread::spawn(move || pending.write(&path)).join().unwrap().unwrap();
        phase_run.save(&trainer, &at("later")).unwrap();

        let read = |checkpoint: &str, file: &str| std::fs::read(at(checkpoint).join(file)).unwrap();
        let files: Vec<String> = std::fs::read_dir(at("now"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(files.len() >= 3, "{files:?}");
        assert!(files.iter().all(|file| read("copied", file) == read("now", file)), "{phase}");
        assert!(files.iter().any(|file| read("later", file) != read("now", file)), "{phase}");
    }
}

#[test]
fn a_checkpoint_of_another_model_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (trainer, mut batches) = start();
    let mut phase_run = trainer.start(1).unwrap();
    let _launched = phase_run.step(&trainer, &mut batches).unwrap();
    phase_run.save(&trainer, &folder.path().join("1")).unwrap();
    weights::save(
        &folder.path().join("1/cross_attention.safetensors"),
        [("conv_in.weight", Tensor::zeros([1], (Kind::Float, Device::Cpu)))],
    )
    .unwrap();
    let error = trainer.resume(&Checkpoint::open(&folder.path().join("1")).unwrap()).unwrap_err();
    assert!(error.to_string().contains("attn2"), "{error}");
}

#[test]
fn what_is_not_a_number_never_takes_the_place_of_a_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (trainer, mut batches) = start();
    let mut phase_run = trainer.start(1).unwrap();
    let _launched = phase_run.step(&trainer, &mut batches).unwrap();
    phase_run.save(&trainer, &folder.path().join("1")).unwrap();
    let (name, broken) = trainer.trained(1).unwrap()[0];
    let _ = tch::no_grad(|| broken.shallow_clone().fill_(f64::INFINITY));
    let error = phase_run.save(&trainer, &folder.path().join("2")).unwrap_err().to_string();
    assert!(error.contains(name) && error.contains("after step 1 of phase cross_attention"), "{error}");
    assert!(!folder.path().join("2").exists() && folder.path().join("1").exists());
}
