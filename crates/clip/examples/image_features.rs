//! Says how similar images are by the CLIP in a folder.
//!
//! ```console
//! $ cargo run -p attndreambooth-clip --example image_features                                              # tiny, two patterns
//! $ cargo run -p attndreambooth-clip --example image_features -- CLIP-VIT-BASE-PATCH32 A.jpg B.jpg C.png   # a real one, photos
//! ```

#![allow(clippy::print_stdout, reason = "it reports what it computed")]

use std::path::{Path, PathBuf};

use anyhow::Result;
use clip::{ClipModel, ImageProcessor};
use libtorch::DeviceChoice;
use tch::vision::image;
use tch::{Kind, Tensor};

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let tiny = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-clip");
    let folder = arguments.next().unwrap_or_else(tiny);
    let device = libtorch::resolve(DeviceChoice::Auto)?;
    let (model, parameters) = ClipModel::from_folder(&folder, (Kind::Float, device))?;
    println!("{}: {} parameters", folder.display(), parameters.count());

    let mut images = arguments.map(image::load).collect::<Result<Vec<_>, _>>()?;
    if images.is_empty() {
        images = vec![pattern(|_, x| x / 20 % 2 == 0), pattern(|y, x| (x / 20 + y / 20) % 2 == 0)];
    }
    let processor = ImageProcessor::from_folder(&folder)?;
    let prepared = images.iter().map(|image| processor.process(image)).collect::<Result<Vec<_>>>()?;
    let pixel_values = Tensor::stack(&prepared, 0).to_device(device);

    let features = tch::no_grad(|| libtorch::catch(|| model.image_features(&pixel_values)))??;
    println!("features {:?}; cosines of all pairs:", features.size());
    for cosines in Vec::<Vec<f64>>::try_from(clip::cosine_similarity(&features, &features)?)? {
        println!("{}", cosines.iter().map(|cosine| format!("{cosine:8.4}")).collect::<String>());
    }
    Ok(())
}

/// An image [3, 300, 400], white where `is_white(y, x)`, else red.
fn pattern(is_white: impl Fn(i64, i64) -> bool) -> Tensor {
    let pixels = (0..300).flat_map(|y| (0..400).map(move |x| (y, x)));
    let rgb = pixels.flat_map(|(y, x)| if is_white(y, x) { [255u8; 3] } else { [200, 30, 30] });
    Tensor::from_slice(&rgb.collect::<Vec<u8>>()).reshape([300, 400, 3]).permute([2, 0, 1])
}
