//! Gradient checkpointing against plain backward passes; on the GPU too where there is one.
#![allow(clippy::unwrap_used)]

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use libtorch::{DeviceChoice, checkpoint, random};
use tch::{Device, Kind, Tensor};

fn places() -> Vec<(Kind, Device)> {
    let mut devices = vec![Device::Cpu, libtorch::resolve(DeviceChoice::Auto).unwrap()];
    devices.dedup();
    devices.into_iter().flat_map(|device| [(Kind::Float, device), (Kind::Double, device)]).collect()
}

fn leaf(seed: u64, shape: &[i64], to: (Kind, Device), trained: bool) -> Tensor {
    random::normal(seed, shape).to_device(to.1).to_kind(to.0).set_requires_grad(trained)
}

fn gradient(tensor: &Tensor) -> Option<Tensor> {
    Some(tensor.grad()).filter(Tensor::defined).map(|gradient| gradient.copy())
}

type Function = fn(&[Tensor], &[Tensor]) -> Vec<Tensor>;

/// Whether a function of inputs and of captured parameters is run as it is, or as a checkpointed segment.
type How = fn(&[&Tensor], Vec<Tensor>, Function) -> Vec<Tensor>;

const PLAIN: How = |inputs, parameters, function| {
    let inputs: Vec<Tensor> = inputs.iter().map(|input| input.shallow_clone()).collect();
    function(&inputs, &parameters)
};

const CHECKPOINTED: How =
    |inputs, parameters, function| checkpoint(inputs, move |inputs| function(inputs, &parameters));

fn clones(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(Tensor::shallow_clone).collect()
}

/// Two layers; the outputs are a map, a map of another shape, whole numbers, and something without gradients.
fn layers(inputs: &[Tensor], parameters: &[Tensor]) -> Vec<Tensor> {
    let hidden = (inputs[0].matmul(&parameters[0]) + &inputs[1]).tanh();
    let chosen = hidden.matmul(&parameters[1]).softmax(-1, hidden.kind()).index_select(1, &inputs[2]);
    let largest = hidden.argmax(1, false);
    let detached = hidden.detach() * 2.0;
    vec![hidden * &inputs[0] + 1.0, chosen.transpose(0, 1), largest, detached]
}

/// The outputs and all gradients of a loss of the chosen outputs, when the chosen inputs and parameters have gradients.
fn run(how: How, to: (Kind, Device), used: &[usize], trained: [bool; 4]) -> (Vec<Tensor>, Vec<Option<Tensor>>) {
    let leaves = [
        leaf(1, &[4, 6], to, trained[0]),
        leaf(2, &[6], to, trained[1]),
        leaf(3, &[6, 6], to, trained[2]),
        leaf(4, &[6, 5], to, trained[3]),
    ];
    let index = Tensor::from_slice(&[3_i64, 0]).to_device(to.1);
    // The segment's input and outputs are part of a larger graph.
    let x = &leaves[0] * 1.5;
    let outputs = how(&[&x, &leaves[1], &index], clones(&leaves[2..]), layers);
    let terms = used.iter().map(|&i| (&outputs[i] * leaf(5 + i as u64, &outputs[i].size(), to, false)).sum(to.0));
    let loss = terms.fold(Tensor::zeros([0_i64; 0], to), |sum, term| sum + term);
    if loss.requires_grad() {
        loss.backward();
    }
    (outputs, leaves.iter().map(gradient).collect())
}

#[test]
fn gradients_are_those_of_a_plain_backward_pass() {
    let every = [true; 4];
    for to in places() {
        let cases: [(&[usize], [bool; 4]); 9] = [
            (&[0, 1], every),
            // Outputs that nobody uses, or that have no gradients.
            (&[0], every),
            (&[1], every),
            (&[0, 3], every),
            // Frozen inputs, frozen parameters, only parameters, only inputs, and nothing at all.
            (&[0, 1], [true, false, false, true]),
            (&[0, 1], [false, false, true, true]),
            (&[0, 1], [false, false, false, true]),
            (&[0, 1], [true, true, false, false]),
            (&[0, 1], [false; 4]),
        ];
        for (used, trained) in cases {
            let (outputs, gradients) = run(CHECKPOINTED, to, used, trained);
            let (expected_outputs, expected_gradients) = run(PLAIN, to, used, trained);
            let what = format!("{to:?}, outputs {used:?}, trained {trained:?}");
            assert_eq!(gradients, expected_gradients, "{what}");
            assert_eq!(outputs, expected_outputs, "{what}");
            for (output, expected) in outputs.iter().zip(&expected_outputs) {
                assert_eq!(output.requires_grad(), expected.requires_grad(), "{what}");
            }
        }
    }
}

