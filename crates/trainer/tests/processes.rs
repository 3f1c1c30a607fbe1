//! Several processes, each of them this program, which the tests start: they learn what one learns.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "it/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::env;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, ExitCode};

use distributed::{Environment, Group};
use golden::fixtures;
use libtest_mimic::{Arguments, Trial};
use libtorch::random;
use runs::{FurtherConcept, Prior, TrainConfig};
use sampling::Pipeline;
use tch::{Device, Kind, Tensor};
use trainer::{PhotoBatches, Share, Trainer};
use weights::Archive;

const FOLDER: &str = "TRAINER_TEST_FOLDER";
const STEPS: usize = 20;
/// Neither two nor three divide it.
const BATCH: usize = 5;

/// The losses of the first step, relative: rounding of f32 (6e-8) in sums of other orders.
const LOSSES: f64 = 1e-6;

/// Its gradients, relative to their norm. Roundings grow on the way back through softmax and the text encoder: of one process that starts
/// a rounding away they are off by up to 6e-6.
const GRADIENTS: f64 = 5e-6;

/// The change by all steps may be so many times farther from that of one process than one that starts a rounding away ...
const FARTHER: f64 = 10.0;
/// ... or than this, where parameters start at 0 and there is nothing to round.
const LEAST_DRIFT: f64 = 2e-5;

fn main() -> ExitCode {
    if let Ok(folder) = env::var(FOLDER) {
        let environment = Environment::read(&|name| env::var(name).ok()).unwrap().unwrap();
        let group = Group::connect(&environment).unwrap();
        learn_all(Path::new(&folder), &group, false);
        group.leave().unwrap();
        return ExitCode::SUCCESS;
    }
    let test = Trial::test("several_processes_learn_what_one_learns", || {
        several_processes_learn_what_one_learns();
        Ok(())
    });
    libtest_mimic::run(&Arguments::from_args(), vec![test]).exit_code()
}

/// A method's recipe for the tiny model.
fn config(recipe: TrainConfig) -> TrainConfig {
    let mut config = TrainConfig { category: "cat".to_owned(), ..recipe };
    config.augmentation = common::config().augmentation;
    config.prior = config.prior.map(|prior| Prior { images: 3, ..prior });
    if let Some(options::Adapter::Lora { rank, .. }) = &mut config.adapter {
        *rank = 2;
    }
    for phase in config.phases.values_mut() {
        (phase.steps, phase.batch_size, phase.learning_rate) = (STEPS, BATCH, 1e-4);
        phase.gradient_accumulation = 1;
    }
    config
}

/// Every phase of every method, and what else adds up over samples.
fn cases() -> Vec<(String, TrainConfig, usize)> {
    let mut cases = Vec::new();
    for method in methods::ALL {
        let config = config(method.recipe());
        let of_phase = |number| (format!("{}-{number}", method.name()), config.clone(), number);
        cases.extend((0..config.phases.len()).map(of_phase));
    }
    let named = |name: &str| config(methods::named(name).unwrap().recipe());
    for divide_by_accumulation in [false, true] {
        let mut sums = named("attndreambooth");
        sums.regularizer.batch = regularizer::Batch::Sum;
        sums.regularizer.divide_by_accumulation = divide_by_accumulation;
        sums.phases[1].gradient_accumulation = 2;
        cases.push((format!("sums-{divide_by_accumulation}"), sums, 1));
    }
    let mut pooled = named("attndreambooth");
    (pooled.regularizer.mode, pooled.snr_gamma, pooled.gradient_checkpointing) =
        (regularizer::Mode::Pooled, Some(5.0), true);
    cases.push(("pooled".to_owned(), pooled, 2));
    // Fewer samples than processes.
    let mut few = named("custom-diffusion");
    few.phases[0].batch_size = 1;
    cases.push(("few".to_owned(), few, 0));
    let further = FurtherConcept {
        concept: "dogs".into(),
        category: "dog".to_owned(),
        placeholder: "<new2>".to_owned(),
        initial_word: None,
    };
    cases.push(("several".to_owned(), TrainConfig { more_concepts: vec![further], ..named("custom-diffusion") }, 0));
    cases
}

fn start(config: &TrainConfig, group: &Group) -> (Trainer, PhotoBatches) {
    tch::set_num_threads(1);
    let pipeline = Pipeline::from_folder(&fixtures().join("tiny-sd21"), (Kind::Float, Device::Cpu)).unwrap();
    let of_all = || vec![common::photos(); config.concepts().len()];
    let prior = if config.prior.is_some() { of_all() } else { Vec::new() };
    let batches = PhotoBatches::shared(config, &pipeline, of_all(), prior, Share::of(group)).unwrap();
    let mut trainer = Trainer::new(config.clone(), pipeline).unwrap();
    trainer.processes = group.clone();
    (trainer, batches)
}

