//! Photos of held-out characters: `cargo run --release -p attndreambooth-scenes --example subjects -- ANIMATIONS OUT`.
//!
//! Takes poses from the animated drawings (npm packages @lobehub/fluent-emoji-anim-1 to -4, MIT, folder assets) and puts
//! each into another scene. This made `fixtures/subjects`.
#![allow(clippy::print_stdout)]

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Result, bail};
use image::codecs::jpeg::JpegEncoder;
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
        let poses = scenes::poses(&path, PHOTOS, 0.0)?;
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
