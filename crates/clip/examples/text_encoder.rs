//! Encodes token ids with the text encoder in a folder, and says which tokens are nearest to the first one.
//!
//! ```console
//! $ cargo run -p attndreambooth-clip --example text_encoder                                              # the tiny one in fixtures
//! $ cargo run -p attndreambooth-clip --example text_encoder -- MODEL/text_encoder 49406 320 2368 49407   # a real one
//! ```

#![allow(clippy::print_stdout, reason = "it reports what it computed")]

use std::path::PathBuf;

use anyhow::{Context, Result};
use clip::ClipTextModel;
use libtorch::DeviceChoice;
use tch::{Kind, Tensor};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let tiny = || concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-sd21/text_encoder").to_owned();
    let folder = PathBuf::from(arguments.next().unwrap_or_else(tiny));
    let ids = arguments.map(|text| text.parse().with_context(|| format!("{text:?} is no token id")));
    let ids = match ids.collect::<Result<Vec<i64>>>()? {
        none if none.is_empty() => vec![320],
        ids => ids,
    };

    let (model, parameters) =
        ClipTextModel::from_folder(&folder, (Kind::Float, libtorch::resolve(DeviceChoice::Auto)?))?;
    println!("{}: {} parameters", folder.display(), parameters.count());

    let hidden = tch::no_grad(|| libtorch::catch(|| model.forward(&Tensor::from_slice(&ids).unsqueeze(0))))??;
    println!(
        "ids {ids:?} become {:?} of mean size {:.4}",
        hidden.size(),
        hidden.abs().mean(Kind::Float).double_value(&[])
    );

    let table = model.token_embeddings();
    let similar = clip::cosine_similarity(&table.narrow(0, ids[0], 1), table)?;
    let (cosines, nearest) = similar.squeeze_dim(0).topk(6, -1, true, true);
    let (cosines, nearest) = (Vec::<f64>::try_from(cosines)?, Vec::<i64>::try_from(nearest)?);
    for (id, cosine) in nearest.iter().zip(cosines).skip(1) {
        println!("token {id} is near token {}: cosine {cosine:.3}", ids[0]);
    }
    Ok(())
}
