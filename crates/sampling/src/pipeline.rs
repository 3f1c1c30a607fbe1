//! The components of a model, together.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clip::{ClipTextModel, ClipTextModelWithProjection};
use images::RgbImage;
use model_files::{BaseModel, Component, DEFAULT_SAMPLE_SIZE, ModelOptions};
use scheduler::{ForwardProcess, Scheduler, SchedulerConfig};
use tch::{Device, Kind, Tensor};
use tokenizer::Tokenizer;
use unet::{AttentionObserver, KvCache, UNet};
use vae::{AutoencoderKl, Tiling};
use weights::Parameters;

use crate::conditioning::{Conditioning, Distinct, Text};
use crate::denoise::{Denoising, Looking, Previews};
use crate::finite::{Origin, Watch};
use crate::image::to_images;
use crate::noise::Noise;
use crate::notes::foreign_syntax;
use crate::prompts::{Encoders, PromptEmbeds, PromptIds, SecondTextEncoder, SizeConditioning, project};
use crate::reference::{Reference, ReferenceConditioning, ReferenceMask, ReferencePass};
use crate::request::{check_settings, guides};
use crate::words::{SUBJECT, Word, words};
use crate::{Request, Settings, Step};

/// A Stable Diffusion model, ready to generate images.
#[derive(Debug)]
pub struct Pipeline {
    /// Prompts to ids.
    pub tokenizer: Tokenizer,
    /// Ids to hidden states.
    pub text_encoder: ClipTextModel,
    /// Of SDXL alone.
    pub second: Option<SecondTextEncoder>,
    /// The denoising network.
    pub unet: UNet,
    /// Latents to images.
    pub vae: AutoencoderKl,
    /// The noise schedule and the model's own scheduler.
    pub scheduler: SchedulerConfig,
    /// All parameters, by component.
    pub parameters: PipelineParameters,
    /// The parameters' dtype and device.
    to: (Kind, Device),
    compute_dtype: Kind,
    packed_bytes: u64,
    notes: Vec<String>,
    /// The token that `[V]` in a prompt stands for.
    subject: Option<String>,
    /// How its prompts become keys and values, where that depends on the timestep.
    conditioning: Option<Box<dyn Conditioning>>,
    /// What each pass looks at, where a method has learned to.
    reference: Option<Reference>,
    /// Whether an absent negative prompt means zeros.
    zeros_for_no_prompt: bool,
}

/// The parameters of a [`Pipeline`], sharing its memory.
#[derive(Debug)]
pub struct PipelineParameters {
    /// Of the text encoder.
    pub text_encoder: Parameters,
    /// Of the second one, which SDXL alone has.
    pub text_encoder_2: Option<Parameters>,
    /// Of the U-Net.
    pub unet: Parameters,
    /// Of the VAE.
    pub vae: Parameters,
}

impl PipelineParameters {
    /// Those of each component, by the name of its folder.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Parameters)> {
        let second = self.text_encoder_2.as_ref().map(|parameters| ("text_encoder_2", parameters));
        let first = [("text_encoder", &self.text_encoder)].into_iter().chain(second);
        first.chain([("unet", &self.unet), ("vae", &self.vae)])
    }
}

impl Pipeline {
    /// Loads a model, a folder in the diffusers layout or a single file that needs no options, as parameters of the dtype
    /// and on the device `to`.
    ///
    /// # Errors
    /// When the model is incomplete, a file is unusable or the components do not belong together.
    pub fn from_folder(model: &Path, to: (Kind, Device)) -> Result<Self> {
        Self::open(&BaseModel::open(model, &ModelOptions::default())?, to)
    }

    /// Loads a model as parameters of the dtype and on the device `to`.
    ///
    /// # Errors
    /// As [`Pipeline::from_folder`].
    pub fn open(model: &BaseModel, to: (Kind, Device)) -> Result<Self> {
        Self::open_with(model, to, to.0)
    }

    /// The same with the U-Net's parameters of another dtype, such as that of computation where they are not trained.
    ///
    /// # Errors
    /// As [`Pipeline::from_folder`].
    pub fn open_with(model: &BaseModel, to: (Kind, Device), unet: Kind) -> Result<Self> {
        let unet_to = (unet, to.1);
        Self::around(model, to, || match model.folder() {
            Some(folder) => UNet::from_folder(&folder.component("unet"), unet_to),
            None => {
                let config = model.config(Component::Unet)?;
                model.build(Component::Unet, unet_to, |vs| UNet::new(vs, &config))
            }
        })
    }

