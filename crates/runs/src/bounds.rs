//! What a configuration may ask for.

use anyhow::{Context, Result, ensure};

use options::Dtype;

use crate::{Captions, Group, Masks, Phase, Prior, Reference, Stop, TrainConfig, Validation};

// The bounds are far above what anybody trains with; together they keep the number of a photo within 48 bits.
/// Steps of a phase, and of a sampler.
const MAX_STEPS: usize = 1_000_000;
/// Batch size.
const MAX_BATCH: usize = 1024;
/// Batches of a step.
const MAX_ACCUMULATION: usize = 65_536;
/// Class images, or validation prompts.
const MAX_IMAGES: usize = 100_000;
/// The vectors of \[V\]: CLIP's text encoder has 77 positions, of which two are the start's and the end's.
const MAX_VECTORS: usize = 75;

/// Subjects beside the first.
const MAX_CONCEPTS: usize = 100;

impl TrainConfig {
    /// Checks what can be checked without the model and the photos.
    ///
    /// # Errors
    /// Names the key and its value.
    pub fn validate(&self) -> Result<()> {
        ensure!(!self.category.trim().is_empty(), "category is empty: give the class noun of the subject (--category)");
        limits::within(
            "vectors",
            self.vectors,
            1..=MAX_VECTORS,
            "[V] and the prompt share the text encoder's positions",
        )?;
        self.check_further().context("more_concepts")?;
        ensure!(self.checkpoint_every > 0, "checkpoint_every is 0, but must be at least 1");
        let shown = terminal::shortened(&self.prompt);
        ensure!(self.prompt.matches("[V]").count() == 1, "prompt is {shown:?}, but must have [V] exactly once");
        ensure!(!self.phases.is_empty(), "phases is empty, but a training needs at least one");
        let Validation { steps, prompts, guidance_scale, eta, .. } = &self.validation;
        limits::within("steps", *steps, 1..=MAX_STEPS, "they are done one by one").context("validation")?;
        limits::within("the number of prompts", prompts.len(), 0..=MAX_IMAGES, "an image of each is generated")
            .context("validation")?;
        limits::within("guidance_scale", *guidance_scale, -1000.0..=1000.0, "more leaves nothing of the image")
            .context("validation")?;
        limits::within("eta", eta.unwrap_or(0.0), 0.0..=1.0, "1 is all of DDPM's noise").context("validation")?;
        ensure!(self.dtype != Dtype::Fp16, "dtype is fp16, but training needs fp32, tf32 or bf16");
        for (name, phase) in &self.phases {
            phase.validate().with_context(|| format!("phase {}", terminal::shortened(name)))?;
            self.check_groups(phase).with_context(|| format!("phase {}", terminal::shortened(name)))?;
        }
        for (key, value) in [("max_grad_norm", self.max_grad_norm), ("snr_gamma", self.snr_gamma)] {
            ensure!(value.is_none_or(|v| v > 0.0 && v.is_finite()), "{key} is {value:?}, but must be more than zero");
        }
        if let Some(prior) = &self.prior {
            prior.validate().context("prior")?;
        }
        if let Some(Reference { attention_weight: weight }) = &self.reference {
            ensure!(
                *weight >= 0.0 && weight.is_finite(),
                "reference.attention_weight is {weight}, but must be zero or more"
            );
        }
        if let Some(ema) = &self.ema {
            ema.validate()?;
        }
        self.optimizer.validate()?;
        if let Some(adapter) = &self.adapter {
            adapter.validate()?;
        }
        self.augmentation.validate()?;
        if let Some(sizes) = &self.sizes {
            sizes.augmentation.validate().context("sizes")?;
        }
        self.check_companions()?;
        self.check_stop().context("stop")
    }

    /// What is used with photos, and what that does not go with.
    fn check_companions(&self) -> Result<()> {
        if let Some(Captions { template }) = &self.captions {
            let shown = terminal::shortened(template);
            ensure!(
                template.matches(Captions::CAPTION).count() == 1 && template.matches("[V]").count() <= 1,
                "captions.template is {shown:?}, but must have {} exactly once, and [V] at most once",
                Captions::CAPTION
            );
        }
        if let Some(Masks { unmasked_weight }) = &self.masks {
            limits::within("masks.unmasked_weight", *unmasked_weight, 0.0..=1.0, "a white mask weighs 1")?;
        }
        if let Some(crops) = self.cache_latents {
            limits::within("cache_latents", crops, 1..=1024, "it is the number of crops of each photo")?;
        }
        for (key, is_set) in [("masks", self.masks.is_some()), ("buckets", self.buckets)] {
            ensure!(
                !is_set || self.sizes.is_none(),
                "{key} and sizes are both set, but sizes places whole photos in squares with masks of their own: set sizes to \
                 null, or leave {key} out"
            );
        }
        Ok(())
    }

