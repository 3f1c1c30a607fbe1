//! The text encoder.

use std::path::Path;

use anyhow::{Result, ensure};
use layers::LayerNorm;
use tch::{Device, Kind, Tensor};
use weights::{Archive, Init, Parameters, Scope};

use crate::TextConfig;
use crate::encoder::Encoder;
use crate::folder;

/// What configs said before transformers 4.31, whichever tokenizer they belonged to.
const LEGACY_EOS: i64 = 2;

/// Tokens beyond the table's.
#[derive(Debug)]
struct ExtraTokens {
    /// [tokens, width], of which this model reads `hidden_size` columns.
    rows: Tensor,
    first_column: i64,
}

/// CLIP's text encoder (`CLIPTextModel`): token ids or their embeddings become hidden states.
#[derive(Debug)]
pub struct ClipTextModel {
    config: TextConfig,
    token_embedding: Tensor,
    extra_tokens: Vec<ExtraTokens>,
    position_embedding: Tensor,
    encoder: Encoder,
    final_layer_norm: LayerNorm,
}

impl ClipTextModel {
    /// Takes the parameters below `text_model` or, as transformers 5 writes them, directly below `vs`.
    ///
    /// # Errors
    /// When `config` describes no model.
    pub fn new(vs: &Scope, config: &TextConfig) -> Result<Self> {
        config.validate()?;
        let bare = vs.contains("embeddings.token_embedding.weight");
        let vs = if bare { vs.clone() } else { vs / "text_model" };
        let embeddings = &vs / "embeddings";
        // A buffer in older files: 0, 1, 2, ...
        embeddings.ignore("position_ids");
        let (dim, init) = (config.hidden_size, Init::Normal(0.02));
        Ok(Self {
            token_embedding: embeddings.get("token_embedding.weight", &[config.vocab_size, dim], init),
            extra_tokens: Vec::new(),
            position_embedding: embeddings.get(
                "position_embedding.weight",
                &[config.max_position_embeddings, dim],
                init,
            ),
            encoder: Encoder::new(&(&vs / "encoder"), &config.geometry(), true),
            final_layer_norm: LayerNorm::new(&(&vs / "final_layer_norm"), dim, config.layer_norm_eps),
            config: config.clone(),
        })
    }

    /// Reads a folder such as `text_encoder/` of a diffusers model: config.json and the weights beside it.
    ///
    /// # Errors
    /// When a file cannot be read, or describes another kind of model, or the weights do not fit the config.
    pub fn from_folder(folder: &Path, to: (Kind, Device)) -> Result<(Self, Parameters)> {
        let config: TextConfig = folder::read_config(folder, "clip_text_model")?;
        folder::in_config(folder, config.validate())?;
        weights::build(&Archive::open_folder(folder)?, to, |vs| {
            for name in ["logit_scale", "text_projection", "vision_model", "visual_projection"] {
                vs.ignore(name);
            }
            Self::new(vs, &config)
        })
    }

    /// Says how many of the table's rows are those of tokens, from the first on: fewer than `vocab_size` where the table was
    /// padded to a round number. The rest is not used, and added tokens take their ids.
    ///
    /// # Errors
    /// When there are more tokens than rows, or none.
    pub fn set_tokens(&mut self, tokens: i64) -> Result<()> {
        let rows = self.token_embedding.size()[0];
        ensure!(
            (1..=rows).contains(&tokens),
            "the tokenizer has {tokens} tokens, but the text encoder knows {rows}; use the tokenizer of the same model"
        );
        if tokens < rows {
            self.token_embedding = self.token_embedding.narrow(0, 0, tokens);
        }
        Ok(())
    }

    /// Adds tokens with these embeddings, [n, hidden_size], in place of any added before: the ids after those of the
    /// model's own tokens, from `vocab_size` on unless [`ClipTextModel::set_tokens`] says otherwise, stand for the rows.
    ///
    /// They stay a tensor of their own and are converted on use, so they may be f32 parameters that
    /// receive gradients through [`ClipTextModel::forward`] while the model is frozen and of another dtype.
    ///
    /// # Errors
    /// When the rows have another width than the model.
    pub fn with_extra_tokens(mut self, rows: &Tensor) -> Result<Self> {
        self.set_extra_tokens(rows)?;
        Ok(self)
    }

    /// The same in place; rows that were added before are replaced.
    ///
    /// # Errors
    /// As [`ClipTextModel::with_extra_tokens`].
    pub fn set_extra_tokens(&mut self, rows: &Tensor) -> Result<()> {
        self.check_extra_tokens(rows)?;
        self.remove_extra_tokens();
        self.add_extra_tokens(rows)
    }

    /// Takes away all tokens that were added.
    pub fn remove_extra_tokens(&mut self) {
        self.extra_tokens.clear();
    }

