//! A sheet of scenes: `cargo run -p attndreambooth-scenes --example sheet -- DRAWINGS OUT.png [SEED]`.
#![allow(clippy::print_stdout)]

use std::path::Path;

use anyhow::{Result, bail};
use image::{RgbImage, imageops};
use scenes::{Album, Scene, Split, World};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [drawings, out, rest @ ..] = arguments.as_slice() else {
        bail!("give the folder of the drawings and the image to write")
    };
    let first: u64 = rest.first().map_or(Ok(0), |seed| seed.parse())?;
    let world = World::miniature();
    let album = Album::open(&world, Path::new(drawings))?;
    let mut sheet = RgbImage::new(8 * 132, 6 * 132);
    for i in 0..48 {
        let scene = Scene::sample(&world, first + i, if i < 40 { Split::Training } else { Split::HeldOut });
        println!("{}", scene.caption(&world));
        let image = scene.render(&world, &album, 128);
        imageops::replace(&mut sheet, &image, (i % 8 * 132) as i64, (i / 8 * 132) as i64);
    }
    sheet.save(out)?;
    Ok(())
}