    /// What a run that may end early must have.
    fn check_stop(&self) -> Result<()> {
        let Some(stop) = &self.stop else { return Ok(()) };
        stop.validate()?;
        ensure!(self.last_phase().is_some(), "no phase has steps, of which it could end the last");
        ensure!(
            !self.keep_checkpoint,
            "keep_checkpoint is for --extend, but a run that ends by its measurements cannot be extended: leave one of them out"
        );
        let only_embedding = |phase: &Phase| phase.trains.keys().all(|group| *group == Group::Embedding);
        ensure!(
            matches!(stop, Stop::Auto(_))
                || self.phases.values().all(|phase| phase.steps == 0 || only_embedding(phase)),
            "type is \"dvar\", which is for methods that train nothing but an embedding, as textual-inversion: give --stop auto"
        );
        Ok(())
    }

    /// What several subjects must have.
    fn check_further(&self) -> Result<()> {
        limits::within("their number", self.more_concepts.len(), 0..=MAX_CONCEPTS, "each has photos and a token")?;
        let mut taken = vec![self.placeholder.as_str()];
        for further in &self.more_concepts {
            let name = terminal::shortened(&further.placeholder);
            ensure!(!further.category.trim().is_empty(), "the category of {name} is empty: give its class noun");
            ensure!(
                self.new_token,
                "{name} is a new token, but new_token is false of {}: set it to true, or train each subject alone",
                terminal::shortened(&self.placeholder)
            );
            ensure!(
                !taken.contains(&further.placeholder.as_str()),
                "the placeholder {name} is that of two subjects: give each its own"
            );
            taken.push(&further.placeholder);
        }
        ensure!(
            self.more_concepts.is_empty() || !self.phases.values().any(Phase::regularizes),
            "there are several subjects, but lambda_mean and lambda_variance regularise attention in the prompt of one: give \
             another --method, or train each alone"
        );
        Ok(())
    }

    /// What one phase and the rest must agree on.
    fn check_groups(&self, phase: &Phase) -> Result<()> {
        ensure!(
            self.new_token || !phase.trains.contains_key(&Group::Embedding),
            "trains has embedding, but the token {} is the model's own: set new_token to true",
            terminal::shortened(&self.placeholder)
        );
        if phase.regularizes() && self.captions.is_none() {
            let shown = terminal::shortened(&self.prompt);
            ensure!(
                self.templates.is_none(),
                "lambda_mean and lambda_variance regularise attention in one prompt, but templates has several"
            );
            ensure!(
                self.prompt.contains("[V] [category]"),
                "prompt is {shown:?}, but must have [category] right after [V], as attention is regularised"
            );
        }
        Ok(())
    }
}

impl Prior {
    fn validate(&self) -> Result<()> {
        let Self { images, prompt, weight, steps, .. } = self;
        limits::within("images", *images, 1..=MAX_IMAGES, "all of them are held in memory")?;
        limits::within("steps", *steps, 1..=MAX_STEPS, "they are done one by one")?;
        let shown = terminal::shortened(prompt);
        ensure!(!prompt.contains("[V]"), "prompt is {shown:?}, but class images do not show [V]");
        ensure!(*weight >= 0.0 && weight.is_finite(), "weight is {weight}, but must be zero or more");
        Ok(())
    }
}

impl Phase {
    fn validate(&self) -> Result<()> {
        let Self { steps, batch_size, gradient_accumulation, learning_rate, .. } = *self;
        ensure!(!self.trains.is_empty(), "trains is empty, but a phase needs something to train");
        let groups: Vec<Group> = self.trains.keys().copied().collect();
        for (i, a) in groups.iter().enumerate() {
            if let Some(b) = groups[..i].iter().find(|b| a.overlaps(**b)) {
                anyhow::bail!("trains has {a} and {b}, which share parameters: keep one of them");
            }
        }
        limits::within("steps", steps, 0..=MAX_STEPS, "they are done one by one")?;
        limits::within("warm_up", self.warm_up, 0..=MAX_STEPS, "they are steps of the phase")?;
        limits::within("batch_size", batch_size, 1..=MAX_BATCH, "a batch is held in memory")?;
        limits::within(
            "gradient_accumulation",
            gradient_accumulation,
            1..=MAX_ACCUMULATION,
            "batches are done one by one",
        )?;
        for rate in self.trains.values().filter_map(|group| group.learning_rate).chain([learning_rate]) {
            ensure!(rate >= 0.0 && rate.is_finite(), "learning_rate is {rate}, but must be zero or more");
        }
        for (key, value) in [("lambda_mean", self.lambda_mean), ("lambda_variance", self.lambda_variance)] {
            ensure!(value >= 0.0 && value.is_finite(), "{key} is {value}, but must be zero or more");
        }
        Ok(())
    }
}
