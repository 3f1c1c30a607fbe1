//! The networks of a model, and where the diffusers layout keeps them.

/// A network of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// The denoising network.
    Unet,
    /// The autoencoder.
    Vae,
    /// The text encoder.
    TextEncoder,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Unet, Self::Vae, Self::TextEncoder];

    /// Its folder in the diffusers layout.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Unet => "unet",
            Self::Vae => "vae",
            Self::TextEncoder => "text_encoder",
        }
    }

    /// The names that diffusers and transformers give the file of its weights.
    pub fn weights_file(self) -> &'static str {
        match self {
            Self::Unet | Self::Vae => "diffusion_pytorch_model.safetensors",
            Self::TextEncoder => "model.safetensors",
        }
    }
}
