//! The networks of a model, and where the diffusers layout keeps them.

/// A network of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// The denoising network.
    Unet,
    /// The autoencoder.
    Vae,
    /// The text encoder; of SDXL the first one.
    TextEncoder,
    /// SDXL's second text encoder.
    TextEncoder2,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unet, Self::Vae, Self::TextEncoder, Self::TextEncoder2];

    /// Those of a model that is SDXL or not.
    pub(crate) fn of(sdxl: bool) -> &'static [Self] {
        if sdxl { &Self::ALL } else { &Self::ALL[..3] }
    }

    /// Its folder in the diffusers layout.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Unet => "unet",
            Self::Vae => "vae",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
        }
    }

    /// The names that diffusers and transformers give the file of its weights.
    pub fn weights_file(self) -> &'static str {
        match self {
            Self::Unet | Self::Vae => "diffusion_pytorch_model.safetensors",
            Self::TextEncoder | Self::TextEncoder2 => "model.safetensors",
        }
    }
}
