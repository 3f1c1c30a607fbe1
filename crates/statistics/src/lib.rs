//! How far means of scores can be trusted: bootstrap intervals, the comparison of several systems, and shares that were counted.
//!
//! - [`bootstrap_mean`]: groups of values, such as the images of each prompt.
//! - [`Crossed`]: every subject with every prompt, several training seeds and images; [`Crossed::mean`], and
//!   [`Crossed::minus`] another system's.
//! - [`holm`]: whether such differences can be trusted, several at once; [`Verdict`]: what may be said of each.
//! - [`wilson`]: a [`Share`] that was counted.
//!
//! ```
//! use statistics::{Bootstrap, Crossed, Verdict, holm};
//!
//! // Two subjects, one seed, two prompts with two images each.
//! let [rex, tom] = [vec![vec![0.8, 0.9], vec![0.7, 0.8]], vec![vec![0.7, 0.8], vec![0.6, 0.7]]];
//! let ours = Crossed::new(vec![vec![rex], vec![tom]])?;
//! let theirs = ours.map(|value| value - 0.1);
//! let bootstrap = Bootstrap::default();
//! let (mean, difference) = (ours.mean(&bootstrap), ours.minus(&theirs)?);
//! assert!((mean.mean - 0.75).abs() < 1e-12 && mean.low <= 0.75 && 0.75 <= mean.high);
//! let compared = holm(&[difference], &bootstrap);
//! assert_eq!(compared[0].verdict(0.02), Verdict::Holds);
//! # Ok::<(), statistics::ShapeError>(())
//! ```
//!
//! Invariants: the same values and the same seed give the same interval, to the bit; knows nothing of images, models or files.

mod bootstrap;
mod crossed;
mod draws;
mod estimate;
mod holm;
mod wilson;

pub use bootstrap::bootstrap_mean;
pub use crossed::{Crossed, ShapeError};
pub use estimate::{Bootstrap, Estimate};
pub use holm::{Compared, Verdict, holm};
pub use wilson::{Share, wilson};
