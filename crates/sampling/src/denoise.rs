//! The loop from noise to latents, with classifier-free guidance.

use anyhow::Result;
use scheduler::Scheduler;
use tch::{Device, Kind, Tensor};
use unet::{AttentionObserver, KvCache};

use crate::finite::{Origin, Watch};
use crate::noise::Noise;
use crate::request::guides;
use crate::{Pipeline, Request, Settings, Step};

/// One batch on its way.
pub(crate) struct Denoising<'a> {
    pipeline: &'a Pipeline,
    settings: &'a Settings,
    scheduler: Box<dyn Scheduler>,
    /// Of [batch] prompts, or of [2 · batch] with the negative ones first.
    text: KvCache,
    noise: Vec<Noise>,
    watch: Watch<'a>,
}

impl<'a> Denoising<'a> {
    pub(crate) fn new(pipeline: &'a Pipeline, requests: &'a [Request], settings: &'a Settings) -> Result<Self> {
        let scheduler = pipeline.sampler(settings)?;
        let draws = (0..scheduler.timesteps().len()).filter(|&i| scheduler.needs_noise(i)).count() as i64;
        let shape = pipeline.latents_shape(settings);
        let noise = requests.iter().map(|request| Noise::new(request, shape, draws)).collect();

        let mut prompts: Vec<&str> = Vec::new();
        if guides(settings) {
            prompts.extend(requests.iter().map(|request| request.negative_prompt.as_str()));
        }
        prompts.extend(requests.iter().map(|request| request.prompt.as_str()));
        let states = pipeline.encode_prompts(&prompts)?;
        let mut watch = Watch::new(requests, pipeline.compute_dtype(), guides(settings));
        watch.see(Origin::TextEncoder, &states)?;
        let text = pipeline.unet.project(&states)?;
        Ok(Self { pipeline, settings, scheduler, text, noise, watch })
    }

    /// Returns the latents [batch, channels, h, w] in f32, the dtype they keep throughout, all of them finite.
    /// `observer` sees each pass of the U-Net.
    pub(crate) fn run(
        mut self,
        mut observer: Option<&mut dyn AttentionObserver>,
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Tensor> {
        let (dtype, device) = (self.pipeline.compute_dtype(), self.pipeline.placement().1);
        let initial: Vec<&Tensor> = self.noise.iter().map(|noise| &noise.initial).collect();
        let mut latents = Tensor::stack(&initial, 0).to_device(device) * self.scheduler.init_noise_sigma();
        let total = self.scheduler.timesteps().len();
        let mut draws = 0;
        let _frozen = self.pipeline.parameters.unet.frozen(self.pipeline.packed_bytes());
        for index in 0..total {
            let _span = tracing::trace_span!("sampling/step").entered();
            let input = self.scheduler.scale_model_input(index, &latents).to_kind(dtype);
            let timestep = Tensor::from(self.scheduler.timesteps()[index]);
            let observer = observer.as_mut().map(|observer| &mut **observer as &mut dyn AttentionObserver);
            let output = self.predict(&input, &timestep, observer)?;
            let noise = self.scheduler.needs_noise(index).then(|| {
                draws += 1;
                self.draw(draws - 1, device)
            });
            let step = || self.scheduler.step(index, &output, &latents, noise.as_ref());
            latents = tracing::trace_span!("sampling/scheduler").in_scope(step)?;
            self.watch.see(Origin::Denoising { step: index + 1, total }, &latents)?;
            on_step(Step { done: index + 1, total });
        }
        self.watch.finish()?;
        Ok(latents)
    }

    /// The U-Net's answer in f32, led towards the prompt: ε = ε_u + s (ε_c − ε_u).
    fn predict(
        &self,
        input: &Tensor,
        timestep: &Tensor,
        observer: Option<&mut dyn AttentionObserver>,
    ) -> Result<Tensor> {
        let unet = |input: &Tensor| self.pipeline.unet.forward_cached(input, timestep, &self.text, observer);
        if !guides(self.settings) {
            return Ok(unet(input)?.to_kind(Kind::Float));
        }
        // Both halves in one pass.
        let output = unet(&Tensor::cat(&[input, input], 0))?.to_kind(Kind::Float).chunk(2, 0);
        let [unconditional, conditional] = [&output[0], &output[1]];
        Ok(unconditional + (conditional - unconditional) * self.settings.guidance_scale)
    }

    /// Draw number `index` of all pictures.
    fn draw(&self, index: i64, device: Device) -> Tensor {
        let noise: Vec<Tensor> = self.noise.iter().map(|noise| noise.step(index)).collect();
        libtorch::upload(&Tensor::stack(&noise, 0), device)
    }
}
