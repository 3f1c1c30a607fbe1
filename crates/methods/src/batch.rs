//! One batch.

use sampling::SizeConditioning;
use tch::Tensor;

/// One batch with all its randomness.
#[derive(Debug)]
pub struct Batch {
    /// The augmented crops' latents [batch, 4, h, w], f32, sampled and scaled; with prior preservation those of the subject come
    /// first, as many of the class noun follow.
    pub latents: Tensor,
    /// The noise to be predicted: [batch, 4, h, w], standard normal.
    pub noise: Tensor,
    /// One for each image: `[batch]`, int64 in 0..1000.
    pub timesteps: Tensor,
    /// How much the loss of the subject's samples counts where, [samples, 1, h, w] in 0..=1; none where it is 1 everywhere.
    pub mask: Option<Tensor>,
    /// The prompts of the subject's samples: one for all, or one for each.
    pub prompts: Vec<String>,
    /// Those of the class images, as many; none without prior preservation.
    pub class_prompts: Vec<String>,
    /// Of each sample the sizes of its photo and its crop. SDXL alone reads them; of other models there may be none.
    pub sizes: Vec<SizeConditioning>,
    /// The latents of another photo of each sample's subject, as `latents`; none where the model looks at none.
    pub references: Option<Tensor>,
    /// What the method draws for it: see [`Method::draw`](crate::Method::draw).
    pub drawn: Option<Tensor>,
}
