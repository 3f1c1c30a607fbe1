//! Several runs in one model, in closed form.

use anyhow::{Context, Result, bail, ensure};
use tch::{Kind, Tensor};

/// The text features of a caption that count for merging, [n, width]: of its hidden states [positions, width], those
/// after the first `skip` positions up to and with the first end of text, `end` among its token `ids`.
///
/// `skip` is 1, the begin of text, or for a target within a sentence what stands before it.
///
/// # Errors
/// When there is no end of text after them, or not one id for each hidden state.
pub fn text_features(hidden_states: &Tensor, ids: &[i64], end: i64, skip: usize) -> Result<Tensor> {
    let size = hidden_states.size();
    ensure!(
        size.len() == 2 && size[0] == ids.len() as i64,
        "the hidden states have shape {size:?}, but there are {} token ids: give [positions, width] of one caption",
        ids.len()
    );
    let last = ids.iter().position(|&id| id == end).filter(|&last| last >= skip);
    let last = last.with_context(|| format!("the caption has no end of text ({end}) after its first {skip} tokens"))?;
    Ok(hidden_states.narrow(0, skip as i64, (last + 1 - skip) as i64))
}

/// Merges the keys' and values' weights of several runs (arXiv 2212.04488, section 3.2, equation 4): of all weights
/// that map the targets as their runs do, those that change the base model's least on the retention captions.
///
/// With targets C, the runs' outputs V, base weights W₀ and retention features R: min |(W - W₀) Rᵀ| so that W Cᵀ = Vᵀ.
/// It is W = W₀ + (V - C W₀ᵀ)ᵀ (D Cᵀ)⁻¹ D, with D = C (Rᵀ R)⁻¹. All is in f64.
#[derive(Debug)]
pub struct Merger {
    /// Of each run, its rows of C: [n, width].
    targets: Vec<Tensor>,
    /// (D Cᵀ)⁻¹ D: [rows of C, width].
    projection: Tensor,
}

impl Merger {
    /// - `targets`: of each run the text features [n, width] for which its weights are kept. As the authors: all
    ///   positions of "`[V]` CLASS NOUN", and of "photo of a `[V]` CLASS NOUN" from `[V]` on, without the begin of
    ///   text, up to and with the first end of text ([`text_features`]). Rows that are there already count once.
    /// - `retention`: the text features [m, width] of captions in which nothing is to change; likewise, whole captions.
    ///
    /// # Errors
    /// When widths differ, or the retention captions do not span the text features, or the targets depend on each
    /// other.
    pub fn new(targets: &[&Tensor], retention: &Tensor) -> Result<Self> {
        let width = match retention.size()[..] {
            [_, width] => width,
            ref other => bail!("the retention captions' features have shape {other:?}, but must be [features, width]"),
        };
        for (i, rows) in targets.iter().map(|rows| rows.size()).enumerate() {
            ensure!(
                rows.len() == 2 && rows[1] == width,
                "the targets of run {} have shape {rows:?}, but the retention captions' features have width {width}: \
                 take both from one text encoder",
                i + 1
            );
        }
        ensure!(!targets.is_empty(), "there are no runs to merge");
        let solve = || {
            let targets = distinct(targets);
            let c = Tensor::cat(&targets, 0);
            let r = retention.to_kind(Kind::Double);
            let d = solve(&r.tr().matmul(&r), &c.tr())
                .with_context(|| {
                    format!(
                        "the retention captions have {} text features, which do not span their width of {width}; give \
                         more captions",
                        r.size()[0]
                    )
                })?
                .tr();
            let projection = solve(&d.matmul(&c.tr()), &d)
                .context("the subjects' text features depend on each other; merge runs with different subjects")?;
            Ok(Self { targets, projection })
        };
        libtorch::catch(|| tch::no_grad(solve))?
    }

    /// The merged weight [out, width], f64, of the base model's and each run's, in the order of the targets.
    ///
    /// # Errors
    /// When shapes differ, or there are more or fewer runs than targets.
    pub fn merge(&self, base: &Tensor, runs: &[&Tensor]) -> Result<Tensor> {
        let width = self.projection.size()[1];
        ensure!(
            runs.len() == self.targets.len(),
            "there are weights of {} runs, but targets of {}",
            runs.len(),
            self.targets.len()
        );
        for run in [base].iter().chain(runs) {
            ensure!(
                run.size() == base.size() && run.size().get(1) == Some(&width),
                "a weight has shape {:?}, but the base model's has {:?} and the text features have width {width}: \
                 merge runs of one base model",
                run.size(),
                base.size()
            );
        }
        Ok(libtorch::catch(|| {
            tch::no_grad(|| {
                let base = base.to_kind(Kind::Double);
                let changes = self
                    .targets
                    .iter()
                    .zip(runs)
                    .map(|(rows, run)| rows.matmul(&(run.to_kind(Kind::Double) - &base).tr()));
                &base + Tensor::cat(&changes.collect::<Vec<_>>(), 0).tr().matmul(&self.projection)
            })
        })?)
    }
}

