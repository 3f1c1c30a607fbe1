//! The text encoder's names in OpenCLIP, where the projections to queries, keys and values are one.

use super::Names;

/// What the names of diffusers' layers begin with.
pub const LAYERS: &str = "text_model.encoder.layers.";
/// What the names of OpenCLIP's begin with.
pub const BLOCKS: &str = "transformer.resblocks.";
/// The parts of `in_proj_*` from the top.
const PARTS: [&str; 3] = ["q_proj", "k_proj", "v_proj"];

/// OpenCLIP's name of each fused parameter, with diffusers' names of its parts.
pub fn projections(layers: usize) -> impl Iterator<Item = (String, [String; 3])> {
    let kinds = (0..layers).flat_map(|layer| ["weight", "bias"].map(|kind| (layer, kind)));
    kinds.map(|(layer, kind)| {
        let parts = PARTS.map(|part| format!("{LAYERS}{layer}.self_attn.{part}.{kind}"));
        (format!("{BLOCKS}{layer}.attn.in_proj_{kind}"), parts)
    })
}

/// The names of everything else.
pub fn table(layers: usize) -> Names {
    const LAYER: [(&str, &str); 5] = [
        ("layer_norm1", "ln_1"),
        ("layer_norm2", "ln_2"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
        ("self_attn.out_proj", "attn.out_proj"),
    ];
    let mut names = Names::default();
    names.add("text_model.embeddings.token_embedding", "token_embedding");
    names.add("text_model.embeddings.position_embedding.weight", "positional_embedding");
    names.add("text_model.final_layer_norm", "ln_final");
    for layer in 0..layers {
        names.add_all(&format!("{LAYERS}{layer}"), &format!("{BLOCKS}{layer}"), &LAYER);
    }
    names
}
