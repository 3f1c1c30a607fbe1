//! When a phase ends, and which snapshot it takes, decided from a curve alone.

use runs::{AutoStop, Dvar, Measurement, Reason};

/// The place in the curve of the measurement that is taken if the phase ends now; none of an empty curve.
pub(crate) fn choice(auto: &AutoStop, curve: &[Measurement]) -> Option<usize> {
    candidates(auto, usable(auto, curve)).next()
}

/// Why the phase ends after the last of these measurements, if it does: text alignment is below the floor, or the choice has
/// stayed the same for long enough.
pub(crate) fn ended(auto: &AutoStop, curve: &[Measurement]) -> Option<Reason> {
    if fallen(auto, curve).is_some() {
        return Some(Reason::TextAlignment);
    }
    let since = curve.len().checked_sub(choice(auto, curve)? + 1)?;
    (since >= auto.patience).then_some(Reason::Levelled)
}

/// The measurements that may yet be taken, whatever comes; only these need a snapshot.
pub(crate) fn open(auto: &AutoStop, curve: &[Measurement]) -> Vec<usize> {
    let mut open: Vec<usize> = candidates(auto, usable(auto, curve)).collect();
    if auto.clip.is_some() && fallen(auto, curve).is_none() {
        // Should text alignment turn out to have fallen since it was last measured.
        let before: Vec<usize> = candidates(auto, aligned(curve)).filter(|place| !open.contains(place)).collect();
        open.extend(before);
    }
    open
}

/// The measurements whose gain falls short of the largest by no more than the tolerance, and exceeds all before. One that does
/// not exceed them will never be the first above any bound.
fn candidates<'a>(auto: &AutoStop, curve: &'a [Measurement]) -> impl Iterator<Item = usize> + use<'a> {
    let largest = curve.iter().map(|at| at.gain).fold(f64::NEG_INFINITY, f64::max);
    let least = largest - auto.tolerance * largest.abs();
    let mut before = f64::NEG_INFINITY;
    curve.iter().enumerate().filter_map(move |(place, at)| {
        let exceeds = at.gain > before;
        before = before.max(at.gain);
        (exceeds && at.gain >= least).then_some(place)
    })
}

/// The measurements that text alignment lets through.
fn usable<'a>(auto: &AutoStop, curve: &'a [Measurement]) -> &'a [Measurement] {
    match fallen(auto, curve) {
        // There is nothing before the first, which is the least trained.
        Some(0) => &curve[..1],
        Some(fallen) => aligned(&curve[..fallen]),
        None => curve,
    }
}

/// Where text alignment is first below the floor.
fn fallen(auto: &AutoStop, curve: &[Measurement]) -> Option<usize> {
    let floor = auto.clip.as_ref()?.floor;
    curve.iter().position(|at| at.text_alignment.is_some_and(|alignment| alignment < floor))
}

/// The measurements until text alignment was last measured.
fn aligned(curve: &[Measurement]) -> &[Measurement] {
    let last = curve.iter().rposition(|at| at.text_alignment.is_some());
    &curve[..last.map_or(0, |last| last + 1)]
}

/// DVAR (arXiv 2302.04841): whether var(last `window` values) / var(all values) < epsilon, with population variances. Gains do
/// as well as losses: one is an affine function of the other.
pub(crate) fn varies_little(dvar: &Dvar, values: &[f64]) -> bool {
    let Some(before) = values.len().checked_sub(dvar.window) else { return false };
    variance(&values[before..]) / variance(values) < dvar.epsilon
}

