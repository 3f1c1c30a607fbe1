//! Positions and ticks along an axis.

use std::ops::RangeInclusive;

/// The scale of an axis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences are equally far apart.
    #[default]
    Linear,
    /// Equal ratios are equally far apart; numbers that are not positive have no place.
    Log,
}

/// Larger numbers, and smaller ones than its inverse on a logarithmic axis, have no place, so that no sum overflows.
const HUGE: f64 = 1e100;

impl Scale {
    /// The place of a value on an endless axis: itself, or its decimal logarithm. NaN and infinity have none.
    pub(crate) fn place(self, value: f64) -> Option<f64> {
        match self {
            Self::Linear => (value.abs() < HUGE).then_some(value),
            Self::Log => (1.0 / HUGE..HUGE).contains(&value).then(|| value.log10()),
        }
    }
}

/// The visible part of an axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    scale: Scale,
    /// Places, the first below the second.
    from: f64,
    to: f64,
}

/// A line across the plot with a number beside it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tick {
    /// 0 at the start of the axis, 1 at its end.
    pub(crate) at: f64,
    pub(crate) label: String,
}

impl Axis {
    /// From the least to the greatest of the values that have a place; where that is no span, one around it.
    pub(crate) fn tight(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let places = values.filter_map(|value| scale.place(value));
        let (from, to) = places.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), p| (a.min(p), b.max(p)));
        if from > to {
            return Self { scale, from: 0.0, to: 1.0 };
        }
        let largest = from.abs().max(to.abs());
        // Closer than this, the ticks' labels would need more digits than a number has.
        if to - from > (largest * 1e-9).max(1.0 / HUGE) {
            return Self { scale, from, to };
        }
        let room = match scale {
            Scale::Linear if largest > 1e-90 => largest * 0.1,
            Scale::Linear => 1.0,
            Scale::Log => 0.5,
        };
        Self { scale, from: from - room, to: to + room }
    }

    /// The same with a margin above and below; values that are not negative and reach near zero start at zero.
    pub(crate) fn with_margin(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let Self { from, to, .. } = Self::tight(scale, values);
        let margin = (to - from) * 0.06;
        let near_zero = scale == Scale::Linear && from >= 0.0 && from <= to / 2.0;
        Self { scale, from: if near_zero { 0.0 } else { from - margin }, to: to + margin }
    }

    /// Where a value stands: 0 at the start of the axis, 1 at its end, `None` where it has no place.
    pub(crate) fn at(&self, value: f64) -> Option<f64> {
        self.scale.place(value).map(|place| (place - self.from) / (self.to - self.from))
    }

    /// At most about `most` ticks, at round numbers.
    pub(crate) fn ticks(&self, most: usize) -> Vec<Tick> {
        let most = most.max(1) as f64;
        let numbers = match self.scale {
            Scale::Linear => round_numbers(self.from..=self.to, most),
            Scale::Log => self.logarithmic(most),
        };
        numbers.into_iter().filter_map(|(value, label)| Some(Tick { at: self.at(value)?, label })).collect()
    }

    /// Powers of ten; where they are too few, also twice and five times these; else as on a linear axis.
    fn logarithmic(&self, most: f64) -> Vec<(f64, String)> {
        let decades = self.from.floor() as i32..=self.to.floor() as i32;
        let every = ((self.to - self.from) / most).ceil().max(1.0) as i32;
        let numbers = |digits: &[u32], every: i32| -> Vec<(f64, String)> {
            let decades = decades.clone().filter(|decade| decade.rem_euclid(every) == 0);
            let numbers = decades.flat_map(|decade| digits.iter().map(move |digit| power_of_ten(*digit, decade)));
            numbers.filter(|(value, _)| (self.from..=self.to).contains(&value.log10())).collect()
        };
        let powers = numbers(&[1], every);
        let finer = numbers(&[1, 2, 5], 1);
        if powers.len() >= 3 || (!powers.is_empty() && finer.len() as f64 > 2.0 * most) {
            powers
        } else if finer.len() >= 2 {
            finer
        } else {
            round_numbers(10_f64.powf(self.from)..=10_f64.powf(self.to), most)
        }
    }
}

/// digit × 10^decade, and how it is written.
fn power_of_ten(digit: u32, decade: i32) -> (f64, String) {
    let scientific = format!("{digit}e{decade}");
    // Always a number; parsing gives the closest one, which multiplying would not.
    let value: f64 = scientific.parse().unwrap_or(f64::NAN);
    (value, if (-3..5).contains(&decade) { value.to_string() } else { scientific })
}