    /// The same with the U-Net in the folder `unet` in place of the model's own.
    ///
    /// # Errors
    /// As [`Pipeline::from_folder`].
    pub fn with_unet(model: &BaseModel, unet: &Path, to: (Kind, Device)) -> Result<Self> {
        Self::around(model, to, || UNet::from_folder(unet, to))
    }

    /// Loads everything but the U-Net, and that when its turn comes: what is quick to read first, then the weights.
    fn around(
        model: &BaseModel,
        to: (Kind, Device),
        unet: impl FnOnce() -> Result<(UNet, Parameters)>,
    ) -> Result<Self> {
        let (scheduler, stand_in) = model.scheduler()?.or_stand_in();
        let tokenizer = model.tokenizer()?;
        let ((text_encoder, text_parameters), (vae, vae_parameters)) = match model.folder() {
            Some(folder) => (
                ClipTextModel::from_folder(&folder.component("text_encoder"), to)?,
                AutoencoderKl::from_folder(&folder.component("vae"), to)?,
            ),
            None => {
                let (text, vae) = (model.config(Component::TextEncoder)?, model.config(Component::Vae)?);
                (
                    model.build(Component::TextEncoder, to, |vs| ClipTextModel::new(vs, &text))?,
                    model.build(Component::Vae, to, |vs| AutoencoderKl::new(vs, &vae))?,
                )
            }
        };
        let (second, second_parameters) = second_text_encoder(model, to)?.unzip();
        let (unet, unet_parameters) = unet()?;
        let parameters = PipelineParameters {
            text_encoder: text_parameters,
            text_encoder_2: second_parameters,
            unet: unet_parameters,
            vae: vae_parameters,
        };
        let place = match model.folder() {
            Some(folder) => folder.scheduler_config(),
            None => model.path().to_owned(),
        };
        let stand_in = stand_in.map(|note| format!("{}: {note}; --scheduler chooses another", place.display()));
        let notes = parameters.all().flat_map(|(_, parameters)| parameters.notes()).cloned().chain(stand_in).collect();
        let mut pipeline = Self {
            tokenizer,
            text_encoder,
            second,
            unet,
            vae,
            scheduler,
            parameters,
            to,
            compute_dtype: to.0,
            packed_bytes: u64::MAX,
            notes,
            subject: None,
            conditioning: None,
            reference: None,
            zeros_for_no_prompt: model.zeros_for_no_prompt()?,
        };
        pipeline
            .check_components()
            .with_context(|| format!("the components in {} do not fit", model.path().display()))?;
        // The rows beyond, of a table that was padded, belong to no token.
        pipeline.text_encoder.set_tokens(pipeline.tokenizer.embedding_rows())?;
        if let Some(SecondTextEncoder { tokenizer, text_encoder }) = &mut pipeline.second {
            text_encoder.text_model_mut().set_tokens(tokenizer.embedding_rows())?;
        }
        Ok(pipeline)
    }

    /// What only two components together can get wrong.
    fn check_components(&self) -> Result<()> {
        let (text, unet, vae) = (self.text_encoder.config(), self.unet.config(), self.vae.config());
        ensure!(
            self.token_width() == unet.cross_attention_dim,
            "{} is {}, but the U-Net's cross_attention_dim is {}",
            if self.second.is_some() {
                "the sum of both text encoders' hidden_size"
            } else {
                "the text encoder's hidden_size"
            },
            self.token_width(),
            unet.cross_attention_dim
        );
        let pooled = self.second.as_ref().map(|second| second.text_encoder.text_model().config().projection_dim);
        let shown = |width: Option<i64>| width.map_or("none".to_owned(), |width| format!("one of width {width}"));
        ensure!(
            pooled == unet.pooled_text_dim(),
            "the U-Net reads a pooled text of SDXL's second text encoder, {}, but the model has {}",
            shown(unet.pooled_text_dim()),
            shown(pooled)
        );
        ensure!(
            unet.in_channels != 2 * vae.latent_channels + 1,
            "the U-Net takes {} channels, as that of an inpainting model does, which fills in images: give a model that generates images \
             of prompts alone",
            unet.in_channels
        );
        ensure!(
            vae.latent_channels == unet.in_channels,
            "the VAE has {} latent channels, but the U-Net takes {}",
            vae.latent_channels,
            unet.in_channels
        );
        ensure!(
            self.tokenizer.embedding_rows() <= text.vocab_size,
            "the tokenizer has {} tokens, but the text encoder knows {}",
            self.tokenizer.embedding_rows(),
            text.vocab_size
        );
        if let Some(SecondTextEncoder { tokenizer, text_encoder }) = &self.second {
            let (rows, known) = (tokenizer.embedding_rows(), text_encoder.text_model().config().vocab_size);
            ensure!(rows <= known, "the second tokenizer has {rows} tokens, but the second text encoder knows {known}");
            // So that a new token gets the same ids of both.
            ensure!(
                rows == self.tokenizer.embedding_rows() && tokenizer.added() == self.tokenizer.added(),
                "the first tokenizer has {} tokens, but the second one {rows}, or others were added to it",
                self.tokenizer.embedding_rows()
            );
        }
        Ok(())
    }

