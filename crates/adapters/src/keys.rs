//! The names of tensors in LoRA files.

use std::collections::HashMap;

use weights::Parameters;

/// A network of Stable Diffusion that a LoRA may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Network {
    Unet,
    TextEncoder,
}

impl Network {
    pub(crate) const ALL: [Self; 2] = [Self::Unet, Self::TextEncoder];

    /// What kohya's keys begin with.
    pub(crate) fn kohya(self) -> &'static str {
        match self {
            Self::Unet => "lora_unet_",
            Self::TextEncoder => "lora_te_",
        }
    }

    /// What diffusers' keys begin with.
    pub(crate) fn diffusers(self) -> &'static str {
        match self {
            Self::Unet => "unet.",
            Self::TextEncoder => "text_encoder.",
        }
    }
}

/// What a tensor is of its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Down,
    Up,
    Alpha,
    Weight,
    Bias,
}

/// How keys end: kohya's, peft's and newer ComfyUI's, diffusers' of several years, full deltas.
const ENDINGS: [(&str, Part); 13] = [
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    (".lora_linear_layer.down.weight", Part::Down),
    (".lora_linear_layer.up.weight", Part::Up),
    (".alpha", Part::Alpha),
    (".diff", Part::Weight),
    (".diff_b", Part::Bias),
];

/// A key as the name of a layer and what the tensor is of it.
pub(crate) fn split(key: &str) -> Option<(&str, Part)> {
    ENDINGS.iter().find_map(|(ending, part)| Some((key.strip_suffix(ending)?, *part)))
}

/// The layers of a model by all names that files give them.
pub(crate) struct Layers(HashMap<String, (Network, String)>);

impl Layers {
    /// Those of a U-Net and a text encoder, whose parameters have their names in diffusers and transformers.
    pub(crate) fn new(unet: &Parameters, text_encoder: &Parameters) -> Self {
        let mut layers = HashMap::new();
        for (network, parameters) in Network::ALL.into_iter().zip([unet, text_encoder]) {
            for layer in parameters.iter().filter_map(|(name, _)| name.strip_suffix(".weight")) {
                // transformers 5 leaves out `text_model`.
                let full = match network {
                    Network::TextEncoder if !layer.starts_with("text_model.") => format!("text_model.{layer}"),
                    _ => layer.to_owned(),
                };
                let kohya = format!("{}{}", network.kohya(), full.replace('.', "_"));
                let names = [format!("{}{full}", network.diffusers()), kohya];
                // peft's and the earliest of diffusers' have no name for the network.
                let bare = [full.clone(), format!("base_model.model.{full}")];
                let bare = bare.into_iter().filter(|_| network == Network::Unet);
                layers.extend(names.into_iter().chain(bare).map(|name| (name, (network, full.clone()))));
            }
        }
        Self(layers)
    }

    /// The network, and the layer's name, of the text encoder's from `text_model` on.
    pub(crate) fn find(&self, name: &str) -> Option<&(Network, String)> {
        // As diffusers called the layers of attention processors.
        self.0.get(name).or_else(|| self.0.get(&name.replace(".processor.", ".")))
    }
}

/// What parts of keys say that a file is none of ours, and what it is then.
const FOREIGN: [(&[&str], &str); 4] = [
    (
        &["lora_te1_", "lora_te2_", "text_encoder_2.", "input_blocks_", "output_blocks_", "middle_block_"],
        "it is a LoRA for SDXL, but this model is Stable Diffusion 1.x or 2.x: use one that was trained for it",
    ),
    (
        &["double_blocks", "single_blocks", "joint_blocks", "lora_transformer_", "single_transformer_blocks"],
        "it is a LoRA for Flux, Stable Diffusion 3 or the like, but this model is Stable Diffusion 1.x or 2.x: use one that \
         was trained for it",
    ),
    (
        &["dora_scale", "lora_magnitude_vector"],
        "it is a DoRA, which is not read: merge it into a checkpoint with the program that made it",
    ),
    (
        &["hada_", "lokr_", "oft_", "lora_mid", "glora"],
        "it is a LyCORIS or OFT network, of which only LoRA is read: merge it into a checkpoint with the program that made it",
    ),
];

/// Why a key is none of ours, if that is known.
pub(crate) fn foreign(key: &str) -> Option<&'static str> {
    let found = FOREIGN.iter().find(|(parts, _)| parts.iter().any(|part| key.contains(part)));
    found.map(|(_, reason)| *reason)
}
