//! The whole model.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use layers::{Activation, AdapterSlot, Conv2d, GroupNorm, LinearAdapter};
use tch::{Device, Kind, Tensor};
use weights::{Archive, Parameters, Scope};

use crate::Config;
use crate::attention::KvCache;
use crate::blocks::{DownBlock, MidBlock, UpBlock};
use crate::embeddings::{AddedConditions, AddedEmbedding, TimeEmbedding};
use crate::insertion::{Hooks, TransformerPlace};
use crate::layer::{Layer, Pass};
use crate::observer::{AttentionObserver, Watch};
use crate::sites::{LinearSite, Visit};

/// The denoising network; diffusers' `UNet2DConditionModel`.
#[doc(alias = "UNet2DConditionModel")]
#[derive(Debug)]
pub struct UNet {
    config: Config,
    conv_in: Conv2d,
    time_embedding: TimeEmbedding,
    add_embedding: Option<AddedEmbedding>,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    cross_attention_layers: Vec<String>,
    gradient_checkpointing: bool,
}

impl UNet {
    /// Takes the parameters from `vs`; see [`weights::build`].
    ///
    /// # Errors
    /// What [`Config::validate`] finds.
    pub fn new(vs: &Scope, config: &Config) -> Result<Self> {
        config.validate()?;
        let blocks = config.block_out_channels.len();
        let channels = config.block_out_channels[0];
        let mut unet = Self {
            conv_in: Conv2d::new(&(vs / "conv_in"), config.in_channels, channels, 3),
            time_embedding: TimeEmbedding::new(&(vs / "time_embedding"), config),
            add_embedding: AddedEmbedding::new(&(vs / "add_embedding"), config),
            down_blocks: (0..blocks).map(|i| DownBlock::new(&(vs / "down_blocks" / i), i, config)).collect(),
            mid_block: MidBlock::new(&(vs / "mid_block"), config),
            up_blocks: (0..blocks).map(|i| UpBlock::new(&(vs / "up_blocks" / i), i, config)).collect(),
            conv_norm_out: GroupNorm::new(&(vs / "conv_norm_out"), config.norm_num_groups, channels, config.norm_eps),
            conv_out: Conv2d::new(&(vs / "conv_out"), channels, config.out_channels, 3),
            cross_attention_layers: Vec::new(),
            config: config.clone(),
            gradient_checkpointing: false,
        };
        unet.cross_attention_layers = unet.layers().flat_map(Layer::cross_attention).cloned().collect();
        Ok(unet)
    }

    /// Loads a `unet` folder of a diffusers model, `config.json` and weights, as parameters of the dtype and on the device `to`.
    ///
    /// # Errors
    /// Names the file, and the config's key or all tensors that do not fit.
    pub fn from_folder(folder: &Path, to: (Kind, Device)) -> Result<(Self, Parameters)> {
        let path = folder.join("config.json");
        let config: Config = weights::read_config(&path)?;
        config.validate().with_context(|| format!("{} does not describe a usable U-Net", path.display()))?;
        weights::build(&Archive::open_folder(folder)?, to, |vs| Self::new(vs, &config))
    }

    /// The architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The names of the cross-attention layers, in the order in which an observer sees them.
    pub fn cross_attention_layers(&self) -> &[String] {
        &self.cross_attention_layers
    }

    /// The transformers, in the order of execution.
    pub fn transformers(&self) -> impl Iterator<Item = &TransformerPlace> {
        self.layers().filter_map(Layer::transformer)
    }

    /// Whether the backward pass computes the activations of each layer (a residual block and its transformer) again
    /// instead of having them kept: see [`libtorch::checkpoint`]. Off at first; changes nothing but the memory and the
    /// time of training.
    pub fn set_gradient_checkpointing(&mut self, on: bool) {
        self.gradient_checkpointing = on;
    }

    /// Gives linear layers of the transformers adapters: those for which `make`, which is shown each in the order of
    /// execution with its weight `[out, in]` or `[out, in, 1, 1]`, returns one.
    ///
    /// # Errors
    /// That of `make`, or when a layer has an adapter already. Then no layer has got a new one.
    pub fn adapt(&mut self, make: &mut dyn FnMut(&LinearSite, &Tensor) -> Result<AdapterSlot>) -> Result<()> {
        let mut made = Vec::new();
        self.visit(&mut |name, weight, slot| {
            let adapter = make(&LinearSite::new(name, weight), weight)?;
            ensure!(
                adapter.is_none() || slot.is_none(),
                "{name} has an adapter already: merge or remove that one first"
            );
            made.push(adapter);
            Ok(())
        })?;
        let mut made = made.into_iter();
        self.visit(&mut |_, _, slot| {
            if let Some(adapter) = made.next().flatten() {
                *slot = Some(adapter);
            }
            Ok(())
        })
    }

