//! The loop from noise to latents, with classifier-free guidance.

use anyhow::Result;
use scheduler::{ForwardProcess, Scheduler};
use tch::{Device, Kind, Tensor};
use unet::{AttentionObserver, UNet};

use crate::Step;
use crate::conditioning::Text;
use crate::finite::{Origin, Watch};
use crate::noise::Noise;
use crate::reference::{ReferenceConditioning, ReferencePass};

/// One batch on its way.
pub(crate) struct Denoising<'a> {
    pub(crate) unet: &'a UNet,
    pub(crate) dtype: Kind,
    pub(crate) device: Device,
    pub(crate) scheduler: Box<dyn Scheduler>,
    /// Of [batch] prompts, or of [2 · batch] with the negative ones first.
    pub(crate) text: Text,
    /// None where there are no negative prompts.
    pub(crate) guidance_scale: Option<f64>,
    pub(crate) noise: Vec<Noise>,
    pub(crate) watch: Watch<'a>,
    /// None where the U-Net looks at no reference.
    pub(crate) looking: Option<Looking<'a>>,
}

/// Who is shown what the latents will be, while they are still noisy.
pub(crate) struct Previews<'a> {
    pub(crate) forward: ForwardProcess,
    /// How many, evenly spread over the steps.
    pub(crate) count: usize,
    /// Takes latents [1, channels, h, w] of the batch's first image, f32.
    pub(crate) show: &'a mut dyn FnMut(&Tensor),
}

impl Previews<'_> {
    /// Shows the clean latents that the U-Net's output means, if it is time.
    fn after(&mut self, index: usize, total: usize, timestep: f32, input: &Tensor, output: &Tensor) -> Result<()> {
        let shown = |steps: usize| steps * (self.count + 1) / total;
        if index + 1 < total && shown(index + 1) > shown(index) {
            let first = |tensor: &Tensor| tensor.narrow(0, 0, 1).to_kind(Kind::Float);
            let timestep = Tensor::from_slice(&[timestep.round() as i64]);
            (self.show)(&self.forward.clean(&first(input), &first(output), &timestep)?);
        }
        Ok(())
    }
}

/// What the U-Net looks at in each pass.
pub(crate) struct Looking<'a> {
    pub(crate) conditioning: &'a dyn ReferenceConditioning,
    /// [1, 4, h, w] in the dtype of computation.
    pub(crate) reference: Tensor,
    /// As [`ReferencePass::ids`].
    pub(crate) ids: Vec<Vec<i64>>,
}

impl Denoising<'_> {
    /// Returns the latents [batch, channels, h, w] in f32, the dtype they keep throughout, all of them finite.
    /// `observer` sees each pass of the U-Net.
    pub(crate) fn run(
        mut self,
        mut observer: Option<&mut dyn AttentionObserver>,
        mut previews: Option<Previews<'_>>,
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Tensor> {
        let initial: Vec<&Tensor> = self.noise.iter().map(|noise| &noise.initial).collect();
        let mut latents = Tensor::stack(&initial, 0).to_device(self.device) * self.scheduler.init_noise_sigma();
        let total = self.scheduler.timesteps().len();
        let mut noisy_steps = 0;
        for index in 0..total {
            let _span = tracing::trace_span!("sampling/step").entered();
            let input = self.scheduler.scale_model_input(index, &latents).to_kind(self.dtype);
            let timestep = Tensor::from(self.scheduler.timesteps()[index]);
            let observer = observer.as_mut().map(|observer| &mut **observer as &mut dyn AttentionObserver);
            let output = self.predict(index, &input, &timestep, observer)?;
            let at = self.scheduler.timesteps()[index];
            previews.iter_mut().try_for_each(|previews| previews.after(index, total, at, &input, &output))?;
            let noise = self.scheduler.needs_noise(index).then(|| {
                noisy_steps += 1;
                self.step_noise(noisy_steps - 1)
            });
            let step = || self.scheduler.step(index, &output, &latents, noise.as_ref());
            latents = tracing::trace_span!("sampling/scheduler").in_scope(step)?;
            self.watch.see(Origin::Denoising { step: index + 1, total }, &latents)?;
            on_step(Step { done: index + 1, total });
        }
        self.watch.finish()?;
        Ok(latents)
    }

    /// The U-Net's output in f32, guided towards the prompt: ε = ε_u + s (ε_c − ε_u).
    fn predict(
        &self,
        index: usize,
        input: &Tensor,
        timestep: &Tensor,
        observer: Option<&mut dyn AttentionObserver>,
    ) -> Result<Tensor> {
        let mut made = None;
        let text = self.text.at(index, &mut made);
        let unet = |input: &Tensor| match &self.looking {
            None => self.unet.forward_cached(input, timestep, text, observer),
            Some(Looking { conditioning, reference, ids }) => {
                let pass = ReferencePass { reference, timestep, text, ids, images: self.noise.len() };
                conditioning.predict(self.unet, input, &pass, observer)
            }
        };
        let Some(scale) = self.guidance_scale else { return Ok(unet(input)?.to_kind(Kind::Float)) };
        // Both halves in one pass.
        let output = unet(&Tensor::cat(&[input, input], 0))?.to_kind(Kind::Float).chunk(2, 0);
        let [unconditional, conditional] = [&output[0], &output[1]];
        Ok(unconditional + (conditional - unconditional) * scale)
    }

    /// The noise of all images for the step that is number `index` of those that add some.
    fn step_noise(&self, index: i64) -> Tensor {
        let noise: Vec<Tensor> = self.noise.iter().map(|noise| noise.step(index)).collect();
        libtorch::upload(&Tensor::stack(&noise, 0), self.device)
    }
}