    /// The width of a token's embedding: that of the text encoder, of SDXL those of both together, the first one's columns first.
    pub fn token_width(&self) -> i64 {
        self.token_widths().iter().sum()
    }

    /// The widths of a token's embedding for each text encoder.
    pub fn token_widths(&self) -> Vec<i64> {
        self.text_models().map(|encoder| encoder.config().hidden_size).collect()
    }

    /// The text encoders: one, or SDXL's two.
    pub fn text_models(&self) -> impl Iterator<Item = &ClipTextModel> {
        let second = self.second.as_ref().map(|second| second.text_encoder.text_model());
        std::iter::once(&self.text_encoder).chain(second)
    }

    /// The embeddings of tokens of both text encoders, one beside the other: [ids, [`Pipeline::token_width`]], f32.
    ///
    /// # Errors
    /// When an id is not known.
    pub fn token_embeddings(&self, ids: &[i64]) -> Result<Tensor> {
        let ids = Tensor::from_slice(ids).unsqueeze(0);
        let rows = tch::no_grad(|| self.text_models().map(|encoder| encoder.embed(&ids)).collect::<Result<Vec<_>>>())?;
        Ok(Tensor::cat(&rows, -1).squeeze_dim(0).to_kind(Kind::Float))
    }

    /// Adds the token `name` with the embedding(s) `rows` [vectors, width]: a subject, which prompts may also call `[V]`.
    ///
    /// The text encoder reads `rows` wherever the token stands, so they may be parameters in training; see
    /// [`ClipTextModel::with_extra_tokens`].
    ///
    /// # Errors
    /// When there is such a token already, or the embeddings belong to another model.
    pub fn add_placeholder(&mut self, name: &str, rows: &Tensor) -> Result<()> {
        ensure!(self.subject.is_none(), "this pipeline has learned a subject already; load the base model again");
        self.add_token(name, rows)?;
        self.subject = Some(name.to_owned());
        Ok(())
    }

    /// Lets prompts call a word that the model knows `[V]`, as DreamBooth's rare word "sks".
    ///
    /// # Errors
    /// When there is a subject already.
    pub fn name_subject(&mut self, word: &str) -> Result<()> {
        ensure!(self.subject.is_none(), "this pipeline has learned a subject already; load the base model again");
        self.subject = Some(word.to_owned());
        Ok(())
    }

    /// Adds the token `name` of a further subject, which prompts call by this name: [`Pipeline::add_placeholder`] is for the first
    /// one.
    ///
    /// # Errors
    /// As [`Pipeline::add_placeholder`]; then the pipeline is as it was.
    pub fn add_token(&mut self, name: &str, rows: &Tensor) -> Result<()> {
        let (size, width) = (rows.size(), self.token_width());
        let Some(SecondTextEncoder { tokenizer, .. }) = &mut self.second else {
            self.text_encoder.check_extra_tokens(rows)?;
            self.tokenizer.add_placeholder(name, size[0] as usize)?;
            return self.text_encoder.add_extra_tokens(rows);
        };
        ensure!(
            size.len() == 2 && size[1] == width,
            "embeddings of new tokens have shape {size:?}, but SDXL needs [tokens, {width}], both text encoders' together; use \
             embeddings that were learned for SDXL"
        );
        self.tokenizer.add_placeholder(name, size[0] as usize)?;
        // It has the same tokens, so it does not refuse either.
        tokenizer.add_placeholder(name, size[0] as usize)?;
        self.add_columns(rows)
    }