    /// Takes all adapters away: the model is as it was without them.
    pub fn remove_adapters(&mut self) {
        self.take_adapters(|_, _| ());
    }

    /// Writes what the adapters change into the weights, which keep their dtype, and takes the adapters away.
    pub fn merge_adapters(&mut self) {
        self.take_adapters(|weight, adapter| {
            tch::no_grad(|| {
                let merged = adapter.merged(&weight.flatten(1, -1));
                weight.shallow_clone().copy_(&merged.view_as(weight));
            });
        });
    }

    fn take_adapters(&mut self, mut each: impl FnMut(&Tensor, &dyn LinearAdapter)) {
        let taken = self.visit(&mut |_, weight, slot| {
            slot.take().iter().for_each(|adapter| each(weight, adapter.as_ref()));
            Ok(())
        });
        debug_assert!(taken.is_ok(), "nothing that is done here fails");
    }

    /// Predicts what was mixed into the latents: noise or velocity, as the model was trained.
    ///
    /// - `sample` [batch, `in_channels`, height, width]: noisy latents of any size. Their dtype, f32, bf16 or f16, is
    ///   what is computed in, whatever the parameters' dtype.
    /// - `timesteps`, one for each image or one for all: in 0..1000, of any dtype and possibly fractional.
    /// - `encoder_hidden_states` [batch, positions, `cross_attention_dim`]: the text encoder's output. Where it is the same
    ///   for all images, [1, positions, `cross_attention_dim`] gives the same for less work.
    /// - `observer`: who watches the cross-attention, if anybody. The prediction is the same up to rounding.
    ///
    /// Returns [batch, `out_channels`, height, width] of the dtype of `sample`.
    ///
    /// # Errors
    /// When the inputs do not fit the model or each other; the message names both sides.
    pub fn forward(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        encoder_hidden_states: &Tensor,
        observer: Option<&mut dyn AttentionObserver>,
    ) -> Result<Tensor> {
        // Before the text is brought to their dtype.
        self.check_latents(sample)?;
        let text = self.project(&encoder_hidden_states.to_kind(sample.kind()))?;
        self.forward_cached(sample, timesteps, &text, observer)
    }

    /// The keys and values of a text in each cross-attention layer, for all passes with the same text and the same
    /// parameters, such as the steps of sampling: see [`UNet::forward_cached`].
    ///
    /// - `encoder_hidden_states`: as in [`UNet::forward`], of the dtype to compute in.
    ///
    /// # Errors
    /// When the text does not fit the model; the message names both sides.
    pub fn project(&self, encoder_hidden_states: &Tensor) -> Result<KvCache> {
        ensure!(self.add_embedding.is_none(), NEEDS_ADDED);
        self.project_text(encoder_hidden_states, None)
    }

    /// The same for SDXL, whose U-Net also reads the pooled text and the image's sizes: of as many texts, or one for all, or of several
    /// images with one text.
    ///
    /// # Errors
    /// As [`UNet::project`], and for a model that reads no more than the text.
    pub fn project_with(&self, encoder_hidden_states: &Tensor, added: &AddedConditions) -> Result<KvCache> {
        let embedding = self.add_embedding.as_ref().context(
            "this U-Net reads no pooled text and no sizes (addition_embed_type is null: Stable Diffusion 1.x or 2.x); give the \
             text alone",
        )?;
        let (texts, pooled) = (encoder_hidden_states.size(), added.text_embeds.size());
        let (texts_count, pooled_count) = (texts.first(), pooled.first());
        ensure!(
            texts_count == pooled_count || texts_count == Some(&1) || pooled_count == Some(&1),
            "text embeddings have shape {texts:?} but pooled ones {pooled:?}: give one for each text, or one for all"
        );
        let added = embedding.forward(added, encoder_hidden_states.kind())?;
        // One for all texts belongs to each.
        let rows = added.size()[0].max(texts[0]);
        self.project_text(encoder_hidden_states, Some(added.expand([rows, -1], false)))
    }