/// One parameter in two segments, one of them inside a third, and an input that is given twice.
#[test]
fn segments_may_contain_and_follow_others() {
    let step = |how: How, xs: &Tensor, w: &Tensor| {
        let layer: Function = |xs, w| vec![(xs[0].matmul(&w[0]) * &xs[1]).tanh()];
        how(&[xs, xs], vec![w.shallow_clone()], layer).remove(0)
    };
    let run = |how: How, nest: bool| {
        let to = (Kind::Double, Device::Cpu);
        let (x, w) = (leaf(1, &[3, 3], to, true), leaf(2, &[3, 3], to, true));
        let first = if nest {
            let w = w.shallow_clone();
            checkpoint(&[&x], move |xs| vec![step(how, &xs[0], &w).sin()]).remove(0)
        } else {
            step(how, &x, &w).sin()
        };
        step(how, &first, &w).sum(Kind::Double).backward();
        (gradient(&x).unwrap(), gradient(&w).unwrap())
    };
    let expected = run(PLAIN, false);
    for (how, nest) in [(PLAIN, true), (CHECKPOINTED, false), (CHECKPOINTED, true)] {
        assert_eq!(run(how, nest), expected);
    }
}

#[test]
fn an_input_may_be_returned() {
    let x = leaf(1, &[3], (Kind::Float, Device::Cpu), true);
    let outputs = checkpoint(&[&x], |xs| vec![xs[0].shallow_clone(), &xs[0] * 2.0, xs[0].shallow_clone()]);
    assert!(!outputs[0].is_leaf());
    (&outputs[0] + &outputs[1] + &outputs[2]).sum(Kind::Float).backward();
    assert_eq!(x.grad(), Tensor::full([3], 4.0, (Kind::Float, Device::Cpu)));

    // Without gradients it is the very same.
    let same = tch::no_grad(|| checkpoint(&[&x], |xs| vec![xs[0].shallow_clone()]));
    assert!(same[0].is_leaf() && same[0].requires_grad() && same[0].data_ptr() == x.data_ptr());
}

/// Counts the runs of a segment, and knows whether its closure is still there.
#[derive(Default, Clone)]
struct Probe(Arc<AtomicUsize>);

impl Probe {
    fn square(&self, x: &Tensor) -> Tensor {
        let probe = self.clone();
        let square = move |xs: &[Tensor]| {
            probe.0.fetch_add(1, Ordering::Relaxed);
            vec![xs[0].square()]
        };
        checkpoint(&[x], square).remove(0)
    }

    /// Runs so far, closures that exist.
    fn state(&self) -> (usize, usize) {
        (self.0.load(Ordering::Relaxed), Arc::strong_count(&self.0) - 1)
    }
}

#[test]
fn a_segment_lives_as_long_as_the_graph() {
    let x = Tensor::from(3.0).set_requires_grad(true);
    let probe = Probe::default();
    let y = probe.square(&x);
    assert_eq!(probe.state(), (1, 1));
    drop(y);
    assert_eq!(probe.state(), (1, 0), "dropped with its output");

    let y = probe.square(&x);
    y.backward();
    assert_eq!(probe.state(), (3, 0), "dropped by the backward pass, though the output is still there");
    assert_eq!((&y, x.grad()), (&Tensor::from(9.0), Tensor::from(6.0)));
    let error = libtorch::catch(|| y.backward()).unwrap_err().to_string();
    assert!(error.contains("second time"), "{error}");

    let _ = tch::no_grad(|| probe.square(&x));
    let _ = probe.square(&x.detach());
    assert_eq!(probe.state(), (5, 0), "there is no graph to keep it");

    // What only an unused output depends on gets no gradient, and is not run again.
    let y = probe.square(&x);
    let both = checkpoint(&[&y, &x], |xs| vec![&xs[0] * 2.0, &xs[1] * 3.0]);
    both[1].backward();
    assert_eq!((probe.state(), x.grad()), ((6, 0), Tensor::from(6.0 + 3.0)));
}

#[test]
fn a_kept_graph_can_be_gone_through_again() {
    let x = Tensor::from(3.0).set_requires_grad(true);
    let probe = Probe::default();
    let mut y = probe.square(&x);
    for times in [1.0, 2.0] {
        backward(&mut y, true, false);
        assert_eq!(x.grad(), Tensor::from(6.0 * times));
    }
    assert_eq!(probe.state(), (3, 1));
    drop(y);
    assert_eq!(probe.state(), (3, 0));
}

