//! The block at the lowest resolution.

use layers::ResnetBlock2d;
use tch::Tensor;
use weights::Scope;

use crate::Config;
use crate::attention::Attention;
use crate::config::EPS;

/// diffusers' `UNetMidBlock2D`: a residual block, attention, a residual block.
#[derive(Debug)]
pub(crate) struct MidBlock {
    resnets: [ResnetBlock2d; 2],
    attention: Option<Attention>,
}

impl MidBlock {
    pub(crate) fn new(vs: &Scope, channels: i64, config: &Config) -> Self {
        let attention = || Attention::new(&(vs / "attentions" / 0), channels, config.norm_num_groups, EPS);
        Self {
            resnets: [0, 1].map(|i| ResnetBlock2d::new(&(vs / "resnets" / i), channels, channels, &config.resnets())),
            attention: config.mid_block_add_attention.then(attention),
        }
    }

    /// Maps [batch, channels, height, width] to the same shape.
    pub(crate) fn forward(&self, xs: &Tensor) -> Tensor {
        let mut hidden = self.resnets[0].forward(xs, None);
        if let Some(attention) = &self.attention {
            hidden = attention.forward(&hidden);
        }
        self.resnets[1].forward(&hidden, None)
    }
}