    /// Gives each text encoder its columns of the embeddings of new tokens.
    fn add_columns(&mut self, rows: &Tensor) -> Result<()> {
        self.text_encoder.add_extra_columns(rows, 0)?;
        let first = self.text_encoder.config().hidden_size;
        let Some(SecondTextEncoder { text_encoder, .. }) = &mut self.second else { return Ok(()) };
        text_encoder.text_model_mut().add_extra_columns(rows, first)
    }

    /// Gives the tokens that were added, of which there are as many vectors, other embeddings `rows` [vectors, width].
    ///
    /// # Errors
    /// When their width is not [`Pipeline::token_width`].
    pub fn replace_tokens(&mut self, rows: &Tensor) -> Result<()> {
        let (size, width) = (rows.size(), self.token_width());
        ensure!(
            size.len() == 2 && size[1] == width,
            "embeddings of tokens have shape {size:?}, but this model needs [tokens, {width}]"
        );
        self.text_encoder.remove_extra_tokens();
        if let Some(second) = &mut self.second {
            second.text_encoder.text_model_mut().remove_extra_tokens();
        }
        self.add_columns(rows)
    }

    /// Makes the keys and values of prompts that have the conditioning's token depend on the timestep. All steps' are computed
    /// before the first: of Stable Diffusion 2.1 in f32, 8 MB for each prompt and step.
    ///
    /// # Errors
    /// When there is one already.
    pub fn set_conditioning(&mut self, conditioning: Box<dyn Conditioning>) -> Result<()> {
        self.refuse_sdxl("NeTI's mapper")?;
        ensure!(
            self.conditioning.is_none(),
            "this pipeline has a token already that has another embedding at each timestep, and takes no second one; load the base \
             model again"
        );
        self.conditioning = Some(conditioning);
        Ok(())
    }

    /// Makes each pass of the U-Net look at a reference photo, which [`Pipeline::set_reference`] is to give.
    ///
    /// # Errors
    /// When it looks at one already.
    pub fn set_reference_conditioning(&mut self, conditioning: Box<dyn ReferenceConditioning>) -> Result<()> {
        self.refuse_sdxl("ViCo, which looks at a reference photo,")?;
        ensure!(
            self.reference.is_none(),
            "this pipeline has learned already to look at a reference photo, and takes no second way; load the base model again"
        );
        self.reference = Some(Reference::new(conditioning));
        Ok(())
    }

    /// Makes sure that the model is not SDXL, which `what` is not for.
    ///
    /// # Errors
    /// When it is.
    pub fn refuse_sdxl(&self, what: &str) -> Result<()> {
        ensure!(self.second.is_none(), "{what} is for Stable Diffusion 1.x and 2.x, but this model is SDXL");
        Ok(())
    }

    /// Takes away what [`Pipeline::set_reference_conditioning`] has given.
    pub fn remove_reference_conditioning(&mut self) {
        self.reference = None;
    }

    /// Whether it needs a reference photo.
    pub fn looks_at_a_reference(&self) -> bool {
        self.reference.is_some()
    }

    /// The reference photo from now on: of any size that the VAE can encode, best a square of the size that the model was trained for.
    ///
    /// # Errors
    /// When the pipeline looks at none, or the photo's sides are no multiples of the VAE's factor, mostly 8.
    pub fn set_reference(&mut self, photo: &RgbImage) -> Result<()> {
        let to = (self.compute_dtype, self.to.1);
        let reference = self.reference.as_mut().context(
            "this model looks at no reference photo: leave out --reference, or give a run of the method vico or its file",
        )?;
        reference.set(&self.vae, photo, to)
    }

    /// Where the reference photo shows the subject of a prompt at a timestep from 0 to 999, as each part of the U-Net that looks at it
    /// sees it.
    ///
    /// # Errors
    /// When there is no reference, or what the models refuse.
    pub fn reference_masks(&self, prompt: &str, timestep: i64) -> Result<Vec<ReferenceMask>> {
        let reference = self.reference.as_ref().context("this model looks at no reference photo")?;
        let latents = reference.latents()?.to_kind(self.compute_dtype);
        let ids = self.prompt_ids(&[prompt])?;
        libtorch::catch(|| {
            tch::no_grad(|| {
                let text = self.unet.project(&self.encode_first(&ids)?)?;
                let timestep = Tensor::from(timestep);
                let pass =
                    ReferencePass { reference: &latents, timestep: &timestep, text: &text, ids: &ids, images: 1 };
                reference.conditioning.masks(&self.unet, &pass)
            })
        })?
    }