    fn project_text(&self, encoder_hidden_states: &Tensor, added: Option<Tensor>) -> Result<KvCache> {
        let _span = tracing::trace_span!("unet/text").entered();
        check_dtype("text embeddings", encoder_hidden_states.kind())?;
        self.check_text(encoder_hidden_states)?;
        let layers = self.layers().flat_map(|layer| layer.project(encoder_hidden_states)).collect();
        Ok(KvCache { layers, size: encoder_hidden_states.size(), dtype: encoder_hidden_states.kind(), added })
    }

    /// The same for texts that each layer has of its own: `texts` is asked with each layer's name, in the order of
    /// [`UNet::cross_attention_layers`], for what it takes keys from and what it takes values from. All are of the same shape and
    /// dtype, as in [`UNet::project`].
    ///
    /// # Errors
    /// That of `texts`, or when a text does not fit the model or the others; the message names both sides.
    pub fn project_each(&self, texts: &mut dyn FnMut(&str) -> Result<[Tensor; 2]>) -> Result<KvCache> {
        ensure!(self.add_embedding.is_none(), NEEDS_ADDED);
        let _span = tracing::trace_span!("unet/text").entered();
        let mut cache: Option<KvCache> = None;
        for layer in self.layers() {
            let pairs = layer.cross_attention().iter().map(|name| texts(name)).collect::<Result<Vec<_>>>()?;
            for text in pairs.iter().flatten() {
                check_dtype("text embeddings", text.kind())?;
                self.check_text(text)?;
                let (size, dtype) = (text.size(), text.kind());
                let new = || KvCache { layers: BTreeMap::new(), size: size.clone(), dtype, added: None };
                let known = cache.get_or_insert_with(new);
                ensure!(
                    known.size == size && known.dtype == dtype,
                    "the layers' text embeddings have shapes {:?} and {size:?} and dtypes {:?} and {dtype:?}: give all of one",
                    known.size,
                    known.dtype
                );
            }
            if let Some(cache) = &mut cache {
                cache.layers.extend(layer.project_pairs(&pairs));
            }
        }
        cache.context("this U-Net has no cross-attention layers to project a text for")
    }

    /// [`UNet::forward`] with a text that this U-Net has projected before, by the parameters that it has now.
    ///
    /// # Errors
    /// When the inputs do not fit the model or each other; the message names both sides.
    pub fn forward_cached(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        text: &KvCache,
        observer: Option<&mut dyn AttentionObserver>,
    ) -> Result<Tensor> {
        self.forward_hooked(sample, timesteps, text, Hooks { observer, ..Hooks::default() })
    }

