//! peft's folder of an adapter: `adapter_config.json` and `adapter_model.safetensors`.

use std::path::Path;

use anyhow::{Result, ensure};
use options::Adapter;
use serde::Deserialize;
use serde_json::json;
use tch::Tensor;
use weights::{Archive, Tensors};

use crate::Adapters;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What peft puts before a parameter's name.
const PREFIX: &str = "base_model.model.";

/// The part of peft's `OFTConfig` that says what the numbers mean.
#[derive(Deserialize)]
struct Config {
    peft_type: String,
    #[serde(default)]
    r: u32,
    #[serde(default)]
    oft_block_size: u32,
    #[serde(default)]
    coft: bool,
    eps: Option<f64>,
    #[serde(default)]
    block_share: bool,
    /// peft's default is true, and older versions, which do not write it, knew nothing else.
    #[serde(default)]
    use_cayley_neumann: bool,
}

/// Reads an OFT folder of peft: what to install, and what to [`Adapters::load`] into it.
///
/// peft has one eps for layers of all widths, and does not multiply it by the square of the block's size: what it has
/// learned is read as it is, and `constraint` is that eps.
///
/// # Errors
/// When a file is missing or damaged, or holds an adapter of another kind; names the folder and the value.
pub fn read_oft(folder: &Path) -> Result<(Adapter, Tensors)> {
    let shown = folder.display();
    let config: Config = json::read(&folder.join(CONFIG), "peft's configuration of an adapter")?;
    ensure!(
        config.peft_type == "OFT",
        "{shown} holds an adapter of the type {}, but only OFT is read",
        config.peft_type
    );
    ensure!(
        !config.use_cayley_neumann,
        "{shown} was learned with use_cayley_neumann, which approximates rotations and turns the other way: learn it with \
         use_cayley_neumann=False"
    );
    ensure!(!config.block_share, "{shown} was learned with block_share, which is not read: learn it without");
    ensure!(
        config.r > 0 && config.oft_block_size == 0,
        "{shown} was learned with blocks of {} numbers, but only a number of blocks is read: learn it with r=4 and \
         oft_block_size=0",
        config.oft_block_size
    );
    let tensors = Archive::open(&folder.join(WEIGHTS))?.tensors()?;
    let plain = |(name, tensor): (String, Tensor)| (name.strip_prefix(PREFIX).unwrap_or(&name).to_owned(), tensor);
    let constraint = config.eps.filter(|_| config.coft);
    Ok((Adapter::Oft { blocks: config.r, constraint }, tensors.into_iter().map(plain).collect()))
}

/// Writes what OFT has learned as a folder of peft, whose `PeftModel.from_pretrained(unet, folder)` computes the same.
///
/// COFT's constraint is not written: what was learned keeps to it already, and peft, with one bound for all widths,
/// would shorten it further. To go on training with peft, give each width its own `eps`, the constraint times the
/// square of the block's size.
///
/// # Errors
/// When the adapters are no OFT, or a file cannot be written.
pub fn write_oft(folder: &Path, adapters: &Adapters) -> Result<()> {
    let Adapter::Oft { blocks, .. } = adapters.config() else {
        anyhow::bail!("only OFT is written as peft's folder: a LoRA has files of its own");
    };
    let config = json!({
        "peft_type": "OFT", "r": blocks, "oft_block_size": 0, "target_modules": ["to_k", "to_out.0", "to_q", "to_v"],
        "bias": "none", "coft": false, "block_share": false, "use_cayley_neumann": false, "module_dropout": 0.0,
        "inference_mode": true,
    });
    let parameters = adapters.parameters();
    let tensors = parameters.iter().map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor.detach()));
    atomic::new_folder(folder, |folder| {
        weights::save(&folder.join(WEIGHTS), tensors)?;
        atomic::write(&folder.join(CONFIG), serde_json::to_vec_pretty(&config)?)
    })
}
