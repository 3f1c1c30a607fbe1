//! Fused operations against LibTorch's plain ones in f64, values and gradients, on the CPU; elsewhere they are the plain ones.
#![allow(clippy::unwrap_used)]

use libtorch::{catch, checkpoint, geglu, group_norm, random, softmax_scores};
use tch::{Device, Kind, Tensor};

/// The distance of `found` from `expected`, relative to the largest number of that.
fn error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let off = (found - &expected).abs().max().double_value(&[]);
    off / expected.abs().max().double_value(&[]).max(1e-30)
}

/// What bf16 loses of a number, relative to the largest: half of the last of 8 bits.
const BF16: f64 = 1.0 / 256.0;

/// The result, and the gradients by the inputs of its sum with weights of its own.
fn with_gradients(inputs: &[Tensor], f: &dyn Fn(&[Tensor]) -> Tensor) -> Vec<Tensor> {
    let leaves: Vec<Tensor> = inputs.iter().map(|input| input.copy().set_requires_grad(true)).collect();
    let result = f(&leaves);
    let weights = random::normal(99, &result.size()).to_kind(Kind::BFloat16).to_kind(result.kind());
    (&result * weights).sum(result.kind()).backward();
    std::iter::once(result.detach()).chain(leaves.iter().map(Tensor::grad)).collect()
}

/// That `f` of these inputs is the same in f32 and, with the first `rounded` of them in bf16, in bf16, as in f64.
fn check(name: &str, inputs: &[Tensor], rounded: usize, bounds: [f64; 2], f: &dyn Fn(&[Tensor]) -> Tensor) {
    for (kind, bound) in [Kind::Float, Kind::BFloat16].into_iter().zip(bounds) {
        // The same numbers on both sides.
        let inputs: Vec<Tensor> = inputs
            .iter()
            .enumerate()
            .map(|(i, xs)| if i < rounded { xs.to_kind(kind) } else { xs.shallow_clone() })
            .collect();
        let exact: Vec<Tensor> = inputs.iter().map(|xs| xs.to_kind(Kind::Double)).collect();
        let (found, expected) = (with_gradients(&inputs, f), with_gradients(&exact, f));
        assert_eq!(found[0].kind(), kind, "{name}");
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let error = error(found, expected);
            assert!(error < bound, "{name} in {kind:?}, {i}: {error:.2e}");
        }
        let plain = tch::no_grad(|| f(&inputs));
        assert!(!plain.requires_grad());
        assert_eq!(plain, found[0], "{name}: without gradients the same");
    }
}

fn parameters(channels: i64) -> [Tensor; 2] {
    [random::normal(2, &[channels]) + 1.0, random::normal(3, &[channels])]
}

#[test]
fn group_norm_is_that_of_plain_operations() {
    let shapes: [(&[i64], i64); 8] = [
        (&[2, 12, 5, 7], 3),
        (&[3, 6, 1, 1], 2),
        (&[1, 4, 64, 64], 4),
        (&[2, 10, 33], 5),
        (&[4, 8], 1),
        (&[1, 2, 130, 70], 1),
        (&[8, 48, 16, 16], 16),
        (&[8, 96, 2, 2], 16),
    ];
    for (shape, groups) in shapes {
        let [weight, bias] = parameters(shape[1]);
        for mean in [0.0, 10.0] {
            let inputs = [random::normal(1, shape) + mean, weight.shallow_clone(), bias.shallow_clone()];
            for silu in [false, true] {
                let name = format!("{shape:?}, {groups} groups, mean {mean}, silu {silu}");
                // f32 has the numbers themselves only to 1e-6 where they are 10.
                let f32_bound = if mean == 0.0 { 2e-6 } else { 1e-5 };
                check(&name, &inputs, 3, [f32_bound, BF16], &|xs| {
                    group_norm(&xs[0], groups, &xs[1], &xs[2], 1e-5, silu)
                });
            }
        }
    }
}