fn backward(tensor: &mut Tensor, keep_graph: bool, create_graph: bool) {
    // Safety: the tensor lives during the call.
    #[allow(unsafe_code)]
    unsafe {
        torch_sys::at_backward(tensor.as_mut_ptr(), keep_graph.into(), create_graph.into());
    }
}

#[test]
fn what_cannot_be_done_is_an_error() {
    let x = leaf(1, &[2, 3], (Kind::Float, Device::Cpu), true);
    let fails = |y: Tensor| libtorch::catch(|| y.sum(Kind::Float).backward()).unwrap_err().to_string();
    let second_time = |then: fn(&Tensor) -> Vec<Tensor>| {
        let runs = AtomicUsize::new(0);
        let segment = move |xs: &[Tensor]| {
            if runs.fetch_add(1, Ordering::Relaxed) == 0 { vec![&xs[0] * 2.0] } else { then(&xs[0]) }
        };
        checkpoint(&[&x], segment).remove(0)
    };

    assert_eq!(
        fails(second_time(|_| panic!("lost it"))),
        "LibTorch: a checkpointed segment panicked when run again: lost it"
    );
    let error = fails(second_time(|x| vec![x.matmul(x)]));
    assert!(error.contains("(2x3 and 2x3)") && !error.contains("frame #"), "{error}");
    let error = libtorch::catch(|| {
        second_time(|_| vec![Tensor::empty([1 << 50], (Kind::Float, Device::Cpu))]).sum(Kind::Float).backward();
    });
    assert!(matches!(error, Err(libtorch::Error::OutOfMemory(_))), "{error:?}");
    let error = fails(second_time(|_| vec![]));
    assert!(error.contains("gave 1 tensors at first and 0 when run again"), "{error}");
    let error = fails(second_time(|x| vec![x.transpose(0, 1) * 2.0]));
    assert!(error.contains("shape"), "{error}");
    let error = fails(second_time(|x| vec![x.detach()]));
    assert!(error.contains("does not require grad"), "{error}");

    let y = &x * 1.0;
    let mut doubled = checkpoint(&[&y], |xs| vec![&xs[0] * 2.0]).remove(0);
    let _ = y.shallow_clone().g_add_scalar_(1.0);
    let error = fails(doubled.shallow_clone());
    assert!(error.contains("modified by an inplace operation"), "{error}");

    let doubled_again = || checkpoint(&[&x], |xs| vec![(&xs[0] * 2.0).sum(Kind::Float)]).remove(0);
    let error = libtorch::catch(|| Tensor::run_backward(&[doubled_again()], &[&x], false, false)).unwrap_err();
    assert!(error.to_string().contains("use backward()"), "{error}");
    doubled = doubled_again();
    backward(&mut doubled, true, true);
    let error = tch_error().unwrap();
    assert!(error.contains("gradients of gradients"), "{error}");
    assert!(!x.grad().defined(), "nothing of this had gradients to give");
}

/// The exception of the last call that went around `tch`.
fn tch_error() -> Option<String> {
    // `tch` reads, clears and raises it in its next call.
    libtorch::catch(|| Tensor::from(0.0)).err().map(|error| error.to_string())
}

#[test]
fn a_panic_in_the_first_run_is_the_callers() {
    let x = Tensor::from(3.0).set_requires_grad(true);
    let run = || checkpoint(&[&x], |_| panic!("at once"));
    let payload = panic::catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"at once"));
    let error = libtorch::catch(|| checkpoint(&[&x], |xs| vec![xs[0].reshape([2])])).unwrap_err().to_string();
    assert!(error.contains("invalid for input of size 1"), "{error}");
}

/// Graphs are built and used on several threads, and each segment's panics stay its own.
#[test]
fn segments_go_from_thread_to_thread() {
    let graphs: Vec<(Tensor, Tensor)> = (0..8)
        .map(|i| {
            let x = Tensor::from(f64::from(i)).set_requires_grad(true);
            let y = thread::spawn({
                let x = x.shallow_clone();
                move || Probe::default().square(&x)
            });
            (x, y.join().unwrap())
        })
        .collect();
    let workers: Vec<_> = graphs
        .into_iter()
        .map(|(x, y)| {
            thread::spawn(move || {
                y.backward();
                x.grad().double_value(&[]) - 2.0 * x.double_value(&[])
            })
        })
        .collect();
    for worker in workers {
        assert_eq!(worker.join().unwrap(), 0.0);
    }
}

#[test]
fn a_cuda_device_passes_these_tests() {
    cuda_standin::test_again("a_cuda_device_passes_these_tests", libtorch::cuda_unavailable());
}
