//! The U-Net's names. diffusers has blocks of lists; LDM has three flat lists in which every residual block, with the
//! attention after it, and every change of size counts as one.

use super::{Names, count_after};

/// The table for a U-Net with these parameters in diffusers' naming.
pub fn of_diffusers(names: &[&str]) -> Names {
    let layers = count_after(names, "down_blocks.0.resnets.");
    let attends = |block| names.iter().any(|name| name.starts_with(&format!("up_blocks.{block}.attentions.")));
    table(layers, (0..count_after(names, "down_blocks.")).map(attends))
}

/// The table for a U-Net with these parameters in LDM's naming.
pub fn of_ldm(names: &[&str]) -> Names {
    let inputs = count_after(names, "input_blocks.");
    // The first change of size follows on conv_in and the first block's layers.
    let is_downsampler = |i: &usize| names.contains(&format!("input_blocks.{i}.0.op.weight").as_str());
    let layers = (0..inputs).find(is_downsampler).unwrap_or(inputs).saturating_sub(1);
    let attends = |block: usize| {
        let prefix = format!("output_blocks.{}.1.transformer_blocks.", (layers + 1) * block);
        names.iter().any(|name| name.starts_with(&prefix))
    };
    table(layers, (0..inputs / (layers + 1)).map(attends))
}

const RESNET: [(&str, &str); 6] = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

/// For blocks of so many layers (one more on the way up), given whether each block on the way up has attention.
pub fn table(layers: usize, up_attends: impl Iterator<Item = bool>) -> Names {
    let mut names = Names::default();
    names.add("conv_in", "input_blocks.0.0");
    names.add("time_embedding.linear_1", "time_embed.0");
    names.add("time_embedding.linear_2", "time_embed.2");
    // Of SDXL alone.
    names.add("add_embedding.linear_1", "label_emb.0.0");
    names.add("add_embedding.linear_2", "label_emb.0.2");
    for (block, up_attends) in up_attends.enumerate() {
        let down = format!("down_blocks.{block}");
        for layer in 0..layers {
            let input = format!("input_blocks.{}", 1 + (layers + 1) * block + layer);
            names.add_all(&format!("{down}.resnets.{layer}"), &format!("{input}.0"), &RESNET);
            names.add(format!("{down}.attentions.{layer}"), format!("{input}.1"));
        }
        let input = format!("input_blocks.{}", (layers + 1) * (block + 1));
        names.add(format!("{down}.downsamplers.0.conv"), format!("{input}.0.op"));

        let up = format!("up_blocks.{block}");
        for layer in 0..=layers {
            let output = format!("output_blocks.{}", (layers + 1) * block + layer);
            names.add_all(&format!("{up}.resnets.{layer}"), &format!("{output}.0"), &RESNET);
            names.add(format!("{up}.attentions.{layer}"), format!("{output}.1"));
        }
        let output = format!("output_blocks.{}", (layers + 1) * block + layers);
        // After the residual block and the attention.
        let place = if up_attends { 2 } else { 1 };
        names.add(format!("{up}.upsamplers.0.conv"), format!("{output}.{place}.conv"));
    }
    names.add_all("mid_block.resnets.0", "middle_block.0", &RESNET);
    names.add("mid_block.attentions.0", "middle_block.1");
    names.add_all("mid_block.resnets.1", "middle_block.2", &RESNET);
    names.add("conv_norm_out", "out.0");
    names.add("conv_out", "out.2");
    names
}