    /// The same with whatever `hooks` ask for: transformers' features kept, parts put behind their blocks.
    ///
    /// # Errors
    /// When the inputs do not fit the model or each other, or there is no transformer of a name; the message names both sides.
    pub fn forward_hooked(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        text: &KvCache,
        hooks: Hooks<'_>,
    ) -> Result<Tensor> {
        let _span = tracing::trace_span!("unet").entered();
        let Hooks { observer, features, insertions } = hooks;
        let kept = features.iter().flat_map(|features| &features.places);
        let known = |name: &String| self.transformers().any(|transformer| transformer.name == *name);
        if let Some(name) = kept.chain(insertions.iter().flat_map(|inserted| inserted.keys())).find(|name| !known(name))
        {
            bail!("this U-Net has no transformer {name}, whose features are asked for or changed");
        }
        let (dtype, device) = (sample.kind(), sample.device());
        let batch = self.check_latents(sample)?;
        let prompts = text.size[0];
        ensure!(
            prompts == batch || prompts == 1,
            "there are text embeddings for {prompts} prompts but latents of {batch} images: give one for each, or one \
             for all"
        );
        ensure!(
            text.dtype == dtype,
            "the text was projected in {:?} but the latents have dtype {dtype:?}: project it in the latents' dtype",
            text.dtype
        );
        if let Some(added) = text.added.as_ref().map(|added| added.size()[0]) {
            ensure!(
                added == batch || added == 1,
                "there are pooled text embeddings and sizes of {added} images but latents of {batch}: give one for each, or one for all"
            );
        }
        let layers = self.cross_attention_layers();
        ensure!(
            text.layers.len() == layers.len() && layers.iter().all(|name| text.layers.contains_key(name)),
            "the text was projected by {} cross-attention layers of another U-Net, but this one has {}: project it by \
             this one",
            text.layers.len(),
            layers.len()
        );
        let timesteps = expand_timesteps(&libtorch::upload(timesteps, device), batch)?;
        let positions = text.size[1];
        let watch = observer.map(|observer| Watch::new(observer, positions, device)).transpose()?;
        let mut pass = Pass {
            temb: tracing::trace_span!("unet/time_embedding").in_scope(|| {
                let embedding = self.time_embedding.forward(&timesteps, dtype);
                text.added.as_ref().map_or(embedding.shallow_clone(), |added| embedding + added)
            }),
            text,
            watch,
            features,
            insertions,
            gradient_checkpointing: self.gradient_checkpointing,
        };

        let centred = self.config.center_input_sample.then(|| sample * 2.0 - 1.0);
        let sample = centred.as_ref().unwrap_or(sample);
        let mut hidden = tracing::trace_span!("unet/conv_in").in_scope(|| self.conv_in.forward(sample));
        let mut skips = vec![hidden.shallow_clone()];
        for (i, block) in self.down_blocks.iter().enumerate() {
            let outputs =
                tracing::trace_span!("unet/down_blocks", number = i).in_scope(|| block.forward(&hidden, &mut pass));
            skips.extend(outputs);
            hidden = skips[skips.len() - 1].shallow_clone();
        }
        hidden = tracing::trace_span!("unet/mid_block").in_scope(|| self.mid_block.forward(&hidden, &mut pass));
        for (i, block) in self.up_blocks.iter().enumerate() {
            hidden = tracing::trace_span!("unet/up_blocks", number = i)
                .in_scope(|| block.forward(&hidden, &mut skips, &mut pass));
        }
        let _span = tracing::trace_span!("unet/conv_out").entered();
        Ok(self.conv_out.forward(&self.conv_norm_out.forward_activated(&hidden, Activation::Silu)))
    }

    /// Returns the batch size.
    fn check_latents(&self, sample: &Tensor) -> Result<i64> {
        let size = sample.size();
        check_dtype("latents", sample.kind())?;
        match size[..] {
            [batch, channels, height, width] if channels == self.config.in_channels && height > 0 && width > 0 => {
                Ok(batch)
            }
            _ => bail!(
                "latents have shape {size:?} but this U-Net expects [batch, {}, height, width]",
                self.config.in_channels
            ),
        }
    }

    fn check_text(&self, text: &Tensor) -> Result<()> {
        let size = text.size();
        let expected = self.config.cross_attention_dim;
        let [_, _, width] = size[..] else {
            bail!("text embeddings have shape {size:?} but this U-Net expects [batch, positions, {expected}]")
        };
        ensure!(
            width == expected,
            "text embeddings have width {width} but this U-Net expects {expected}: use the text encoder that belongs to \
             it (768 is Stable Diffusion 1.x, 1024 is 2.x, 2048 is SDXL)"
        );
        Ok(())
    }

    fn visit(&self, visit: Visit<'_>) -> Result<()> {
        self.layers().try_for_each(|layer| layer.visit(visit))
    }

    /// In the order of execution.
    fn layers(&self) -> impl Iterator<Item = &Layer> {
        let down = self.down_blocks.iter().flat_map(DownBlock::layers);
        let up = self.up_blocks.iter().flat_map(UpBlock::layers);
        down.chain(self.mid_block.layers()).chain(up)
    }
}

const NEEDS_ADDED: &str = "this U-Net reads the pooled text and the image's sizes beside the text (addition_embed_type text_time: \
                           SDXL); give them too, by UNet::project_with";

fn check_dtype(what: &str, dtype: Kind) -> Result<()> {
    ensure!(
        matches!(dtype, Kind::Float | Kind::BFloat16 | Kind::Half | Kind::Double),
        "{what} have dtype {dtype:?} but must be floating-point numbers"
    );
    Ok(())
}

/// [batch] timesteps from one or as many.
fn expand_timesteps(timesteps: &Tensor, batch: i64) -> Result<Tensor> {
    match timesteps.size()[..] {
        [] | [1] => Ok(timesteps.reshape([1]).expand([batch], false)),
        [count] if count == batch => Ok(timesteps.shallow_clone()),
        ref size => bail!(
            "timesteps have shape {size:?} but the latents are a batch of {batch}: give one timestep for all, or one for each"
        ),
    }
}