/// The multiples of 1, 2 or 5 times a power of ten within `range`, at most `most` or one more.
fn round_numbers(range: RangeInclusive<f64>, most: f64) -> Vec<(f64, String)> {
    let (from, to) = range.into_inner();
    let least = (to - from) / most;
    let decade = least.log10().floor() as i32;
    let (digit, decade) = [(1, decade), (2, decade), (5, decade)]
        .into_iter()
        .find(|(digit, decade)| power_of_ten(*digit, *decade).0 >= least * (1.0 - 1e-9))
        .unwrap_or((1, decade + 1));
    let step = power_of_ten(digit, decade).0;
    let largest = from.abs().max(to.abs());
    let plain = (1e-3..1e6).contains(&largest);
    let label = |value: f64| {
        if value == 0.0 {
            "0".to_owned()
        } else if plain {
            format!("{value:.0$}", (-decade).max(0) as usize)
        } else {
            let magnitude = (value.abs() * (1.0 + 1e-9)).log10().floor() as i32;
            format!("{value:.0$e}", (magnitude - decade).max(0) as usize)
        }
    };
    let first = (from / step - 1e-9).ceil() as i64;
    let last = (to / step + 1e-9).floor() as i64;
    (first..=last).map(|i| i as f64 * step).map(|value| (value, label(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis, most: usize) -> Vec<String> {
        axis.ticks(most).into_iter().map(|tick| tick.label).collect()
    }

    fn linear(from: f64, to: f64) -> Axis {
        Axis::tight(Scale::Linear, [from, to].into_iter())
    }

    fn log(from: f64, to: f64) -> Axis {
        Axis::tight(Scale::Log, [from, to].into_iter())
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(
            labels(&linear(0.0, 1.0), 5),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"].map(|l| l.replace("0.0", "0"))
        );
        assert_eq!(labels(&linear(1.0, 660.0), 8), ["100", "200", "300", "400", "500", "600"]);
        assert_eq!(labels(&linear(-0.3, 0.31), 4), ["-0.2", "0", "0.2"]);
        assert_eq!(labels(&linear(0.0, 2.4e-5), 3), ["0", "1e-5", "2e-5"]);
        assert_eq!(labels(&linear(9e6, 1.15e7), 3), ["9e6", "1.0e7", "1.1e7"]);
        assert_eq!(labels(&linear(999.9, 1000.1), 3), ["999.9", "1000.0", "1000.1"]);
    }

    #[test]
    fn ticks_of_a_logarithm_are_powers_of_ten_or_a_part_of_one() {
        assert_eq!(labels(&log(2e-6, 0.3), 6), ["1e-5", "1e-4", "0.001", "0.01", "0.1"]);
        assert_eq!(labels(&log(1e-9, 1e9), 6), ["1e-9", "1e-6", "0.001", "1", "1000", "1e6", "1e9"]);
        assert_eq!(labels(&log(0.06, 0.7), 6), ["0.1", "0.2", "0.5"]);
        assert_eq!(labels(&log(0.51, 0.58), 4), ["0.52", "0.54", "0.56", "0.58"]);
    }

    #[test]
    fn ticks_stand_where_their_numbers_do() {
        for axis in [linear(-3.7, 12.9), linear(1e-7, 3e-7), log(0.02, 40.0), log(3.0, 4.0)] {
            for most in 1..20 {
                let ticks = axis.ticks(most);
                assert!(ticks.len() <= 3.max(2 * most), "{axis:?} {most}: {ticks:?}");
                for tick in ticks {
                    let value: f64 = tick.label.parse().unwrap();
                    assert!((axis.at(value).unwrap() - tick.at).abs() < 1e-6, "{axis:?}: {tick:?}");
                    assert!((-1e-6..=1.0 + 1e-6).contains(&tick.at));
                }
            }
        }
    }

    #[test]
    fn a_single_value_gets_a_span() {
        for value in [0.0, 1e-300, 5.0, -2.0, 1e50, f64::MIN_POSITIVE] {
            let axis = linear(value, value);
            assert!((axis.at(value).unwrap() - 0.5).abs() < 1e-9, "{value}: {axis:?}");
            assert!(axis.ticks(5).len() <= 7);
        }
        assert_eq!(labels(&log(0.01, 0.01), 5), ["0.005", "0.01", "0.02"]);
        assert_eq!(linear(1.0, 1.0 + 1e-12).ticks(5).len(), 5);
        assert_eq!(linear(f64::NAN, f64::INFINITY), linear(0.0, 1.0));
        assert_eq!(log(0.0, -1.0), Axis { scale: Scale::Log, from: 0.0, to: 1.0 });
    }

    #[test]
    fn the_margin_keeps_zero_as_the_floor() {
        let with_margin = |from, to| Axis::with_margin(Scale::Linear, [from, to].into_iter());
        assert_eq!(with_margin(0.1, 1.0).from, 0.0);
        assert!(with_margin(0.1, 1.0).to > 1.0);
        assert!(with_margin(0.9, 1.0).from > 0.8);
        assert!(with_margin(-0.1, 1.0).from < -0.1);
    }
}
