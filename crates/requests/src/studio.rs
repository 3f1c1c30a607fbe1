//! `studio`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::Args;
use options::DeviceChoice;
use serde::{Deserialize, Serialize};

/// Open a page on this machine to teach subjects and generate images, and an API that A1111's clients speak
///
/// The address that is printed has a token in it, which the browser then keeps; programs give it as the password of HTTP Basic
/// authentication. Jobs run one after another on each device, in processes of their own. Ctrl-C stops the studio: a training saves a
/// checkpoint, and the next `studio` on the same folder goes on with it.
#[derive(Args, Debug, Clone, Serialize, Deserialize)]
pub struct Studio {
    /// Folder of the runs, those made on the command line too; what else the studio keeps is in .studio within it
    #[arg(long, value_name = "FOLDER", default_value = "runs")]
    pub runs: PathBuf,
    /// Base model to offer beside those in the folder of models: a name, a folder or a .safetensors checkpoint; can be repeated
    #[arg(long = "model", value_name = "MODEL")]
    #[serde(default)]
    pub models: Vec<PathBuf>,
    /// Device to compute on: auto, cpu, cuda or cuda:N; can be repeated, for a job on each at a time
    #[arg(
        long = "device",
        value_name = "DEVICE",
        env = "ATTNDREAMBOOTH_DEVICE",
        hide_env_values = true,
        default_value = "auto"
    )]
    pub devices: Vec<DeviceChoice>,
    /// Address to listen on; another than this machine's own (127.0.0.1) lets in all who know the token, unencrypted
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub host: IpAddr,
    /// Port to listen on; 0 for any that is free
    #[arg(long, default_value_t = 7860)]
    pub port: u16,
    /// Open the page in the browser
    #[arg(long)]
    #[serde(default)]
    pub open: bool,
}

impl Studio {
    /// The studio of a folder of runs, with the command's defaults.
    pub fn new(runs: impl Into<PathBuf>) -> Self {
        Self {
            runs: runs.into(),
            models: Vec::new(),
            devices: vec![DeviceChoice::Auto],
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 7860,
            open: false,
        }
    }
}
