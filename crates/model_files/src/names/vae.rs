//! The VAE's names. LDM counts the decoder's blocks from the image inwards, diffusers from the latents outwards.

use super::{Names, count_after};

/// diffusers' present names of the attention's parts and those before version 0.15, which the published files have.
const RENAMED: [(&str, &str); 4] = [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")];

/// The present name of a parameter that may have an older one.
pub fn present_name(name: &str) -> String {
    if let Some((module, part)) = name.split_once(".attentions.0.") {
        for (old, new) in RENAMED {
            if let Some(rest) = part.strip_prefix(old).filter(|rest| rest.starts_with('.')) {
                return format!("{module}.attentions.0.{new}{rest}");
            }
        }
    }
    name.to_owned()
}

/// Whether LDM keeps this weight, a matrix in diffusers, as a 1 × 1 convolution: LDM's name of it.
pub fn is_convolution(ldm: &str) -> bool {
    ["q", "k", "v", "proj_out"].iter().any(|part| ldm.ends_with(&format!(".mid.attn_1.{part}.weight")))
}

/// The table for a VAE with these parameters in diffusers' naming.
pub fn of_diffusers(names: &[&str]) -> Names {
    table(count_after(names, "encoder.down_blocks."), count_after(names, "encoder.down_blocks.0.resnets."))
}

/// The table for a VAE with these parameters in LDM's naming.
pub fn of_ldm(names: &[&str]) -> Names {
    table(count_after(names, "encoder.down."), count_after(names, "encoder.down.0.block."))
}

const RESNET: [(&str, &str); 5] =
    [("norm1", "norm1"), ("conv1", "conv1"), ("norm2", "norm2"), ("conv2", "conv2"), ("conv_shortcut", "nin_shortcut")];
const ATTENTION: [(&str, &str); 5] =
    [("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")];

/// For so many blocks of so many layers (one more in the decoder).
pub fn table(blocks: usize, layers: usize) -> Names {
    let mut names = Names::default();
    names.add("quant_conv", "quant_conv");
    names.add("post_quant_conv", "post_quant_conv");
    for half in ["encoder", "decoder"] {
        names.add_all(half, half, &[("conv_in", "conv_in"), ("conv_norm_out", "norm_out"), ("conv_out", "conv_out")]);
        names.add_all(&format!("{half}.mid_block.resnets.0"), &format!("{half}.mid.block_1"), &RESNET);
        names.add_all(&format!("{half}.mid_block.attentions.0"), &format!("{half}.mid.attn_1"), &ATTENTION);
        names.add_all(&format!("{half}.mid_block.resnets.1"), &format!("{half}.mid.block_2"), &RESNET);
    }
    for block in 0..blocks {
        let (down, ldm_down) = (format!("encoder.down_blocks.{block}"), format!("encoder.down.{block}"));
        for layer in 0..layers {
            names.add_all(&format!("{down}.resnets.{layer}"), &format!("{ldm_down}.block.{layer}"), &RESNET);
        }
        names.add(format!("{down}.downsamplers.0.conv"), format!("{ldm_down}.downsample.conv"));

        let (up, ldm_up) = (format!("decoder.up_blocks.{block}"), format!("decoder.up.{}", blocks - 1 - block));
        for layer in 0..=layers {
            names.add_all(&format!("{up}.resnets.{layer}"), &format!("{ldm_up}.block.{layer}"), &RESNET);
        }
        names.add(format!("{up}.upsamplers.0.conv"), format!("{ldm_up}.upsample.conv"));
    }
    names
}