#[test]
fn geglu_is_that_of_plain_operations() {
    for shape in [[2, 3, 14], [1, 1, 2], [3, 100, 384], [5, 7, 66]] {
        check(&format!("{shape:?}"), &[random::normal(1, &shape) * 3.0], 1, [1e-6, BF16], &|xs| geglu(&xs[0]));
    }
    // Where gelu ends: b and 0.
    let far = Tensor::from_slice(&[1.0f32, 1.0, 1.0, 1.0, 60.0, -60.0, 1e30, -1e30]);
    let found = with_gradients(&[far], &|xs| geglu(&xs[0])).swap_remove(0);
    let expected = Tensor::from_slice(&[60.0f32, 0.0, 1e30, 0.0]);
    assert!((found - expected).abs().max().double_value(&[]) < 1e-30);
}

#[test]
fn probabilities_are_those_of_plain_operations() {
    let hidden = Tensor::arange(77, (Kind::Int64, Device::Cpu)).ge(50);
    for (q_tokens, k_tokens) in [(1, 1), (5, 77), (64, 77), (100, 100)] {
        let inputs = [random::normal(1, &[2, 3, q_tokens, 16]), random::normal(2, &[2, 3, k_tokens, 16])];
        for hidden in [None, Some(&hidden)].into_iter().take(if k_tokens == 77 { 2 } else { 1 }) {
            // In bf16 the scores are rounded, of which e^x is taken.
            let scores = |xs: &[Tensor]| softmax_scores(&xs[0], &xs[1], 0.25, hidden);
            if k_tokens > 1 {
                check(&format!("{q_tokens} x {k_tokens}"), &inputs, 2, [2e-6, 16.0 * BF16], &scores);
            }
            let sums = scores(&inputs).sum_dim_intlist(-1, false, Kind::Float);
            assert!((sums - 1.0).abs().max().double_value(&[]) < 1e-6);
        }
    }
    let all = Tensor::ones([77], (Kind::Bool, Device::Cpu));
    let nothing =
        softmax_scores(&random::normal(1, &[1, 1, 3, 4]), &random::normal(2, &[1, 1, 77, 4]), 0.5, Some(&all));
    assert!(bool::try_from(nothing.isnan().all()).unwrap(), "a query that sees nothing");
}

#[test]
fn the_layout_in_memory_does_not_matter() {
    let [weight, bias] = parameters(6);
    let xs = random::normal(1, &[2, 6, 4, 5]);
    let last = xs.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    assert_ne!(xs.stride(), last.stride());
    let norm = |xs: &[Tensor]| group_norm(&xs[0], 3, &weight, &bias, 1e-5, true);
    // As a view, for a copy would be laid out anew.
    let gradient_of = |leaf: Tensor, view: &dyn Fn(&Tensor) -> Tensor| {
        let leaf = leaf.set_requires_grad(true);
        let result = norm(&[view(&leaf)]);
        (&result * random::normal(9, &result.size())).sum(Kind::Float).backward();
        (result.detach(), view(&leaf.grad()))
    };
    let found = gradient_of(last.permute([0, 2, 3, 1]), &|leaf| leaf.permute([0, 3, 1, 2]));
    assert_eq!(found, gradient_of(xs.copy(), &Tensor::shallow_clone));
    let both = random::normal(4, &[7, 10]);
    assert_eq!(geglu(&both.tr().contiguous().tr()), geglu(&both));
    let pixels = random::normal(4, &[2, 6, 8]);
    assert_eq!(geglu(&pixels.narrow(2, 1, 6)), geglu(&pixels.narrow(2, 1, 6).contiguous()));
}