    /// The same beside those that were added before, whose ids the new ones follow.
    ///
    /// # Errors
    /// As [`ClipTextModel::with_extra_tokens`].
    pub fn add_extra_tokens(&mut self, rows: &Tensor) -> Result<()> {
        self.check_extra_tokens(rows)?;
        self.add_extra_columns(rows, 0)
    }

    /// The same of a part of the columns of `rows` [n, width], those from `first_column` on: the others are another text encoder's.
    ///
    /// # Errors
    /// When there are too few columns.
    pub fn add_extra_columns(&mut self, rows: &Tensor, first_column: i64) -> Result<()> {
        let (size, width) = (rows.size(), self.config.hidden_size);
        ensure!(
            size.len() == 2 && first_column >= 0 && first_column + width <= size[1],
            "embeddings of new tokens have shape {size:?}, but this text encoder needs [tokens, {width} or more], from column \
             {first_column} on"
        );
        let rows = rows.to_device(self.token_embedding.device());
        self.extra_tokens.push(ExtraTokens { rows, first_column });
        Ok(())
    }

    /// Whether rows can be added.
    ///
    /// # Errors
    /// As [`ClipTextModel::with_extra_tokens`].
    pub fn check_extra_tokens(&self, rows: &Tensor) -> Result<()> {
        ensure!(
            rows.dim() == 2 && rows.size()[1] == self.config.hidden_size,
            "embeddings of new tokens have shape {:?}, but this text encoder needs [tokens, {}]; use embeddings that \
             were learned for the same model",
            rows.size(),
            self.config.hidden_size
        );
        Ok(())
    }

    /// The config that the model was made from.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// The embeddings of all tokens, [tokens, hidden_size], without those that were added; see
    /// [`ClipTextModel::set_tokens`].
    pub fn token_embeddings(&self) -> &Tensor {
        &self.token_embedding
    }

