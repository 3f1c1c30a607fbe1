//! The trained timesteps that a sampler visits (Lin et al. 2023, table 2).

use crate::{Error, TimestepSpacing};

impl TimestepSpacing {
    /// The timesteps of DDPM, DDIM and PNDM, in descending order.
    pub(crate) fn integers(self, train: usize, steps: usize, offset: usize) -> Result<Vec<usize>, Error> {
        let timesteps = match self {
            Self::Leading => (0..steps).rev().map(|i| (i * (train / steps)).saturating_add(offset)).collect(),
            Self::Linspace => linspace(train - 1, steps).map(|t| t.round_ties_even() as usize).collect(),
            Self::Trailing => trailing(train, train, steps),
        };
        self.check(timesteps, train, steps)
    }

    pub(crate) fn check(self, timesteps: Vec<usize>, train: usize, steps: usize) -> Result<Vec<usize>, Error> {
        match timesteps.iter().copied().find(|&t| t >= train) {
            Some(timestep) => Err(Error::Timestep { steps, spacing: self, timestep, last: train - 1 }),
            None => Ok(timesteps),
        }
    }
}

/// `count` numbers from `last` down to 0, as `numpy.linspace(0, last, count)[::-1]`.
pub(crate) fn linspace(last: usize, count: usize) -> impl Iterator<Item = f64> {
    let step = last as f64 / (count.max(2) - 1) as f64;
    (0..count).rev().map(move |i| if i + 1 == count && i > 0 { last as f64 } else { i as f64 * step })
}

/// `start`, `start − train / steps`, … while above 0, rounded, less one; never more than `steps`.
///
/// For some counts (61 of 1000 is the first) rounding makes numpy's arange one longer, and diffusers then adds a step
/// at timestep −1; that one is left out here.
pub(crate) fn trailing(start: usize, train: usize, steps: usize) -> Vec<usize> {
    let (start, step) = (start as f64, train as f64 / steps as f64);
    // numpy.arange adds multiples of the difference of its first two elements.
    let step = start - (start - step);
    let count = ((start / step).ceil() as usize).min(steps);
    (0..count).map(|i| ((start - i as f64 * step).round_ties_even() as usize).saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use crate::TimestepSpacing::{Leading, Linspace, Trailing};

    fn ends(spacing: crate::TimestepSpacing, steps: usize) -> (usize, usize, usize, usize) {
        let t = spacing.integers(1000, steps, 1).unwrap();
        assert!(t.len() == steps && t.windows(2).all(|pair| pair[0] > pair[1]), "{t:?}");
        (t[0], t[1], t[steps - 2], t[steps - 1])
    }

    #[test]
    fn fifty_steps_are_where_the_paper_of_each_spacing_says() {
        assert_eq!(ends(Leading, 50), (981, 961, 21, 1));
        assert_eq!(ends(Linspace, 50), (999, 979, 20, 0));
        assert_eq!(ends(Trailing, 50), (999, 979, 39, 19));
    }

    #[test]
    fn trailing_never_leaves_the_trained_range() {
        for steps in 2..=1000 {
            ends(Trailing, steps);
        }
    }
}