    /// The token that `[V]` in a prompt stands for.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// A prompt as the tokenizer takes it: with the subject's token(s) in place of `[V]` or its name.
    ///
    /// # Errors
    /// When the prompt says `[V]`, but there is no subject.
    pub fn resolve(&self, prompt: &str) -> Result<String> {
        match &self.subject {
            Some(name) => Ok(self.tokenizer.expand(&prompt.replace(SUBJECT, name))?),
            None if prompt.contains(SUBJECT) => bail!(
                "the prompt {:?} asks for [V], but this model has learned no subject; give a training run with --run",
                terminal::shortened(prompt)
            ),
            // An exported folder's tokenizer may have tokens of several vectors of its own.
            None => Ok(self.tokenizer.expand(prompt)?),
        }
    }

    /// The words of a prompt and the positions of their tokens, from left to right; the subject is the word `[V]`.
    ///
    /// A word is what white space separates, without punctuation around it.
    ///
    /// # Errors
    /// As [`Pipeline::resolve`], or when the prompt is too long for the text encoder.
    pub fn words(&self, prompt: &str) -> Result<Vec<Word>> {
        words(&self.tokenizer, &self.resolve(prompt)?, self.subject.as_deref())
    }

    /// One sentence for everything in a prompt that is cut off or means something else elsewhere: text beyond the text
    /// encoder's positions, and the web UIs' syntax for weights, networks and prompt editing, which is read as plain text.
    ///
    /// # Errors
    /// As [`Pipeline::resolve`].
    pub fn prompt_notes(&self, prompt: &str) -> Result<Vec<String>> {
        let truncation = self.tokenizer.encode(&self.resolve(prompt)?)?.truncation;
        let cut = truncation.map(|truncation| truncation.to_string());
        Ok(cut.into_iter().chain(foreign_syntax(prompt)).collect())
    }

    /// What the user should know of the model's files: a variant in place of the plain weights, tensors that were passed
    /// over, a scheduler that another one stands in for.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The dtype and the device of the parameters; the U-Net's may be of another dtype ([`Pipeline::open_with`]).
    pub fn placement(&self) -> (Kind, Device) {
        self.to
    }

    /// The dtype of all computation from now on, at first that of the parameters, which are converted on use: f32 parameters
    /// that are being trained in bf16 give the images that they would give as bf16 ones.
    pub fn set_compute_dtype(&mut self, dtype: Kind) {
        self.compute_dtype = dtype;
    }

    /// What [`Pipeline::set_compute_dtype`] has set.
    pub fn compute_dtype(&self) -> Kind {
        self.compute_dtype
    }

    /// What a program does well to set aside before it gives memory to [`Pipeline::set_packed_bytes`]: the parameters, and a gibibyte.
    pub fn reserved_bytes(&self) -> u64 {
        let of_one = |tensor: &Tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64;
        let parameters = self.parameters.all().flat_map(|(_, parameters)| parameters.iter());
        parameters.map(|(_, tensor)| of_one(tensor)).sum::<u64>() + (1 << 30)
    }

    /// The most bytes that copies of the U-Net's weights, packed for faster sampling in f32 on a CPU, may take while
    /// [`Pipeline::denoise`] runs; no limit at first, which is as much as these weights take. Results differ by rounding.
    pub fn set_packed_bytes(&mut self, most: u64) {
        self.packed_bytes = most;
    }

    /// 50 steps of the model's own scheduler, guidance 7.5, and the size that the model was trained for.
    pub fn default_settings(&self) -> Settings {
        let latents = self.unet.config().sample_size.unwrap_or(DEFAULT_SAMPLE_SIZE);
        let size = latents * self.vae.config().downscale_factor();
        Settings { steps: 50, guidance_scale: 7.5, height: size, width: size, scheduler: None, eta: None }
    }

    /// What the text encoders make of some prompts.
    ///
    /// # Errors
    /// What the tokenizer or the text encoder refuses.
    pub fn encode_prompts(&self, prompts: &[&str]) -> Result<PromptEmbeds> {
        libtorch::catch(|| tch::no_grad(|| self.prompt_embeds(prompts, self.compute_dtype)))?
    }