    /// The token embeddings [batch, n, hidden_size] of `ids` [batch, n], in the parameters' dtype, without the
    /// positions' embeddings.
    ///
    /// `ids` are integers, best left on the CPU, where checking them waits for nothing.
    ///
    /// # Errors
    /// When an id is not in the vocabulary or there are more ids than positions.
    pub fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        self.check_ids(ids)?;
        let table = &self.token_embedding;
        let ids = libtorch::upload(&ids.to_kind(Kind::Int64), table.device());
        // On use, so that they may be trained.
        let of = |extra: &ExtraTokens| {
            extra.rows.narrow(1, extra.first_column, self.config.hidden_size).to_kind(table.kind())
        };
        let extra = match &self.extra_tokens[..] {
            [] => return Ok(embedding(table, &ids)),
            [one] => of(one),
            several => Tensor::cat(&several.iter().map(of).collect::<Vec<_>>(), 0),
        };
        let size = table.size()[0];
        let known = embedding(table, &ids.clamp_max(size - 1));
        let added = embedding(&extra, &(&ids - size).clamp_min(0));
        Ok(known.where_self(&ids.lt(size).unsqueeze(-1), &added))
    }

    /// The last hidden state [batch, n, hidden_size], after the final norm, of `ids` [batch, n] (n is 77 in Stable
    /// Diffusion, padding included and not masked).
    ///
    /// # Errors
    /// As [`ClipTextModel::embed`].
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let _span = tracing::trace_span!("text_encoder").entered();
        self.forward_embeddings(&self.embed(ids)?)
    }

    /// What [`ClipTextModel::forward`] gives without the last `clip_skip` layers, but with the final norm: diffusers'
    /// `clip_skip`.
    ///
    /// # Errors
    /// As [`ClipTextModel::embed`], and when there are fewer layers.
    pub fn forward_skipping(&self, ids: &Tensor, clip_skip: usize) -> Result<Tensor> {
        Ok(self.final_layer_norm.forward(&self.hidden_state(ids, clip_skip)?))
    }

    /// The hidden state [batch, n, hidden_size] before the last `clip_skip` layers and without the final norm, that is
    /// transformers' `hidden_states[-1 - clip_skip]`; the penultimate one for a `clip_skip` of 1.
    ///
    /// # Errors
    /// As [`ClipTextModel::embed`], and when there are fewer layers.
    pub fn hidden_state(&self, ids: &Tensor, clip_skip: usize) -> Result<Tensor> {
        let _span = tracing::trace_span!("text_encoder").entered();
        self.encode(&self.embed(ids)?, clip_skip)
    }

    /// What [`ClipTextModel::forward`] gives for token embeddings [batch, n, hidden_size], rows of which may be replaced. Their
    /// dtype is what the model computes in.
    ///
    /// # Errors
    /// When the embeddings have another width than the model or there are more than positions.
    pub fn forward_embeddings(&self, token_embeddings: &Tensor) -> Result<Tensor> {
        Ok(self.final_layer_norm(&self.encode(token_embeddings, 0)?))
    }

    /// The final norm over [..., hidden_size].
    pub fn final_layer_norm(&self, hidden_state: &Tensor) -> Tensor {
        self.final_layer_norm.forward(hidden_state)
    }

    /// What [`ClipTextModel::hidden_state`] gives for token embeddings [batch, n, hidden_size], whose dtype is what the model
    /// computes in.
    ///
    /// # Errors
    /// As [`ClipTextModel::forward_embeddings`], and when there are fewer layers.
    pub fn encode(&self, token_embeddings: &Tensor, clip_skip: usize) -> Result<Tensor> {
        self.check_depth(clip_skip)?;
        let (size, width) = (token_embeddings.size(), self.config.hidden_size);
        ensure!(size.len() == 3, "token embeddings have shape {size:?} instead of [batch, positions, {width}]");
        ensure!(
            size[2] == width,
            "token embeddings have width {}, but this text encoder's hidden_size is {width}; use embeddings that were \
             made for the same model",
            size[2]
        );
        self.check_positions(size[1])?;
        let positions = self.position_embedding.narrow(0, 0, size[1]).to_kind(token_embeddings.kind());
        Ok(self.encoder.forward(&(token_embeddings + positions), clip_skip))
    }

    /// The last hidden state, after the final norm, of a [`ClipTextModel::hidden_state`] before the last `clip_skip` layers.
    ///
    /// # Errors
    /// When there are fewer layers.
    pub fn forward_rest(&self, hidden_state: &Tensor, clip_skip: usize) -> Result<Tensor> {
        self.check_depth(clip_skip)?;
        Ok(self.final_layer_norm.forward(&self.encoder.forward_rest(hidden_state, clip_skip)))
    }

    fn check_depth(&self, clip_skip: usize) -> Result<()> {
        let layers = self.encoder.depth();
        ensure!(clip_skip <= layers, "clip_skip is {clip_skip}, but this text encoder has {layers} layers");
        Ok(())
    }

    /// What stands for each text as a whole, [batch, hidden_size]: the hidden state (of [`ClipTextModel::forward`])
    /// at the first `eos_token_id`, or at the largest id where the config has the legacy value 2. Added tokens never
    /// count as the largest.
    ///
    /// # Errors
    /// When the shapes do not belong together or a text has no end.
    pub fn pooled(&self, last_hidden_state: &Tensor, ids: &Tensor) -> Result<Tensor> {
        let size = last_hidden_state.size();
        ensure!(
            size.len() == 3 && ids.size() == size[..2] && size[2] == self.config.hidden_size,
            "hidden states of shape {size:?} and ids of shape {:?} do not belong together: expected [batch, n, {}] and \
             [batch, n]",
            ids.size(),
            self.config.hidden_size
        );
        let eos = self.config.eos_token_id;
        let score = if eos == LEGACY_EOS {
            ids * ids.lt(self.token_embedding.size()[0])
        } else {
            let ends = ids.eq(eos);
            ensure!(
                bool::try_from(ends.any_dim(1, false).all())?,
                "a text has no end-of-text token {eos} (eos_token_id in the config); use the tokenizer of the same model"
            );
            ends.to_kind(Kind::Int)
        };
        // Of equal values, the first counts.
        let ends = score.argmax(1, false).to_device(last_hidden_state.device());
        let index = ends.reshape([-1, 1, 1]).expand([-1, 1, size[2]], false);
        Ok(last_hidden_state.gather(1, &index, false).squeeze_dim(1))
    }

    fn check_ids(&self, ids: &Tensor) -> Result<()> {
        ensure!(
            matches!(ids.kind(), Kind::Int64 | Kind::Int) && ids.dim() == 2 && ids.numel() > 0,
            "token ids are {:?} of shape {:?} instead of integers of shape [batch, positions]",
            ids.kind(),
            ids.size()
        );
        self.check_positions(ids.size()[1])?;
        let added: i64 = self.extra_tokens.iter().map(|extra| extra.rows.size()[0]).sum();
        let known = self.token_embedding.size()[0] + added;
        for id in [i64::try_from(ids.min())?, i64::try_from(ids.max())?] {
            ensure!(
                (0..known).contains(&id),
                "token id {id} is not in this text encoder's vocabulary of {known} tokens ({added} of them added); use \
                 the tokenizer of the same model and add the embeddings of all new tokens"
            );
        }
        Ok(())
    }

    fn check_positions(&self, positions: i64) -> Result<()> {
        ensure!(
            (1..=self.config.max_position_embeddings).contains(&positions),
            "{positions} tokens do not fit this text encoder, which has {} positions; shorten the text",
            self.config.max_position_embeddings
        );
        Ok(())
    }
}

fn embedding(table: &Tensor, ids: &Tensor) -> Tensor {
    Tensor::embedding(table, ids, -1, false, false)
}
