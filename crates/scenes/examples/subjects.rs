//! Photos of held-out characters: `cargo run --release -p attndreambooth-scenes --example subjects -- ANIMATIONS OUT`.
//!
//! Takes poses from the animated drawings (npm packages @lobehub/fluent-emoji-anim-1 and -2, MIT, folder assets) and puts
//! each into another scene. This made `fixtures/subjects`.
#![allow(clippy::print_stdout)]

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use anyhow::{Context, Result, bail};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, RgbaImage};
use scenes::{Album, Scene, World};

/// Photos of each subject.
const PHOTOS: usize = 5;
const SIDE: u32 = 256;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [animations, out] = arguments.as_slice() else { bail!("give the folder of the animations and where to write") };
    let world = World::miniature();
    for (number, subject) in world.subjects.iter().enumerate() {
        let path = Path::new(animations).join(format!("{}.webp", subject.drawings[0]));
        if !path.exists() {
            continue;
        }
        let poses = poses(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let folder = Path::new(out).join(&subject.name);
        std::fs::create_dir_all(&folder)?;
        for (turn, pose) in poses.into_iter().enumerate() {
            let scene = Scene::of_subject(&world, subject, turn, (100 * number + turn) as u64);
            let album = Album::of([(scene.objects[0].drawing.clone(), pose)]);
            let file = BufWriter::new(File::create(folder.join(format!("{turn:02}.jpg")))?);
            JpegEncoder::new_with_quality(file, 92).encode_image(&scene.render(&world, &album, SIDE))?;
            println!("{} {turn}: {}", subject.name, scene.caption(&world));
        }
    }
    Ok(())
}

/// Frames that are spread over the animation.
fn poses(path: &Path) -> Result<Vec<RgbaImage>> {
    let decoder = WebPDecoder::new(BufReader::new(File::open(path)?))?;
    let frames = decoder.into_frames().collect_frames()?;
    Ok((0..PHOTOS).map(|i| largest_part(frames[i * frames.len() / PHOTOS].buffer())).collect())
}

/// The frame without the crumbs of earlier frames that the decoder leaves: what hangs together with the middle.
fn largest_part(frame: &RgbaImage) -> RgbaImage {
    let (width, height) = frame.dimensions();
    let mut kept = RgbaImage::new(width, height);
    let mut open = vec![(width / 2, height / 2)];
    while let Some((x, y)) = open.pop() {
        if frame.get_pixel(x, y).0[3] < 8 || kept.get_pixel(x, y).0[3] > 0 {
            continue;
        }
        kept.put_pixel(x, y, *frame.get_pixel(x, y));
        let around = [(x.wrapping_sub(1), y), (x + 1, y), (x, y.wrapping_sub(1)), (x, y + 1)];
        open.extend(around.into_iter().filter(|&(x, y)| x < width && y < height));
    }
    kept
}