    /// The same computed in `dtype` and on the autograd graph.
    ///
    /// # Errors
    /// What the tokenizers or the text encoders refuse.
    pub fn prompt_embeds(&self, prompts: &[impl AsRef<str>], dtype: Kind) -> Result<PromptEmbeds> {
        let first = self.prompt_ids(prompts)?;
        let ids = |second: &SecondTextEncoder| {
            let ids = |prompt: &str| Ok(second.tokenizer.encode(&self.resolve(prompt)?)?.ids);
            prompts.iter().map(|prompt| ids(prompt.as_ref())).collect::<Result<_>>()
        };
        let second = self.second.as_ref().map(ids).transpose()?;
        self.encoders().encode(&PromptIds { first, second }, dtype)
    }

    fn encoders(&self) -> Encoders<'_> {
        Encoders { first: &self.text_encoder, second: self.second.as_ref() }
    }

    /// The keys and values of prompts that the U-Net reads, of images of these sizes: one for each, or one for all. SDXL alone reads
    /// the sizes.
    ///
    /// # Errors
    /// When the counts do not belong together, or what the U-Net refuses.
    pub fn project(&self, embeds: &PromptEmbeds, sizes: &[SizeConditioning]) -> Result<KvCache> {
        project(&self.unet, embeds, sizes)
    }

    /// The token ids of prompts, each as many as the text encoder has positions.
    ///
    /// # Errors
    /// What the tokenizer refuses, or as [`Pipeline::resolve`].
    pub fn prompt_ids(&self, prompts: &[impl AsRef<str>]) -> Result<Vec<Vec<i64>>> {
        prompts.iter().map(|prompt| Ok(self.tokenizer.encode(&self.resolve(prompt.as_ref())?)?.ids)).collect()
    }

    /// The hidden states of prompts, given as ids, by the first text encoder alone.
    fn encode_first(&self, ids: &[Vec<i64>]) -> Result<Tensor> {
        let ids = PromptIds { first: ids.to_vec(), second: None };
        Ok(Encoders { second: None, ..self.encoders() }.encode(&ids, self.compute_dtype)?.hidden_states)
    }

    /// The keys and values of a batch's prompts at each of the steps, of images of a size; the first so many prompts are negative.
    fn text(
        &self,
        (prompts, negative): (&[&str], usize),
        size: SizeConditioning,
        timesteps: &[f32],
        watch: &mut Watch<'_>,
    ) -> Result<Text> {
        let ids = self.prompt_ids(prompts)?;
        let has = |conditioning: &&dyn Conditioning| ids.iter().any(|ids| ids.contains(&conditioning.token()));
        let Some(conditioning) = self.conditioning.as_deref().filter(has) else {
            let mut embeds = self.prompt_embeds(prompts, self.compute_dtype)?;
            watch.see(Origin::TextEncoder, &embeds.hidden_states)?;
            if let Some(pooled) = &embeds.pooled {
                watch.see(Origin::TextEncoder, pooled)?;
            }
            if self.zeros_for_no_prompt {
                let absent = |(i, prompt): (usize, &&str)| i < negative && prompt.is_empty();
                let kept: Vec<bool> = prompts.iter().enumerate().map(|prompt| !absent(prompt)).collect();
                let kept = Tensor::from_slice(&kept).to_device(self.to.1);
                embeds = embeds.map(|tensor| {
                    let shape: Vec<i64> = (0..tensor.dim()).map(|axis| if axis == 0 { -1 } else { 1 }).collect();
                    tensor.where_self(&kept.view(shape.as_slice()), &tensor.zeros_like())
                });
            }
            return Ok(Text::Constant(self.project(&embeds, &[size])?));
        };
        let distinct = Distinct::of(&ids, conditioning.token());
        let project = |ids: &[Vec<i64>]| self.unet.project(&self.encode_first(ids)?);
        let constant = (!distinct.constant.is_empty()).then(|| project(&distinct.constant)).transpose()?;
        Text::varying(&distinct, constant, timesteps, self.to.1, |timesteps| {
            let ids: Vec<&Vec<i64>> = timesteps.iter().flat_map(|_| &distinct.varying).collect();
            let of_each = |timestep: &f32| std::iter::repeat_n(*timestep, distinct.varying.len());
            let timesteps: Vec<f32> = timesteps.iter().flat_map(of_each).collect();
            let (ids, timesteps) = (Tensor::from_slice2(&ids), Tensor::from_slice(&timesteps));
            conditioning.project(&self.text_encoder, &self.unet, &ids, &timesteps, self.compute_dtype)
        })
    }

    /// What the passes of a batch with these prompts look at, the negative ones first.
    fn looking(&self, prompts: &[&str]) -> Result<Option<Looking<'_>>> {
        let Some(reference) = &self.reference else { return Ok(None) };
        Ok(Some(Looking {
            conditioning: reference.conditioning.as_ref(),
            reference: reference.latents()?.to_kind(self.compute_dtype),
            ids: self.prompt_ids(prompts)?,
        }))
    }

    /// Finds out whether [`Pipeline::generate`] can follow, without generating anything.
    ///
    /// # Errors
    /// Sizes, steps or initial latents that the model or scheduler cannot work with.
    pub fn check(&self, requests: &[Request], settings: &Settings) -> Result<()> {
        ensure!(!requests.is_empty(), "a batch needs at least one image");
        check_settings(settings, self.vae.config().downscale_factor())?;
        if self.second.is_some() {
            // What it has hardly seen even with sizes given, and generates as a detail of something larger.
            let trained = self.default_settings().height;
            for (name, side) in [("height", settings.height), ("width", settings.width)] {
                ensure!(
                    4 * side >= trained,
                    "the {name} {side} is too small for SDXL, which was trained with images of {trained} pixels: use {} or more",
                    trained / 4
                );
            }
        }
        self.sampler(settings)?;
        self.reference.as_ref().map_or(Ok(()), |reference| reference.latents().map(|_| ()))?;
        let shape = self.latents_shape(settings);
        requests.iter().try_for_each(|request| request.validate(shape))
    }

    /// The scheduler that `settings` ask for.
    fn sampler(&self, settings: &Settings) -> Result<Box<dyn Scheduler>> {
        let own = || self.scheduler.kind().context("the model's scheduler_config.json (--scheduler chooses another)");
        let kind = settings.scheduler.map_or_else(own, Ok)?;
        match settings.eta {
            Some(eta) => Ok(self.scheduler.with_eta(kind, eta)?.build(kind, settings.steps)?),
            None => Ok(self.scheduler.build(kind, settings.steps)?),
        }
    }

    /// [channels, h, w] of one image's latents.
    pub fn latents_shape(&self, settings: &Settings) -> [i64; 3] {
        let factor = self.vae.config().downscale_factor();
        [self.unet.config().in_channels, settings.height / factor, settings.width / factor]
    }

    /// Generates the images of a batch. `on_step` is told after each denoising step.
    ///
    /// # Errors
    /// Settings that the model or scheduler cannot follow, a [`NotFinite`](crate::NotFinite) where an image's numbers are
    /// NaN or infinite, or an error of LibTorch, such as out of memory.
    pub fn generate(
        &self,
        requests: &[Request],
        settings: &Settings,
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Vec<RgbImage>> {
        let latents = self.denoise(requests, settings, on_step)?;
        self.decode(requests, &latents)
    }

    /// The same, and on the way so many `previews` of the batch's first image: what the noisy latents are on the way to. Each costs what
    /// the VAE takes for an image, and changes nothing of the images.
    ///
    /// # Errors
    /// As [`Pipeline::generate`].
    pub fn generate_with_previews(
        &self,
        requests: &[Request],
        settings: &Settings,
        (previews, on_preview): (usize, &mut dyn FnMut(RgbImage)),
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Vec<RgbImage>> {
        let mut show = |latents: &Tensor| {
            // Numbers that are not finite are told of at the end.
            let decoded = requests.get(..1).map(|first| self.decode(first, latents));
            if let Some(Ok(images)) = decoded {
                images.into_iter().for_each(&mut *on_preview);
            }
        };
        let forward = ForwardProcess::new(&self.scheduler, self.to.1)?;
        let shown = Previews { forward, count: previews, show: &mut show };
        let latents = self.denoise_watched(requests, settings, None, Some(shown).filter(|_| previews > 0), on_step)?;
        self.decode(requests, &latents)
    }

    /// The first half of [`Pipeline::generate`]: the latents [batch, channels, h, w] of the images, f32.
    ///
    /// # Errors
    /// As [`Pipeline::generate`].
    pub fn denoise(&self, requests: &[Request], settings: &Settings, on_step: &mut dyn FnMut(Step)) -> Result<Tensor> {
        self.denoise_watched(requests, settings, None, None, on_step)
    }

    /// The same, with cross-attention shown to `observer` in each pass of the U-Net. With guidance, the second half of
    /// its batches belongs to the prompts and the first to the negative prompts.
    ///
    /// # Errors
    /// As [`Pipeline::generate`].
    pub fn denoise_observed(
        &self,
        requests: &[Request],
        settings: &Settings,
        observer: &mut dyn AttentionObserver,
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Tensor> {
        self.denoise_watched(requests, settings, Some(observer), None, on_step)
    }

    fn denoise_watched(
        &self,
        requests: &[Request],
        settings: &Settings,
        observer: Option<&mut dyn AttentionObserver>,
        previews: Option<Previews<'_>>,
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Tensor> {
        self.check(requests, settings)?;
        let denoise = || {
            let scheduler = self.sampler(settings)?;
            let noisy_steps = (0..scheduler.timesteps().len()).filter(|&i| scheduler.needs_noise(i)).count() as i64;
            let shape = self.latents_shape(settings);
            let negative = requests.iter().map(|request| request.negative_prompt.as_str());
            let negative = negative.filter(|_| guides(settings));
            let prompts = negative.chain(requests.iter().map(|request| request.prompt.as_str()));
            let mut watch = Watch::new(requests, self.compute_dtype, guides(settings));
            let prompts: Vec<&str> = prompts.collect();
            let negative = prompts.len() - requests.len();
            let size = SizeConditioning::whole(settings.height, settings.width);
            let text = self.text((&prompts, negative), size, scheduler.timesteps(), &mut watch)?;
            // From here on: the weights that have projected the text are not needed again.
            let _frozen = self.parameters.unet.frozen(self.packed_bytes);
            let denoising = Denoising {
                unet: &self.unet,
                dtype: self.compute_dtype,
                device: self.to.1,
                text,
                guidance_scale: guides(settings).then_some(settings.guidance_scale),
                noise: requests.iter().map(|request| Noise::new(request, shape, noisy_steps)).collect(),
                scheduler,
                watch,
                looking: self.looking(&prompts)?,
            };
            denoising.run(observer, previews, on_step)
        };
        libtorch::catch(|| tch::no_grad(denoise))?
    }

    /// The second half of [`Pipeline::generate`]: the images of the latents of `requests`, one at a time and in tiles where
    /// they are large, so that memory stays bounded.
    ///
    /// # Errors
    /// A [`NotFinite`](crate::NotFinite) where the VAE gives NaN or infinity, or an error of LibTorch, such as out of
    /// memory.
    pub fn decode(&self, requests: &[Request], latents: &Tensor) -> Result<Vec<RgbImage>> {
        ensure!(
            latents.size()[0] == requests.len() as i64,
            "there are latents of {} images, but {} requests",
            latents.size()[0],
            requests.len()
        );
        // SDXL's overflows in half precision (force_upcast), which bfloat16 does not.
        let upcasts = self.second.is_some() && self.compute_dtype == Kind::Half && self.vae.config().force_upcast;
        let dtype = if upcasts { Kind::Float } else { self.compute_dtype };
        let latents = self.vae.unscale_latents(latents).to_kind(dtype);
        libtorch::catch(|| {
            let images = tch::no_grad(|| self.vae.decode_tiled(&latents, &self.tiling()))?;
            let mut watch = Watch::new(requests, dtype, false);
            watch.see(Origin::Decoder, &images)?;
            watch.finish()?;
            Ok(to_images(&images))
        })?
    }

    /// One image at a time, whole up to the size that the VAE was made for, and in tiles beyond.
    fn tiling(&self) -> Tiling {
        let Tiling { slice_batch, tile_size } = Tiling::BOUNDED;
        let config = self.vae.config();
        let unit = 4 * config.downscale_factor();
        let whole = config.sample_size / unit * unit;
        Tiling { slice_batch, tile_size: tile_size.map(|least| least.max(whole)) }
    }
}

/// SDXL's second text encoder; of other models none.
fn second_text_encoder(model: &BaseModel, to: (Kind, Device)) -> Result<Option<(SecondTextEncoder, Parameters)>> {
    if !model.is_sdxl() {
        return Ok(None);
    }
    let tokenizer = model.second_tokenizer()?;
    let (text_encoder, parameters) = match model.folder() {
        Some(folder) => {
            let folder = folder.component(Component::TextEncoder2.folder());
            ClipTextModelWithProjection::from_folder(&folder, to)?
        }
        None => {
            let config = model.config(Component::TextEncoder2)?;
            model.build(Component::TextEncoder2, to, |vs| ClipTextModelWithProjection::new(vs, &config))?
        }
    };
    Ok(Some((SecondTextEncoder { tokenizer, text_encoder }, parameters)))
}
