//! `--device` and `--dtype`.

use anyhow::Result;
use clap::{Args, ValueEnum};
use libtorch::DeviceChoice;
use serde::Serialize;
use tch::{Device, Kind};

/// Where, and in which precision, to compute.
#[derive(Args, Debug, Clone, Serialize)]
pub(crate) struct ComputeArgs {
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value_t)]
    #[serde(serialize_with = "serialize_display")]
    pub(crate) device: DeviceChoice,
    /// Precision of weights and computation
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dtype: Dtype,
}

#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Dtype {
    #[default]
    Fp32,
    /// On a GPU several times as fast as fp32, with factors rounded to 10 bits of mantissa
    Tf32,
    Bf16,
    Fp16,
}

impl ComputeArgs {
    /// The kind and the device that models are to be made on.
    pub(crate) fn resolve(&self) -> Result<(Kind, Device)> {
        let device = self.device.resolve()?;
        libtorch::set_tf32(self.dtype == Dtype::Tf32)?;
        Ok((self.dtype.kind(), device))
    }
}

impl Dtype {
    /// LibTorch's name of it.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Fp32 | Self::Tf32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::Fp16 => Kind::Half,
        }
    }
}

fn serialize_display<S: serde::Serializer>(value: &impl std::fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}
