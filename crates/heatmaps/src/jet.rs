//! The colours.

/// Matplotlib's colour map "jet": from dark blue over cyan, yellow and red to dark red, as `heat` goes from 0 to 1.
pub fn jet(heat: f64) -> [u8; 3] {
    color(heat).map(|channel| (channel * 255.0).round() as u8)
}

/// Red, green and blue from 0 to 1.
pub(crate) fn color(heat: f64) -> [f64; 3] {
    /// (heat, intensity), between which a channel runs straight.
    const RED: &[(f64, f64)] = &[(0.35, 0.0), (0.66, 1.0), (0.89, 1.0), (1.0, 0.5)];
    const GREEN: &[(f64, f64)] = &[(0.125, 0.0), (0.375, 1.0), (0.64, 1.0), (0.91, 0.0)];
    const BLUE: &[(f64, f64)] = &[(0.0, 0.5), (0.11, 1.0), (0.34, 1.0), (0.65, 0.0)];
    [RED, GREEN, BLUE].map(|channel| interpolate(channel, heat))
}

/// Straight between neighbours, constant outside; NaN is as the first.
fn interpolate(points: &[(f64, f64)], at: f64) -> f64 {
    let next = points.iter().position(|(x, _)| at < *x);
    match next {
        Some(0) => points[0].1,
        None if at.is_nan() => points[0].1,
        None => points[points.len() - 1].1,
        Some(next) => {
            let ((x0, y0), (x1, y1)) = (points[next - 1], points[next]);
            y0 + (y1 - y0) * (at - x0) / (x1 - x0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn landmarks_have_matplotlibs_colours() {
        // plt.get_cmap("jet")(x)[:3] at both ends and at corners of the channels.
        assert_eq!(jet(0.0), [0, 0, 128]);
        assert_eq!(jet(0.125), [0, 0, 255]);
        assert_eq!(jet(0.375)[1], 255);
        assert_eq!(jet(0.66)[0], 255);
        assert_eq!(jet(1.0), [128, 0, 0]);
        assert_eq!([jet(-1.0), jet(2.0), jet(f64::NAN)], [jet(0.0), jet(1.0), jet(0.0)]);
    }

    #[test]
    fn neighbours_look_alike() {
        for i in 0..1000 {
            let [a, b] = [i, i + 1].map(|i| jet(f64::from(i) / 1000.0));
            assert!(a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= 3), "{i}: {a:?} {b:?}");
        }
    }
}