#[test]
fn only_what_is_wanted_has_a_gradient() {
    let [weight, bias] = parameters(6);
    let xs = random::normal(1, &[2, 6, 4, 5]);
    for wanted in 0..3 {
        let inputs: Vec<Tensor> = [&xs, &weight, &bias]
            .into_iter()
            .enumerate()
            .map(|(i, input)| input.copy().set_requires_grad(i == wanted))
            .collect();
        group_norm(&inputs[0], 3, &inputs[1], &inputs[2], 1e-5, true).square().sum(Kind::Float).backward();
        for (i, input) in inputs.iter().enumerate() {
            assert_eq!(input.grad().defined(), i == wanted);
        }
    }
    assert!(!group_norm(&xs, 3, &weight, &bias, 1e-5, true).requires_grad());
}

#[test]
fn checkpointed_segments_and_threads_give_the_same_bits() {
    let [weight, bias] = parameters(32).map(|parameter| parameter.set_requires_grad(true));
    let xs = random::normal(1, &[4, 32, 16, 32]);
    let run = |checkpointed: bool, threads: i32| {
        tch::set_num_threads(threads);
        let leaf = xs.copy().set_requires_grad(true);
        let (of_segment, of_bias) = (weight.shallow_clone(), bias.shallow_clone());
        let segment = move |xs: &[Tensor]| {
            let normed = group_norm(&xs[0], 8, &of_segment, &of_bias, 1e-5, true);
            vec![softmax_scores(&geglu(&normed), &geglu(&normed), 0.3, None)]
        };
        let outputs = if checkpointed { checkpoint(&[&leaf], segment) } else { segment(&[leaf.shallow_clone()]) };
        (&outputs[0] * random::normal(5, &outputs[0].size())).sum(Kind::Float).backward();
        let gradients = [&weight, &bias].map(|parameter| parameter.grad().copy());
        libtorch::clear_grads(&[&weight, &bias]).unwrap();
        (outputs[0].detach(), leaf.grad(), gradients)
    };
    let expected = run(false, 1);
    for (checkpointed, threads) in [(true, 1), (true, 2), (false, 2)] {
        assert_eq!(run(checkpointed, threads), expected, "checkpointed {checkpointed}, {threads} threads");
    }
    tch::set_num_threads(1);
}

#[test]
fn numbers_that_are_none_stay_in_their_group() {
    let [weight, bias] = parameters(4);
    for kind in [Kind::Float, Kind::BFloat16] {
        let xs = random::normal(1, &[2, 4, 3, 3]).to_kind(kind);
        let _ = xs.get(1).get(2).get(0).get(0).fill_(f64::NAN);
        let nan = group_norm(&xs, 2, &weight, &bias, 1e-5, true).isnan().to_kind(Kind::Int64);
        assert_eq!(
            nan.sum_dim_intlist([2i64, 3].as_slice(), false, Kind::Int64),
            Tensor::from_slice(&[0i64, 0, 0, 0, 0, 0, 9, 9]).view([2, 4])
        );
        assert!(bool::try_from(geglu(&xs.flatten(2, 3).transpose(1, 2)).isnan().any()).unwrap());
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let [weight, bias] = parameters(6);
    let xs = random::normal(1, &[2, 6, 4]);
    let error = |f: &dyn Fn() -> Tensor| catch(f).unwrap_err().to_string();
    assert!(error(&|| group_norm(&xs, 4, &weight, &bias, 1e-5, true)).contains("no 4 groups"));
    assert!(error(&|| group_norm(&xs, 3, &weight.narrow(0, 0, 5), &bias, 1e-5, true)).contains("shape [6]"));
    assert!(error(&|| geglu(&xs.narrow(2, 0, 3))).contains("no two halves"));
    let leaf = xs.set_requires_grad(true);
    let twice = || Tensor::run_backward(&[geglu(&leaf).sum(Kind::Float)], &[&leaf], true, true).swap_remove(0);
    assert!(error(&twice).contains("no gradients of gradients"));
    // Changed between the passes.
    let changed = || {
        let between = &leaf * 1.0;
        let gated = geglu(&between);
        let _ = between.detach().fill_(1.0);
        gated.sum(Kind::Float).backward();
        gated
    };
    assert!(error(&changed).contains("modified by an inplace operation"));
}
