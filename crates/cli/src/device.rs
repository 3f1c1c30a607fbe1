//! `--device` and `--dtype`.

use anyhow::Result;
use clap::Args;
use options::{DeviceChoice, Dtype};
use serde::Serialize;
use tch::{Device, Kind};

/// Where, and in which precision, to compute.
#[derive(Args, Debug, Clone, Serialize)]
pub(crate) struct ComputeArgs {
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceChoice,
    /// Precision of weights and computation
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dtype: Dtype,
}

impl ComputeArgs {
    /// The kind and the device that models are to be made on.
    pub(crate) fn resolve(&self) -> Result<(Kind, Device)> {
        let device = libtorch::resolve(self.device)?;
        libtorch::set_tf32(self.dtype == Dtype::Tf32)?;
        Ok((libtorch::kind(self.dtype), device))
    }
}
