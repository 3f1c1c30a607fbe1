//! Painting backgrounds.

use image::{Rgb, Rgb32FImage};

use crate::rng::Rng;
use crate::{Background, World};

/// Whether things stand on something there.
pub(crate) fn has_ground(place: &str) -> bool {
    !["water", "sky", "space"].contains(&place)
}

type Color = [f32; 3];

/// A square image of the background alone.
pub(crate) fn paint(background: &Background, world: &World, rng: &mut Rng, side: u32) -> Rgb32FImage {
    let shade = rng.range(-0.03, 0.03);
    let painter: Box<dyn Fn(f32, f32) -> Color> = match background {
        Background::Plain => Box::new(|_, y| [0.92 - 0.08 * y; 3]),
        Background::Color(color) => {
            let rgb = world.colors.get(color).map_or([0.5; 3], |rgb| rgb.map(|v| f32::from(v) / 255.0));
            Box::new(move |_, y| rgb.map(|v| v + 0.05 - 0.1 * y))
        }
        Background::Place(place) => scenery(place, rng),
    };
    Rgb32FImage::from_fn(side, side, |x, y| {
        let part = |v: u32| (v as f32 + 0.5) / side as f32;
        Rgb(painter(part(x), part(y)).map(|v| (v + shade).clamp(0.0, 1.0)))
    })
}

fn rgb(r: u8, g: u8, b: u8) -> Color {
    [r, g, b].map(|v| f32::from(v) / 255.0)
}

fn mix(a: Color, b: Color, t: f32) -> Color {
    std::array::from_fn(|c| a[c] + (b[c] - a[c]) * t.clamp(0.0, 1.0))
}

/// Discs (x, y, radius) at random places between two heights.
fn discs(rng: &mut Rng, count: usize, heights: (f32, f32), radii: (f32, f32)) -> Vec<(f32, f32, f32)> {
    let disc = |_| (rng.unit(), rng.range(heights.0, heights.1), rng.range(radii.0, radii.1));
    (0..count).map(disc).collect()
}

/// How far inside the nearest disc a point is: 1 inside, 0 outside, between at the rim.
fn cover(discs: &[(f32, f32, f32)], x: f32, y: f32, stretch: f32) -> f32 {
    let inside =
        |&(cx, cy, r): &(f32, f32, f32)| ((r - ((x - cx) / stretch).hypot(y - cy)) * 96.0 + 0.5).clamp(0.0, 1.0);
    discs.iter().map(inside).fold(0.0, f32::max)
}

