//! A LoRA out of the difference of two U-Nets.

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};
use weights::{Archive, Tensors, is_training_state};

use crate::lora::{LayerChange, Lora, LowRank};

/// What [`extract`] does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extraction {
    /// The rank; layers that are smaller are filled up with zeros, for diffusers misreads files of several ranks.
    pub rank: i64,
    /// Whether residual blocks and what changes the size between blocks are covered too, mostly 3×3 convolutions.
    pub convolutions: bool,
    /// Whether the changes of all other parameters are added in full.
    pub full_rest: bool,
    /// Cuts off the factors' numbers beyond this quantile of all of them, as kohya's scripts do at .99; `None` keeps
    /// them, which leaves out less.
    pub clamp_quantile: Option<f64>,
}

/// A LoRA, and how well it stands for the change. Shares are of the change's Frobenius norm, from 0 to 1.
#[derive(Debug)]
pub struct Extracted {
    /// The LoRA; alpha is the rank.
    pub lora: Lora,
    /// The share of the whole change that is left out: 0 is an exact copy, 1 no change at all.
    pub left_out: f64,
    /// The same of the layers that the LoRA covers alone: what is left out for lack of rank.
    pub left_out_of_layers: f64,
}

/// The best approximation, layer by layer, of the difference of two U-Nets: by the singular value decomposition, which
/// no other product of that rank comes nearer than (Eckart and Young 1936). `progress` is told how many parameters of
/// how many are done.
///
/// As in kohya's `extract_lora_from_models.py` a convolution is taken as a matrix [out, in · k · k], and the factor
/// `up` has the singular values. Each of its columns has its largest number positive, so that the same files give the
/// same LoRA.
///
/// # Errors
/// When the two have other parameters, they are the same, the rank is zero or larger than every layer, or LibTorch
/// refuses.
pub fn extract(
    base: &Archive,
    learned: &Tensors,
    extraction: &Extraction,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Extracted> {
    let of_model = |(name, _): &(String, Vec<i64>)| !is_training_state(name);
    let shapes: Vec<_> = learned.iter().map(|(name, t)| (name.clone(), t.size())).filter(of_model).collect();
    let own: Vec<_> = base.shapes().map(|(name, shape)| (name.to_owned(), shape.to_vec())).filter(of_model).collect();
    let difference = shapes.iter().zip(&own).find(|(a, b)| a != b).map(|(a, _)| a.0.clone());
    ensure!(
        difference.is_none() && shapes.len() == own.len(),
        "the two U-Nets are not of one kind: {} is not the same in both",
        difference.unwrap_or_else(|| "the number of parameters".to_owned())
    );
    let covered = |(name, shape): &&(String, Vec<i64>)| is_covered(name, shape, extraction.convolutions);
    let most = shapes.iter().filter(covered).map(|(_, shape)| matrix(shape).into_iter().min().unwrap_or(0)).max();
    let most = most.context("the U-Net has no layers that a LoRA could change")?;
    ensure!(
        (1..=most).contains(&extraction.rank),
        "the rank {} cannot be: the largest layers have {most}, so use 1 to {most}",
        extraction.rank
    );
    let mut lora = Lora::default();
    let [mut whole, mut layers, mut left, mut left_of_layers] = [0.0; 4];
    for (i, (name, shape)) in shapes.iter().enumerate() {
        let before = base.tensor(name)?.with_context(|| format!("there is no {name}"))?;
        let change = libtorch::catch(|| learned[name].detach().to_kind(Kind::Double) - before.to_kind(Kind::Double))?;
        let squares = libtorch::catch(|| change.square().sum(Kind::Double).double_value(&[]))?;
        ensure!(squares.is_finite(), "the change of {name} holds NaN or infinite values");
        whole += squares;
        if squares > 0.0 {
            let (layer, part) = name.rsplit_once('.').unwrap_or((name, "weight"));
            if is_covered(name, shape, extraction.convolutions) {
                let (low_rank, rest) = libtorch::catch(|| approximate(&change, extraction))?;
                lora.unet.entry(layer.to_owned()).or_default().low_rank = Some(low_rank);
                layers += squares;
                left_of_layers += rest;
                left += rest;
            } else if extraction.full_rest {
                let LayerChange { weight, bias, .. } = lora.unet.entry(layer.to_owned()).or_default();
                *(if part == "bias" { bias } else { weight }) = Some(change.to_kind(Kind::Float));
            } else {
                left += squares;
            }
        }
        progress(i as u64 + 1, shapes.len() as u64);
    }
    ensure!(whole > 0.0, "the two U-Nets are the same, so there is nothing to extract");
    let share = |part: f64, of: f64| if of > 0.0 { (part / of).sqrt() } else { 0.0 };
    Ok(Extracted { lora, left_out: share(left, whole), left_out_of_layers: share(left_of_layers, layers) })
}

/// Rows and columns.
fn matrix(shape: &[i64]) -> [i64; 2] {
    [shape[0], shape[1..].iter().product()]
}

/// Whether a parameter is changed by low rank: linear and 1×1 layers of the transformers, and by flag those of which
/// kohya's scripts make a LoRA of convolutions.
fn is_covered(name: &str, shape: &[i64], convolutions: bool) -> bool {
    let within = |places: &[&str]| places.iter().any(|place| name.contains(place));
    shape.len() >= 2
        && name.ends_with(".weight")
        && (within(&[".attentions."]) || convolutions && within(&[".resnets.", ".downsamplers.", ".upsamplers."]))
}

/// The factors, and the sum of squares of what they leave out of `change`, f64.
fn approximate(change: &Tensor, extraction: &Extraction) -> (LowRank, f64) {
    let matrix = change.flatten(1, -1);
    let (rows, columns) = (matrix.size()[0], matrix.size()[1]);
    let rank = extraction.rank.min(rows).min(columns);
    // By the eigenvectors of the smaller of the two products with itself, in f64 from f32 numbers: of long matrices
    // several times as fast as the decomposition itself, and as exact as f32 can hold.
    let last = |vectors: Tensor| vectors.narrow(1, vectors.size()[1] - rank, rank).flip([1]);
    let (up, down) = if rows <= columns {
        let left = last(matrix.matmul(&matrix.tr()).linalg_eigh("L").1);
        let scaled = left.tr().matmul(&matrix);
        let values = scaled.norm_scalaropt_dim(2, [1i64].as_slice(), true);
        // Of directions without a change nothing but rounding is left.
        let inverse = values.reciprocal().where_self(&values.gt_tensor(&(values.max() * 1e-12)), &values.zeros_like());
        (left * values.tr(), scaled * inverse)
    } else {
        let right = last(matrix.tr().matmul(&matrix).linalg_eigh("L").1);
        (matrix.matmul(&right), right.tr())
    };
    let largest = up.gather(0, &up.abs().argmax(0, true), false);
    let signs = largest.sign().where_self(&largest.ne(0.0), &largest.ones_like());
    let (mut up, mut down) = (up * &signs, down * signs.tr());
    if let Some(quantile) = extraction.clamp_quantile {
        let bound = quantile_of(&Tensor::cat(&[up.flatten(0, -1), down.flatten(0, -1)], 0), quantile);
        (up, down) = (up.clamp(-bound, bound), down.clamp(-bound, bound));
    }
    let left_out = (&matrix - up.matmul(&down)).square().sum(Kind::Double).double_value(&[]);
    let missing = extraction.rank - rank;
    let mut up = up.to_kind(Kind::Float).constant_pad_nd([0, missing]);
    let mut down = down.to_kind(Kind::Float).constant_pad_nd([0, 0, 0, missing]);
    if let [_, of, height, width] = change.size()[..] {
        (up, down) = (up.unsqueeze(-1).unsqueeze(-1), down.view([extraction.rank, of, height, width]));
    }
    (LowRank { down, up, alpha: extraction.rank as f64 }, left_out)
}

/// Between two numbers by a straight line, as `torch.quantile`, which takes no more than 16 million.
fn quantile_of(numbers: &Tensor, quantile: f64) -> f64 {
    let (sorted, _) = numbers.sort(0, false);
    let place = quantile.clamp(0.0, 1.0) * (sorted.numel() - 1) as f64;
    let at = |place: f64| sorted.double_value(&[place as i64]);
    let (below, above) = (at(place.floor()), at(place.ceil()));
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use golden::{Formula, Golden, assert_close};
    use tch::Device;
    use weights::{Init, Source};

    use super::*;

    /// The change of a parameter in `fixtures/methods/lora/generate.py`.
    fn change(name: &str, shape: &[i64]) -> Tensor {
        let to = (Kind::Float, Device::Cpu);
        // The factor is f32 there.
        (Formula.fetch(&format!("{name}.change"), shape, Init::Const(0.0), to).unwrap() * 0.05).to_kind(Kind::Double)
    }

    #[test]
    fn the_best_approximation_is_the_singular_value_decompositions() {
        let golden = Golden::open("methods/lora/svd.safetensors");
        let mut sums = [0.0; 3];
        for name in golden.names().filter_map(|name| name.strip_suffix(".product")) {
            let shape = golden.get(&format!("{name}.product")).size();
            let change = change(name, &shape);
            let whole = change.square().sum(Kind::Double).double_value(&[]);
            sums[2] += whole;
            let mut shares = Vec::new();
            for (i, (what, clamp_quantile)) in [("product", None), ("clamped", Some(0.99))].into_iter().enumerate() {
                let extraction = Extraction { rank: 4, convolutions: true, full_rest: false, clamp_quantile };
                let (low_rank, left_out) = approximate(&change, &extraction);
                let product = low_rank.product().view(shape.as_slice());
                golden.assert_close(&format!("{name}.{what}"), &product, 1e-6);
                sums[i] += left_out;
                shares.push((left_out / whole).sqrt());
            }
            golden.assert_close(&format!("{name}.left_out"), &Tensor::from_slice(&shares), 1e-6);
        }
        let shares = [sums[0], sums[1]].map(|left_out| (left_out / sums[2]).sqrt());
        golden.assert_close("left_out", &Tensor::from_slice(&shares), 1e-6);
    }

    #[test]
    fn a_change_of_lower_rank_is_kept_whole() {
        for shape in [[6, 9], [9, 6]] {
            let factor = |seed, shape: [i64; 2]| libtorch::random::normal(seed, &shape).to_kind(Kind::Double);
            let change = factor(1, [shape[0], 2]).matmul(&factor(2, [2, shape[1]]));
            let extraction = Extraction { rank: 7, convolutions: false, full_rest: false, clamp_quantile: None };
            let (low_rank, left_out) = approximate(&change, &extraction);
            assert_close("product", &low_rank.product(), &change, 1e-6);
            assert!(left_out < 1e-20 && low_rank.rank() == 7, "{left_out}");
            assert!(bool::try_from(low_rank.down.isfinite().all()).unwrap());
        }
    }
}