/// Takes the steps of all cases; rank 0 writes what comes out of each.
fn learn_all(folder: &Path, group: &Group, rounded: bool) {
    for (name, config, number) in cases() {
        let (trainer, mut batches) = start(&config, group);
        if rounded {
            // By at most the half of a unit in the last place.
            for (i, (_, parameter)) in trainer.trained(number).unwrap().into_iter().enumerate() {
                let off = random::uniform(i as u64, &parameter.size()) - 0.5;
                tch::no_grad(|| parameter.shallow_clone().copy_(&(parameter * (1.0 + off * 2f64.powi(-23)))));
            }
        }
        let before: Vec<Tensor> =
            trainer.trained(number).unwrap().iter().map(|(_, parameter)| parameter.detach().copy()).collect();
        let mut phase_run = trainer.start(number).unwrap();
        let (mut tensors, mut losses) = (BTreeMap::new(), Vec::new());
        for step in 0..STEPS {
            let report = phase_run.step(&trainer, &mut batches).unwrap().wait().unwrap();
            losses.extend(report.losses.iter().map(|(_, loss)| *loss));
            if step == 0 {
                for (name, parameter) in trainer.trained(number).unwrap() {
                    let gradient = parameter.grad();
                    if gradient.defined() {
                        tensors.insert(format!("gradient.{name}"), gradient.copy());
                    }
                }
                tensors.insert("first".to_owned(), Tensor::from_slice(&losses));
            }
        }
        tensors.insert("losses".to_owned(), Tensor::from_slice(&losses));
        for ((name, parameter), before) in trainer.trained(number).unwrap().into_iter().zip(&before) {
            tensors.insert(format!("change.{name}"), parameter.detach() - before);
        }
        // No rank is a bit away from another.
        let sums: Vec<f64> = tensors.values().map(|tensor| tensor.sum(Kind::Double).double_value(&[])).collect();
        let all = group.exchange(&format!("{sums:?}")).unwrap();
        assert!(all.iter().all(|one| *one == all[0]), "{name}");
        if group.leads() {
            weights::save(&folder.join(format!("{name}.safetensors")), &tensors).unwrap();
        }
    }
}

/// Relative to the norm of all tensors that begin so.
fn distance(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>, kind: &str) -> f64 {
    let square = |tensor: &Tensor| tensor.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]);
    let (mut off, mut all) = (0.0, 0.0);
    assert!(a.keys().eq(b.keys()));
    for (name, tensor) in a.iter().filter(|(name, _)| name.starts_with(kind)) {
        off += square(&(tensor.to_kind(Kind::Double) - b[name].to_kind(Kind::Double)));
        all += square(&b[name]);
    }
    assert!(all > 0.0, "{kind}");
    (off / all).sqrt()
}

fn several_processes_learn_what_one_learns() {
    let folders: Vec<tempfile::TempDir> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    for (folder, size) in folders[2..].iter().zip([2, 3]) {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = |rank: usize| {
            Command::new(env::current_exe().unwrap())
                .env(FOLDER, folder.path())
                .envs(
                    [("RANK", rank), ("WORLD_SIZE", size), ("MASTER_PORT", port.into())]
                        .map(|(k, v)| (k, v.to_string())),
                )
                .envs([("MASTER_ADDR", "127.0.0.1"), ("OMP_NUM_THREADS", "1")])
                .spawn()
                .unwrap()
        };
        let children: Vec<_> = (0..size).map(process).collect();
        children.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));
    }
    learn_all(folders[0].path(), &Group::alone(), false);
    learn_all(folders[1].path(), &Group::alone(), true);
    let mut wrong = Vec::new();
    for (name, _, _) in cases() {
        let [one, rounded, two, three] = [0, 1, 2, 3].map(|i: usize| {
            let file = folders[i].path().join(format!("{name}.safetensors"));
            BTreeMap::from_iter(Archive::open(&file).unwrap().tensors().unwrap())
        });
        let [drift, first_drift] = ["change.", "gradient."].map(|kind| distance(&rounded, &one, kind));
        for (size, several) in [(2, two), (3, three)] {
            let [first, gradients, change] =
                ["first", "gradient.", "change."].map(|kind| distance(&several, &one, kind));
            println!(
                "{name}, {size} processes: losses {first:.1e}, gradients {gradients:.1e} of {first_drift:.1e}, change {change:.1e} of \
                 {drift:.1e}"
            );
            if !(first < LOSSES && gradients < GRADIENTS && change < FARTHER * drift.max(LEAST_DRIFT)) {
                wrong.push(format!("{name}, {size} processes"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
