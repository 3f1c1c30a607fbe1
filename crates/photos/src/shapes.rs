//! Shapes of crops that keep photos' aspect ratios.

/// The shapes that crops may have, all of about one area: as kohya's `make_bucket_resolutions` has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shapes {
    /// Widths and heights in pixels.
    all: Vec<[u32; 2]>,
}

impl Shapes {
    /// Shapes of at most the area of a square of `resolution` pixels, whose sides are multiples of `step` from half the
    /// resolution to twice that; for 512 and 64 these are kohya's.
    pub fn new(resolution: u32, step: u32) -> Self {
        let step = step.max(1);
        let area = u64::from(resolution) * u64::from(resolution);
        let square = (resolution / step * step).max(step);
        let mut all = vec![[square; 2]];
        let (least, most) =
            ((resolution / 2).max(1).next_multiple_of(step), resolution.saturating_mul(2) / step * step);
        for width in (least..=most).step_by(step as usize) {
            let height = (area / u64::from(width.max(1))).min(most.into()) as u32 / step * step;
            if height >= least {
                all.extend([[width, height], [height, width]]);
            }
        }
        all.sort_unstable();
        all.dedup();
        Self { all }
    }

    /// The shape for a photo of this size: the one of the nearest aspect ratio, of two the larger.
    pub fn nearest(&self, width: u32, height: u32) -> [u32; 2] {
        let ratio = |[width, height]: [u32; 2]| f64::from(width.max(1)) / f64::from(height.max(1));
        let distance = |shape: [u32; 2]| (ratio(shape) / ratio([width, height])).ln().abs();
        let area = |[width, height]: [u32; 2]| u64::from(width) * u64::from(height);
        let better = |a: &[u32; 2], b: &[u32; 2]| distance(*a).total_cmp(&distance(*b)).then(area(*b).cmp(&area(*a)));
        self.all.iter().copied().min_by(|a, b| better(a, b)).unwrap_or_default()
    }

    /// All shapes, sorted by width.
    pub fn all(&self) -> &[[u32; 2]] {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `make_bucket_resolutions((512, 512), 256, 1024, 64)` of kohya's `library/model_util.py`.
    #[test]
    fn shapes_are_kohyas() {
        let portrait = [
            [256, 832],
            [256, 896],
            [256, 960],
            [256, 1024],
            [320, 704],
            [320, 768],
            [384, 640],
            [448, 576],
            [512, 512],
        ];
        let mut expected: Vec<[u32; 2]> = portrait.into_iter().chain(portrait.map(|[a, b]| [b, a])).collect();
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(Shapes::new(512, 64).all(), expected);
    }

    #[test]
    fn a_photo_has_the_nearest_shape_and_no_shape_is_larger_than_the_square() {
        let shapes = Shapes::new(512, 64);
        for (photo, shape) in [
            ((3000, 4000), [448, 576]),
            ((4000, 3000), [576, 448]),
            ((1080, 1920), [384, 640]),
            ((500, 500), [512, 512]),
            ((100, 9000), [256, 1024]),
            ((510, 500), [512, 512]),
        ] {
            assert_eq!(shapes.nearest(photo.0, photo.1), shape, "{photo:?}");
        }
        for (resolution, step) in [(64, 8), (128, 16), (32, 8), (768, 64), (7, 8), (1, 1), (500, 64)] {
            let shapes = Shapes::new(resolution, step);
            for [width, height] in shapes.all().iter().copied() {
                assert!(width % step == 0 && height % step == 0 && width * height > 0);
                assert!(u64::from(width) * u64::from(height) <= u64::from(resolution.max(step)).pow(2));
            }
            assert_eq!(shapes.nearest(640, 640)[0], shapes.nearest(640, 640)[1]);
        }
    }
}
