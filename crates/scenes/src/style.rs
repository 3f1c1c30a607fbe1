//! Styles, applied to a whole image.

use image::{Rgb, Rgb32FImage};

pub(crate) fn apply(style: &str, image: &Rgb32FImage) -> Rgb32FImage {
    match style {
        "sketch" => sketch(image),
        "painting" => painting(image),
        "pixel" => pixel(image),
        _ => neon(image),
    }
}

fn luminance(Rgb([r, g, b]): &Rgb<f32>) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

fn at(image: &Rgb32FImage, x: i64, y: i64) -> &Rgb<f32> {
    let last = i64::from(image.width()) - 1;
    image.get_pixel(x.clamp(0, last) as u32, y.clamp(0, last) as u32)
}

/// The mean over the square of this radius around a pixel.
fn mean(image: &Rgb32FImage, x: i64, y: i64, radius: i64) -> f32 {
    let square = (-radius..=radius).flat_map(|dy| (-radius..=radius).map(move |dx| (dx, dy)));
    square.map(|(dx, dy)| luminance(at(image, x + dx, y + dy))).sum::<f32>() / (2 * radius + 1).pow(2) as f32
}

/// Pencil: each pixel against the mean around it, so that only outlines and some shade remain.
fn sketch(image: &Rgb32FImage) -> Rgb32FImage {
    let radius = i64::from(image.width() / 40).max(1);
    Rgb32FImage::from_fn(image.width(), image.height(), |x, y| {
        let here = luminance(image.get_pixel(x, y));
        let around = mean(image, i64::from(x), i64::from(y), radius);
        let line = ((here + 0.05) / (around + 0.05)).min(1.0).powi(3);
        let tone = line * (0.8 + 0.2 * here);
        Rgb([tone * 0.98, tone * 0.97, tone * 0.94])
    })
}

/// Oil: of the four squares that a pixel is a corner of, the mean of the most even one (Kuwahara), in richer colours.
fn painting(image: &Rgb32FImage) -> Rgb32FImage {
    let radius = i64::from(image.width() / 32).max(1);
    Rgb32FImage::from_fn(image.width(), image.height(), |x, y| {
        let (x, y) = (i64::from(x), i64::from(y));
        let quarter = |dx: i64, dy: i64| {
            let (mut sum, mut squares, mut count) = ([0.0f32; 3], 0.0, 0.0);
            for i in 0..=radius {
                for j in 0..=radius {
                    let pixel = at(image, x + dx * i, y + dy * j);
                    let light = luminance(pixel);
                    squares += light * light;
                    count += 1.0;
                    sum = std::array::from_fn(|c| sum[c] + pixel[c]);
                }
            }
            let mean = sum.map(|v| v / count);
            (squares / count - luminance(&Rgb(mean)).powi(2), mean)
        };
        let quarters = [quarter(1, 1), quarter(1, -1), quarter(-1, 1), quarter(-1, -1)];
        let least = quarters.into_iter().fold((f32::MAX, [0.0; 3]), |a, b| if b.0 < a.0 { b } else { a });
        let light = luminance(&Rgb(least.1));
        let [r, g, b] = least.1.map(|v| light + 1.6 * (v - light));
        Rgb([r * 1.04 + 0.03, g, b * 0.85])
    })
}

/// Sixteen squares of one colour each way.
fn pixel(image: &Rgb32FImage) -> Rgb32FImage {
    let block = (image.width() / 16).max(1);
    let small = Rgb32FImage::from_fn(image.width().div_ceil(block), image.height().div_ceil(block), |x, y| {
        let square = (0..block).flat_map(|dy| (0..block).map(move |dx| (dx, dy)));
        let mut sum = [0.0; 3];
        for (dx, dy) in square {
            let pixel = at(image, i64::from(x * block + dx), i64::from(y * block + dy));
            sum = std::array::from_fn(|c| sum[c] + pixel[c]);
        }
        Rgb(sum.map(|v| v / (block * block) as f32))
    });
    Rgb32FImage::from_fn(image.width(), image.height(), |x, y| *small.get_pixel(x / block, y / block))
}

/// Glowing outlines in the dark.
fn neon(image: &Rgb32FImage) -> Rgb32FImage {
    Rgb32FImage::from_fn(image.width(), image.height(), |x, y| {
        let (x, y) = (i64::from(x), i64::from(y));
        let mut edge = 0.0f32;
        for c in 0..3 {
            let slope = |dx: i64, dy: i64| at(image, x + dx, y + dy)[c] - at(image, x - dx, y - dy)[c];
            edge = edge.max(slope(1, 0).hypot(slope(0, 1)));
        }
        let Rgb(color) = at(image, x, y);
        let brightest = color.iter().fold(0.2f32, |a, b| a.max(*b));
        let glow = (1.5 * edge).min(1.0);
        Rgb(std::array::from_fn(|c| 0.04 + 0.03 * (c == 2) as u8 as f32 + glow * (0.25 + 0.75 * color[c] / brightest)))
    })
}
