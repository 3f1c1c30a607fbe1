//! The families of Stable Diffusion models.

use std::path::Path;

use anyhow::{Result, bail};
use model_files::names::{CLIP, OPEN_CLIP, SDXL_CLIP};

/// Which text encoder a model has, and so which layout its single file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Stable Diffusion 1.x: CLIP ViT-L/14.
    V1,
    /// Stable Diffusion 2.x: OpenCLIP ViT-H/14 without its last layer.
    V2,
    /// SDXL: CLIP ViT-L/14 and OpenCLIP ViT-bigG/14, both without their last layers.
    Sdxl,
}

impl Family {
    /// By the `hidden_act` of the text encoder's config.
    pub(crate) fn of_activation(hidden_act: Option<&str>, model: &Path) -> Result<Self> {
        match hidden_act {
            None | Some("quick_gelu") => Ok(Self::V1),
            Some("gelu") => Ok(Self::V2),
            Some(other) => bail!(
                "the text encoder in {} has hidden_act {other:?}, but that of Stable Diffusion 1.x has \"quick_gelu\" and \
                 that of 2.x \"gelu\"; no other has a single-file layout",
                model.display()
            ),
        }
    }

    /// The prefix of the text encoder's names in a single file; of SDXL the first one's.
    pub(crate) fn text_prefix(self) -> &'static str {
        match self {
            Self::V1 => CLIP,
            Self::V2 => OPEN_CLIP,
            Self::Sdxl => SDXL_CLIP,
        }
    }
}
