//! Several processes, each of them this program, which the tests start.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::env;
use std::net::TcpListener;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::Result;
use distributed::{Environment, Gradients, Group};
use libtest_mimic::{Arguments, Trial};
use tch::{Device, Kind, Tensor};

const ROLE: &str = "DISTRIBUTED_TEST_ROLE";

fn main() -> ExitCode {
    if let Ok(role) = env::var(ROLE) {
        return match play(&role) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{error:#}");
                ExitCode::from(2)
            }
        };
    }
    let tests: [(&str, fn()); 6] = [
        ("what_processes_tell_each_other_arrives", what_processes_tell_each_other_arrives),
        ("gradients_are_those_of_one_process", gradients_are_those_of_one_process),
        ("a_process_that_dies_ends_the_others_with_a_sentence", a_process_that_dies_ends_the_others_with_a_sentence),
        ("what_a_process_says_at_its_end_is_passed_on", what_a_process_says_at_its_end_is_passed_on),
        ("a_process_that_hangs_ends_the_others_with_a_sentence", a_process_that_hangs_ends_the_others_with_a_sentence),
        ("two_processes_of_one_rank_are_refused", two_processes_of_one_rank_are_refused),
    ];
    let trials = tests.map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

/// Starts a process for each of these ranks.
fn start(role: &str, size: usize, ranks: &[usize]) -> Vec<Child> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let process = |rank: &usize| {
        Command::new(env::current_exe().unwrap())
            .env(ROLE, role)
            .envs([("RANK", rank.to_string()), ("WORLD_SIZE", size.to_string()), ("MASTER_PORT", port.to_string())])
            .envs([("MASTER_ADDR", "127.0.0.1"), ("OMP_NUM_THREADS", "1")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    ranks.iter().map(process).collect()
}

/// Their exit codes, and what they have said.
fn ends(children: Vec<Child>) -> Vec<(Option<i32>, String)> {
    let end = |child: Child| {
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap().trim().to_owned())
    };
    children.into_iter().map(end).collect()
}

fn play(role: &str) -> Result<()> {
    tch::set_num_threads(1);
    let group = Group::connect(&Environment::read(&|name| env::var(name).ok())?.unwrap())?;
    match role {
        "tell" => tell(&group)?,
        "learn" => learn(&group)?,
        "die" if group.rank() == 1 => std::process::abort(),
        "hang" if group.rank() == 1 => {
            println!("hanging");
            Command::new("kill").args(["-STOP", &std::process::id().to_string()]).status()?;
        }
        "fail" if group.rank() == 1 => {
            return group.telling(|| anyhow::bail!("the disk is full"));
        }
        _ => {
            group.any([false])?;
            println!("not lost");
        }
    }
    group.leave()
}

fn what_processes_tell_each_other_arrives() {
    for size in [2, 3] {
        assert_eq!(ends(start("tell", size, &[0, 1, 2][..size])), vec![(Some(0), String::new()); size]);
    }
}

fn tell(group: &Group) -> Result<()> {
    let (rank, size) = (group.rank(), group.size());
    assert_eq!(group.any([rank == 0, rank + 1 == size, false, true])?, [true, true, false, true]);
    for round in 0..2 {
        let expected: Vec<String> = (0..size).map(|rank| format!("round {round} of {rank}")).collect();
        assert_eq!(group.exchange(&expected[rank])?, expected);
    }
    let tensor = Tensor::full([2, 3], rank as f64 + 1.0, (Kind::Float, Device::Cpu));
    group.sum(&tensor)?;
    assert_eq!(tensor, Tensor::full([2, 3], (size * (size + 1) / 2) as f64, (Kind::Float, Device::Cpu)));
    let tensor = Tensor::full([4], rank as i64 + 7, (Kind::Int64, Device::Cpu));
    group.take_from_first(&tensor)?;
    assert_eq!(tensor, Tensor::full([4], 7, (Kind::Int64, Device::Cpu)));
    let shares: Vec<usize> = (0..size).flat_map(|rank| distributed::share(7, rank, size)).collect();
    assert_eq!(shares, (0..7).collect::<Vec<_>>());
    Ok(())
}

fn gradients_are_those_of_one_process() {
    for size in [2, 3] {
        assert_eq!(ends(start("learn", size, &[0, 1, 2][..size])), vec![(Some(0), String::new()); size]);
    }
}

/// Layers w of a loss Σ (w₃ w₂ w₁ x)² over samples, in passes of two samples each. What only one process uses and what none uses are
/// among the parameters.
fn learn(group: &Group) -> Result<()> {
    let cpu = (Kind::Float, Device::Cpu);
    let layer = |seed: u64| libtorch::random::normal(seed, &[6, 6]).set_requires_grad(true);
    let layers: Vec<Tensor> = (0..3).map(layer).collect();
    let (own, unused) = (Tensor::ones([5], cpu).set_requires_grad(true), layer(9));
    let parameters: Vec<&Tensor> = layers.iter().chain([&own, &unused]).collect();
    let loss = |layers: &[Tensor], sample: u64| {
        let x = libtorch::random::normal(100 + sample, &[6, 1]);
        layers.iter().fold(x, |x, layer| layer.matmul(&x)).square().sum(Kind::Float)
    };
    // Two parameters a bucket: 36 of 64 floats and the next.
    let mut gradients = Gradients::with_buckets(group, &parameters, 65 * 4)?;
    for step in 0..3 {
        parameters.iter().for_each(|parameter| libtorch::clear_grads(&[parameter]).unwrap());
        let sample = |rank: usize, pass: usize| (step * 100 + rank * 10 + pass) as u64;
        let values = Tensor::zeros([2], cpu);
        for pass in 0..2 {
            if pass == 1 {
                gradients.last_pass()?;
            }
            let mut total = loss(&layers, sample(group.rank(), pass));
            if group.rank() == 1 {
                total += own.sum(Kind::Float) * 3.0;
            }
            total.backward();
            values.get(pass as i64).copy_(&total.detach());
        }
        gradients.finish(&values)?;

        let copies: Vec<Tensor> =
            layers.iter().map(|layer| layer.detach().to_kind(Kind::Double).set_requires_grad(true)).collect();
        let passes = (0..group.size()).flat_map(|rank| [sample(rank, 0), sample(rank, 1)]);
        let total: Tensor = passes
            .map(|sample| {
                let x = libtorch::random::normal(100 + sample, &[6, 1]).to_kind(Kind::Double);
                copies.iter().fold(x, |x, layer| layer.matmul(&x)).square().sum(Kind::Double)
            })
            .sum();
        total.backward();
        for (layer, copy) in layers.iter().zip(&copies) {
            let error = (layer.grad() - copy.grad()).norm() / copy.grad().norm();
            assert!(error.double_value(&[]) < 1e-6, "step {step}: {error}");
        }
        let sum = values.sum(Kind::Double).double_value(&[]);
        let expected = total.double_value(&[]) + 2.0 * 5.0 * 3.0;
        assert!((sum / expected - 1.0).abs() < 1e-6);
        assert_eq!(own.grad(), Tensor::full([5], 6.0, cpu));
        assert!(!unused.grad().defined());
        let (beside, all) = gradients.beside();
        // Not in the first step, nor where one has no gradient in this process.
        assert_eq!((beside, all), (if step == 0 { 0 } else { 1 + usize::from(group.rank() == 1) }, 2));
    }
    Ok(())
}

fn a_process_that_dies_ends_the_others_with_a_sentence() {
    let mut ends = ends(start("die", 3, &[0, 1, 2]));
    assert_eq!(ends.remove(1).0, None);
    for (code, said) in ends {
        assert!(said.contains("has lost another process") && !said.contains('\n'), "{said}");
        assert_eq!(code, Some(2));
    }
}

fn what_a_process_says_at_its_end_is_passed_on() {
    // Rank 1 ends while the others ask it something.
    let mut ends = ends(start("fail", 3, &[0, 1, 2]));
    assert_eq!(ends.remove(1), (Some(2), "the disk is full".to_owned()));
    for (code, said) in ends {
        assert!(said.contains("rank 1 has ended: the disk is full"), "{said}");
        assert_eq!(code, Some(2));
    }
}

fn a_process_that_hangs_ends_the_others_with_a_sentence() {
    let mut children = start("hang", 3, &[0, 1, 2]);
    let mut hanging = children.remove(1);
    for (code, said) in ends(children) {
        assert!(said.contains("rank 1 has shown no sign of life for 40 s"), "{said}");
        assert_eq!(code, Some(2));
    }
    hanging.kill().unwrap();
    hanging.wait().unwrap();
}

fn two_processes_of_one_rank_are_refused() {
    let mut children = start("tell", 3, &[0, 1, 1]);
    // The first of the two waits for rank 2.
    let refused = loop {
        if let Some(number) = (1..3).find(|number| children[*number].try_wait().unwrap().is_some()) {
            break children.remove(number);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let (code, said) = ends(vec![refused]).remove(0);
    assert!(said.contains("another process has the same RANK"), "{said}");
    assert_eq!(code, Some(2));
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