/// The colour at each point, x to the right and y down, both in [0, 1].
fn scenery(place: &str, rng: &mut Rng) -> Box<dyn Fn(f32, f32) -> Color> {
    let horizon = rng.range(0.56, 0.66);
    let (waves, phase) = (rng.range(3.0, 7.0), rng.range(0.0, 6.3));
    let ground = move |x: f32| horizon + 0.025 * (waves * x + phase).sin();
    match place {
        "snow" => {
            let flakes = discs(rng, 16, (0.0, horizon), (0.01, 0.018));
            Box::new(move |x, y| {
                let sky = mix(rgb(160, 195, 230), rgb(205, 225, 242), y / horizon);
                let sky = mix(sky, [1.0; 3], cover(&flakes, x, y, 1.0));
                if y > ground(x) { mix(rgb(250, 252, 255), rgb(222, 232, 245), (y - horizon) * 2.0) } else { sky }
            })
        }
        "beach" => Box::new(move |x, y| match y {
            y if y > ground(x) + 0.04 => mix(rgb(244, 222, 170), rgb(226, 196, 138), (y - horizon) * 2.0),
            y if y > horizon - 0.16 => mix(rgb(40, 140, 205), rgb(95, 200, 220), (y - horizon + 0.16) * 5.0),
            y => mix(rgb(120, 195, 245), rgb(200, 232, 250), y / horizon),
        }),
        "grass" => Box::new(move |x, y| match y {
            y if y > ground(x) => mix(rgb(120, 200, 90), rgb(70, 150, 60), (y - horizon) * 2.2),
            y => mix(rgb(130, 200, 250), rgb(205, 235, 252), y / horizon),
        }),
        "forest" => {
            let trunks: Vec<(f32, f32)> =
                (0..6).map(|i| ((i as f32 + rng.range(0.2, 0.8)) / 6.0, rng.range(0.018, 0.03))).collect();
            Box::new(move |x, y| {
                let leaves = mix(rgb(46, 105, 58), rgb(30, 76, 46), y + 0.1 * (waves * 4.0 * x + phase).sin());
                let trunk = trunks.iter().any(|(middle, half)| (x - middle).abs() < *half);
                match y {
                    y if y > 0.8 + 0.02 * (waves * x).sin() => rgb(62, 78, 40),
                    y if trunk && y > 0.22 => rgb(88, 60, 38),
                    _ => leaves,
                }
            })
        }
        "desert" => Box::new(move |x, y| match y {
            y if y > ground(x) + 0.1 => mix(rgb(232, 172, 96), rgb(205, 140, 72), (y - horizon) * 2.0),
            y if y > horizon + 0.06 * (waves * 0.7 * x + phase).cos() => rgb(242, 192, 120),
            y => mix(rgb(252, 226, 170), rgb(253, 240, 205), y / horizon),
        }),
        "water" => {
            let bubbles = discs(rng, 9, (0.0, 1.0), (0.012, 0.03));
            Box::new(move |x, y| {
                let water = mix(rgb(70, 185, 225), rgb(12, 70, 145), y);
                mix(water, rgb(190, 235, 250), 0.7 * cover(&bubbles, x, y, 1.0))
            })
        }
        "sky" => {
            let clouds = discs(rng, 5, (0.08, 0.95), (0.05, 0.08));
            Box::new(move |x, y| {
                let sky = mix(rgb(85, 165, 240), rgb(175, 220, 250), y);
                mix(sky, rgb(250, 252, 255), cover(&clouds, x, y, 2.2))
            })
        }
        "space" => {
            let stars = discs(rng, 26, (0.0, 1.0), (0.006, 0.013));
            Box::new(move |x, y| {
                let cloud = 0.5 + 0.5 * (waves * (x + y) + phase).sin();
                let dark = mix(rgb(10, 10, 30), rgb(52, 26, 84), 0.7 * cloud * (1.0 - (y - 0.5).abs()));
                mix(dark, rgb(255, 250, 230), cover(&stars, x, y, 1.0))
            })
        }
        "city" => {
            let heights: Vec<f32> = (0..7).map(|_| rng.range(0.12, 0.45)).collect();
            Box::new(move |x, y| {
                let house = ((x * 7.0) as usize).min(6);
                let (within, up) = ((x * 7.0).fract(), y - heights[house]);
                let wall = mix(rgb(120, 128, 145), rgb(92, 100, 122), (house % 2) as f32);
                let window = (0.2..0.8).contains(&within) && (up * 14.0).fract() > 0.5;
                match y {
                    y if y > 0.78 => rgb(78, 80, 88),
                    y if y > heights[house] && window => rgb(240, 220, 150),
                    y if y > heights[house] => wall,
                    y => mix(rgb(175, 205, 235), rgb(220, 230, 240), y),
                }
            })
        }
        "night" => {
            let moon = [(rng.range(0.12, 0.88), rng.range(0.12, 0.2), 0.085)];
            let stars = discs(rng, 10, (0.0, horizon), (0.006, 0.01));
            Box::new(move |x, y| {
                let sky = mix(rgb(14, 20, 62), rgb(44, 52, 118), y / horizon);
                let sky = mix(sky, rgb(235, 235, 220), cover(&stars, x, y, 1.0));
                let sky = mix(sky, rgb(250, 244, 205), cover(&moon, x, y, 1.0));
                if y > ground(x) + 0.12 { rgb(18, 30, 44) } else { sky }
            })
        }
        "sunset" => {
            let sun = [(rng.range(0.2, 0.8), horizon + 0.1, 0.15)];
            Box::new(move |x, y| {
                let sky = match y / (horizon + 0.1) {
                    t if t < 0.5 => mix(rgb(96, 62, 138), rgb(226, 96, 110), t * 2.0),
                    t => mix(rgb(226, 96, 110), rgb(252, 176, 80), t * 2.0 - 1.0),
                };
                let sky = mix(sky, rgb(255, 226, 130), cover(&sun, x, y, 1.0));
                if y > ground(x) + 0.1 { rgb(66, 38, 62) } else { sky }
            })
        }
        _ => Box::new(move |x, y| match y {
            y if y > horizon + 0.1 => {
                mix(rgb(176, 118, 70), rgb(140, 90, 52), (y - horizon) * 2.0 + 0.05 * (40.0 * x).sin())
            }
            y if y > horizon + 0.07 => rgb(112, 70, 40),
            y => mix(rgb(238, 230, 214), rgb(222, 212, 194), y),
        }),
    }
}
