//! The names of tensors in LoRA files.

use std::collections::HashMap;

use model_files::names::Names;
use model_files::names::unet::of_diffusers;
use weights::Parameters;

/// A network of Stable Diffusion that a LoRA may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Network {
    Unet,
    TextEncoder,
    /// Of SDXL alone.
    TextEncoder2,
}

impl Network {
    pub(crate) const ALL: [Self; 3] = [Self::Unet, Self::TextEncoder, Self::TextEncoder2];

    /// What kohya's keys begin with.
    pub(crate) fn kohya(self, sdxl: bool) -> &'static str {
        match self {
            Self::Unet => "lora_unet_",
            Self::TextEncoder if sdxl => "lora_te1_",
            Self::TextEncoder => "lora_te_",
            Self::TextEncoder2 => "lora_te2_",
        }
    }

    /// What it is called in messages.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Unet => "U-Net",
            Self::TextEncoder => "text encoder",
            Self::TextEncoder2 => "second text encoder",
        }
    }

    /// What diffusers' keys begin with.
    pub(crate) fn diffusers(self) -> &'static str {
        match self {
            Self::Unet => "unet.",
            Self::TextEncoder => "text_encoder.",
            Self::TextEncoder2 => "text_encoder_2.",
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

/// The networks that a file is for, by their parameters, which have their names in diffusers and transformers.
#[derive(Debug, Clone, Copy)]
pub struct Networks<'a> {
    /// The U-Net's.
    pub unet: &'a Parameters,
    /// The text encoder's.
    pub text_encoder: &'a Parameters,
    /// Those of the second one, which SDXL alone has.
    pub text_encoder_2: Option<&'a Parameters>,
}

impl<'a> Networks<'a> {
    pub(crate) fn is_sdxl(self) -> bool {
        self.text_encoder_2.is_some()
    }

    pub(crate) fn get(self, network: Network) -> Option<&'a Parameters> {
        match network {
            Network::Unet => Some(self.unet),
            Network::TextEncoder => Some(self.text_encoder),
            Network::TextEncoder2 => self.text_encoder_2,
        }
    }
}

/// The original code's names of a U-Net's layers, which kohya's keys have for SDXL.
pub(crate) fn original_names<'a>(parameters: impl Iterator<Item = &'a str>) -> Names {
    of_diffusers(&parameters.collect::<Vec<_>>())
}

impl Layers {
    /// Those of some networks.
    pub(crate) fn new(networks: Networks<'_>) -> Self {
        let mut layers = HashMap::new();
        let sdxl = networks.is_sdxl();
        let original = sdxl.then(|| original_names(networks.unet.iter().map(|(name, _)| name)));
        let there = Network::ALL.into_iter().filter_map(|network| Some((network, networks.get(network)?)));
        for (network, parameters) in there {
            for layer in parameters.iter().filter_map(|(name, _)| name.strip_suffix(".weight")) {
                // transformers 5 leaves out `text_model`.
                let full = match network {
                    Network::TextEncoder | Network::TextEncoder2 if is_inner(layer) => format!("text_model.{layer}"),
                    _ => layer.to_owned(),
                };
                let kohya = |name: &str| format!("{}{}", network.kohya(sdxl), name.replace('.', "_"));
                let names = [format!("{}{full}", network.diffusers()), kohya(&full)];
                let original = original.as_ref().filter(|_| network == Network::Unet);
                let original = original.and_then(|names| names.to_ldm(&full)).map(|name| kohya(&name));
                // peft's and the earliest of diffusers' have no name for the network.
                let bare = [full.clone(), format!("base_model.model.{full}")];
                let bare = bare.into_iter().filter(|_| network == Network::Unet);
                let all = names.into_iter().chain(bare).chain(original);
                layers.extend(all.map(|name| (name, (network, full.clone()))));
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

/// Whether a text encoder's layer has lost the first part of its name.
fn is_inner(layer: &str) -> bool {
    !layer.starts_with("text_model.") && layer != "text_projection"
}

/// What parts of keys say that a file is for another model, which is SDXL or is not.
const OTHER: [(bool, &[&str], &str); 2] = [
    (
        false,
        &["lora_te1_", "lora_te2_", "text_encoder_2.", "input_blocks_", "output_blocks_", "middle_block_"],
        "it is a LoRA for SDXL, but this model is Stable Diffusion 1.x or 2.x: use one that was trained for it",
    ),
    (
        true,
        &["lora_te_", "down_blocks_0_attentions_", "down_blocks.0.attentions.", "up_blocks_3_", "up_blocks.3."],
        "it is a LoRA for Stable Diffusion 1.x or 2.x, but this model is SDXL: use one that was trained for it",
    ),
];

/// What parts of keys say that a file is none of ours, and what it is then.
const FOREIGN: [(&[&str], &str); 3] = [
    (
        &["double_blocks", "single_blocks", "joint_blocks", "lora_transformer_", "single_transformer_blocks"],
        "it is a LoRA for Flux, Stable Diffusion 3 or the like, but this model is Stable Diffusion: use one that was trained for it",
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

/// Why a key is none of a model's, which is SDXL or is not, if that is known.
pub(crate) fn foreign(key: &str, sdxl: bool) -> Option<&'static str> {
    let other = OTHER.iter().filter(|(of_sdxl, ..)| *of_sdxl == sdxl).map(|(_, parts, reason)| (parts, reason));
    let mut known = other.chain(FOREIGN.iter().map(|(parts, reason)| (parts, reason)));
    known.find(|(parts, _)| parts.iter().any(|part| key.contains(part))).map(|(_, reason)| *reason)
}