/// The rows in f64, each the first time that it is there.
fn distinct(targets: &[&Tensor]) -> Vec<Tensor> {
    let mut seen: Vec<Tensor> = Vec::new();
    let mut new = |row: &Tensor| {
        let is_new = !seen.iter().any(|other| other.equal(row));
        if is_new {
            seen.push(row.shallow_clone());
        }
        is_new
    };
    let each = targets.iter().map(|rows| {
        let rows = rows.to_kind(Kind::Double);
        let kept: Vec<i64> = (0..rows.size()[0]).filter(|&i| new(&rows.get(i))).collect();
        rows.index_select(0, &Tensor::from_slice(&kept).to_device(rows.device()))
    });
    each.collect()
}

/// A⁻¹ B of a symmetric, positive definite A.
fn solve(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (factor, info) = a.linalg_cholesky_ex(false, false);
    ensure!(info.int64_value(&[]) == 0, "the matrix of their products is singular");
    let pivots = factor.diagonal(0, 0, 1);
    // Beyond, nothing of the solution is left in f64.
    let condition = (pivots.max() / pivots.min()).double_value(&[]).powi(2);
    ensure!(condition < 1e14, "the matrix of their products is nearly singular (condition {condition:.0e} or more)");
    Ok(b.cholesky_solve(&factor, false))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn random(seed: i64, shape: &[i64]) -> Tensor {
        libtorch::random::normal(seed as u64, shape).to_kind(Kind::Double)
    }

    /// The constraint holds, and no other weight that fulfils it changes the base model's less.
    #[test]
    fn the_merged_weight_is_the_closest_that_keeps_the_targets() {
        let (targets, retention) = ([random(1, &[2, 6]), random(2, &[1, 6])], random(3, &[20, 6]));
        let (base, runs) = (random(4, &[5, 6]), [random(5, &[5, 6]), random(6, &[5, 6])]);
        let merger = Merger::new(&targets.each_ref(), &retention).unwrap();
        let merged = merger.merge(&base, &runs.each_ref()).unwrap();
        for (rows, run) in targets.iter().zip(&runs) {
            let error = (rows.matmul(&merged.tr()) - rows.matmul(&run.tr())).abs().max().double_value(&[]);
            assert!(error < 1e-12, "{error}");
        }
        let distance = |weight: &Tensor| (weight - &base).matmul(&retention.tr()).square().sum(Kind::Double);
        let c = Tensor::cat(&targets, 0);
        let gram = c.matmul(&c.tr()).inverse();
        for seed in 10..20 {
            // A step in a direction that the targets do not see.
            let step = random(seed, &[5, 6]) * 1e-2;
            let hidden = &step - step.matmul(&c.tr()).matmul(&gram).matmul(&c);
            assert!(hidden.matmul(&c.tr()).abs().max().double_value(&[]) < 1e-12);
            assert!(distance(&(&merged + hidden)).double_value(&[]) > distance(&merged).double_value(&[]));
        }
    }

    #[test]
    fn rows_that_are_there_already_count_once() {
        let (rows, retention) = (random(1, &[2, 4]), random(2, &[9, 4]));
        let twice = Tensor::cat(&[&rows, &rows.narrow(0, 0, 1)], 0);
        let (base, run) = (random(3, &[3, 4]), random(4, &[3, 4]));
        let merge = |rows: &Tensor| Merger::new(&[rows], &retention).unwrap().merge(&base, &[&run]).unwrap();
        assert!(merge(&rows).equal(&merge(&twice)));
    }

    #[test]
    fn features_end_with_the_first_end_of_text() {
        let states = random(1, &[6, 3]);
        let ids = [49, 5, 6, 50, 50, 50];
        assert_eq!(text_features(&states, &ids, 50, 1).unwrap(), states.narrow(0, 1, 3));
        assert_eq!(text_features(&states, &ids, 50, 3).unwrap(), states.narrow(0, 3, 1));
        let error = text_features(&states, &ids, 50, 4).unwrap_err().to_string();
        assert_eq!(error, "the caption has no end of text (50) after its first 4 tokens");
        assert!(text_features(&states, &ids[..5], 50, 1).unwrap_err().to_string().contains("5 token ids"));
    }

    #[test]
    fn what_cannot_be_merged_is_said() {
        let says = |targets: &[&Tensor], retention: &Tensor, words: &str| {
            let error = format!("{:#}", Merger::new(targets, retention).unwrap_err());
            assert!(error.contains(words), "{error}");
        };
        let row = random(1, &[1, 6]);
        says(
            &[&row],
            &random(2, &[3, 6]),
            "the retention captions have 3 text features, which do not span their width of 6",
        );
        says(&[&random(3, &[1, 8])], &random(2, &[9, 6]), "run 1 have shape [1, 8]");
        says(&[&row, &(&row * 2.0)], &random(2, &[9, 6]), "merge runs with different subjects");
        says(&[], &random(2, &[9, 6]), "no runs");
        let merger = Merger::new(&[&row], &random(2, &[9, 6])).unwrap();
        let base = Tensor::zeros([3, 6], (Kind::Double, Device::Cpu));
        let error = merger.merge(&base, &[&random(4, &[4, 6])]).unwrap_err().to_string();
        assert!(error.contains("[4, 6]") && error.contains("[3, 6]"), "{error}");
        assert!(merger.merge(&base, &[]).unwrap_err().to_string().contains("0 runs, but targets of 1"));
    }
}
