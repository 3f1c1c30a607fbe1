//! Images of a prompt: `cargo run -p attndreambooth-sampling --example generate -- [MODEL_FOLDER] [PROMPT]`.
//!
//! Without arguments the tiny model in fixtures is used, whose weights are random.

#![allow(clippy::print_stderr, reason = "an example speaks through its output")]

use anyhow::Result;
use images::Grid;
use libtorch::DeviceChoice;
use sampling::{Pipeline, Request};
use tch::Kind;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-sd21");
    let folder = arguments.next().unwrap_or_else(|| tiny.to_owned());
    let prompt = arguments.next().unwrap_or_else(|| "a photo of a cat".to_owned());

    let pipeline = Pipeline::from_folder(folder.as_ref(), (Kind::Float, libtorch::resolve(DeviceChoice::Auto)?))?;
    let requests = [0, 1, 2, 3].map(|seed| Request::new(&prompt, seed));
    let images = pipeline.generate(&requests, &pipeline.default_settings(), &mut |step| {
        eprint!("\rstep {} of {} ", step.done, step.total);
    })?;
    let mut grid = Grid::new(2);
    for (request, image) in requests.iter().zip(images) {
        grid.push(image, format!("seed {}", request.seed));
    }
    images::save_generated("images.png".as_ref(), &grid.draw(), &[])?;
    eprintln!("\nimages.png");
    Ok(())
}