fn variance(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use runs::StopClip;

    use super::*;

    /// `tolerance` 0.1 and `patience` 3; with a floor of 0.8 where there is a CLIP.
    fn auto(clip: bool) -> AutoStop {
        let clip = clip.then(|| StopClip { floor: 0.8, ..StopClip::default() });
        AutoStop { tolerance: 0.1, patience: 3, clip, ..AutoStop::default() }
    }

    fn curve(gains: &[f64]) -> Vec<Measurement> {
        aligned_curve(gains, &[])
    }

    /// With text alignment where it is a number.
    fn aligned_curve(gains: &[f64], alignment: &[f64]) -> Vec<Measurement> {
        let at = |(place, gain): (usize, &f64)| Measurement {
            step: 10 * place,
            gains: vec![*gain],
            gain: *gain,
            text_alignment: alignment.get(place).copied().filter(|alignment| !alignment.is_nan()),
            seconds: 0.0,
        };
        gains.iter().enumerate().map(at).collect()
    }

    /// How many measurements are made of a curve, why it ends there, and what is taken. What is taken must have been open ever
    /// since it was measured.
    fn run(auto: &AutoStop, curve: &[Measurement]) -> (usize, Reason, usize) {
        let made = (1..=curve.len()).find(|made| ended(auto, &curve[..*made]).is_some()).unwrap_or(curve.len());
        let reason = ended(auto, &curve[..made]).unwrap_or(Reason::Steps);
        let taken = choice(auto, &curve[..made]).unwrap();
        for seen in taken + 1..made {
            let open = open(auto, &curve[..seen]);
            assert!(open.contains(&taken), "{taken} after {seen}: {open:?}");
            assert!(open.len() <= auto.patience + 1 + if auto.clip.is_some() { seen } else { 0 }, "{open:?}");
        }
        (made, reason, taken)
    }

    #[test]
    fn what_rises_and_levels_ends_where_it_levels() {
        let gains = [0.0, 0.2, 0.4, 0.46, 0.48, 0.49, 0.495, 0.499, 0.5, 0.5];
        // 0.46 is 0.92 of 0.5, and the first above 0.9 of it. Until 0.46 is there, 0.4 is not old enough.
        assert_eq!(run(&auto(false), &curve(&gains)), (7, Reason::Levelled, 3));
        assert_eq!(open(&auto(false), &curve(&gains[..7])), [3, 4, 5, 6]);
    }

    #[test]
    fn noise_neither_ends_it_early_nor_is_taken() {
        let gains = [0.0, 0.1, 0.05, 0.2, 0.15, 0.3, 0.22, 0.31, 0.25, 0.29, 0.3, 0.3];
        assert_eq!(run(&auto(false), &curve(&gains)), (9, Reason::Levelled, 5));
        // 0.22 and 0.25 exceed nothing, so they can never be taken.
        assert_eq!(open(&auto(false), &curve(&gains[..9])), [5, 7]);
    }

    #[test]
    fn what_only_falls_ends_with_what_it_started_from() {
        assert_eq!(run(&auto(false), &curve(&[0.3, 0.2, 0.1, 0.0, -0.1, -0.2])), (4, Reason::Levelled, 0));
        // Below the base model, less is worse as well.
        assert_eq!(run(&auto(false), &curve(&[-0.3, -0.2, -0.25, -0.4, -0.5, -0.6])), (5, Reason::Levelled, 1));
        assert_eq!(run(&auto(false), &curve(&[0.0; 6])), (4, Reason::Levelled, 0));
    }

    #[test]
    fn what_never_levels_has_all_its_steps() {
        let gains: Vec<f64> = (0..12).map(|place| 2f64.powi(place) / 4096.0).collect();
        assert_eq!(run(&auto(false), &curve(&gains)), (12, Reason::Steps, 11));
        assert_eq!(open(&auto(false), &curve(&gains)), [11]);
        // The last steps gain little, but have not lasted long enough: the first of them is taken.
        assert_eq!(run(&auto(false), &curve(&[0.0, 0.3, 0.6, 0.9, 0.91, 0.92])), (6, Reason::Steps, 3));
        assert_eq!(choice(&auto(false), &[]), None);
    }

    #[test]
    fn text_alignment_below_the_floor_ends_it_with_what_is_known_to_be_above() {
        const NO: f64 = f64::NAN;
        let gains = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
        let at = |alignment: &[f64]| run(&auto(true), &aligned_curve(&gains, alignment));
        assert_eq!(at(&[1.0, NO, 0.9, NO, 0.79, NO, NO]), (5, Reason::TextAlignment, 2));
        assert_eq!(at(&[1.0, NO, NO, NO, NO, NO, 0.7]), (7, Reason::TextAlignment, 0));
        assert_eq!(at(&[0.7]), (1, Reason::TextAlignment, 0));
        // At the floor is not below it.
        assert_eq!(at(&[1.0, NO, NO, 0.8, NO, NO, 0.8]), (7, Reason::Steps, 6));
        // Without a CLIP nobody looks.
        let curve = aligned_curve(&gains, &[0.1; 7]);
        assert_eq!(run(&auto(false), &curve), (7, Reason::Steps, 6));
        // Both bounds at once: it levels at 2, and falls at 4.
        let curve = aligned_curve(&[0.0, 0.3, 0.49, 0.5, 0.5, 0.5], &[1.0, NO, NO, 0.9, 0.5, NO]);
        assert_eq!(run(&auto(true), &curve), (5, Reason::TextAlignment, 2));
    }

    /// Of 0, 1, ..., n - 1 the variance is (n² - 1) / 12.
    #[test]
    fn variances_of_a_ramp_are_in_closed_form() {
        let ramp: Vec<f64> = (0..20).map(f64::from).collect();
        let ratio = (5.0 * 5.0 - 1.0) / (20.0 * 20.0 - 1.0);
        let little = |epsilon, values: &[f64]| varies_little(&Dvar { window: 5, epsilon, samples: 1 }, values);
        assert!(little(ratio + 1e-9, &ramp) && !little(ratio - 1e-9, &ramp));
        // A gain is 1 - loss / base loss.
        let gains: Vec<f64> = ramp.iter().map(|loss| 1.0 - loss / 7.0).collect();
        assert!(little(ratio + 1e-9, &gains) && !little(ratio - 1e-9, &gains));
        // With fewer values than the window nothing is known, nor where there is no variance at all.
        assert!(!little(1.0, &ramp[..4]) && !little(1.0, &[3.0; 20]));
        // A step down and then nothing: var(last) is 0.
        assert!(little(1e-12, &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]));
    }
}
