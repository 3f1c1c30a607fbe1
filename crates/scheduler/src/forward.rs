//! The forward process of training: noisy samples, targets, signal-to-noise ratios.

use tch::{Device, Kind, Tensor};

use crate::step::ensure_alike;
use crate::{Error, NoiseSchedule, PredictionType, SchedulerConfig};

/// Noises clean samples for training, x_t = √ᾱ_t x₀ + √(1 − ᾱ_t) ε (Ho et al. 2020, eq. 4), each sample of a batch at
/// its own timestep.
///
/// `timesteps` is always int64 `[batch]` with values from 0 to T − 1, and is checked when it is on the CPU; on a GPU only
/// its type and shape are, for looking at the values would wait for the GPU. Results are computed in f32 and then
/// rounded once to the sample's dtype.
#[derive(Debug)]
pub struct ForwardProcess {
    /// f32 [T].
    alphas_cumprod: Tensor,
    prediction_type: PredictionType,
}

impl ForwardProcess {
    /// Puts the tables of `config` on `device`.
    ///
    /// # Errors
    /// As [`NoiseSchedule::new`].
    pub fn new(config: &SchedulerConfig, device: Device) -> Result<Self, Error> {
        let schedule = NoiseSchedule::new(config)?;
        let alphas_cumprod = Tensor::from_slice(schedule.alphas_cumprod()).to_device(device);
        Ok(Self { alphas_cumprod, prediction_type: config.prediction_type })
    }

    /// The number T of timesteps; draw them from 0 to T − 1.
    pub fn num_train_timesteps(&self) -> i64 {
        self.alphas_cumprod.size().iter().product()
    }

    /// √ᾱ x₀ + √(1 − ᾱ) ε of `sample` and `noise`, both `[batch, …]`.
    ///
    /// # Errors
    /// Shapes or devices that differ, or unusable timesteps.
    pub fn add_noise(&self, sample: &Tensor, noise: &Tensor, timesteps: &Tensor) -> Result<Tensor, Error> {
        ensure_alike("the noise", noise, sample)?;
        let (alpha, sigma) = self.levels(sample, timesteps)?;
        Ok((alpha * sample + sigma * noise).to_kind(sample.kind()))
    }

    /// v = √ᾱ ε − √(1 − ᾱ) x₀ of `sample` and `noise`, both `[batch, …]` (Salimans & Ho 2022, appendix D).
    ///
    /// # Errors
    /// Shapes or devices that differ, or unusable timesteps.
    pub fn velocity(&self, sample: &Tensor, noise: &Tensor, timesteps: &Tensor) -> Result<Tensor, Error> {
        ensure_alike("the noise", noise, sample)?;
        let (alpha, sigma) = self.levels(sample, timesteps)?;
        Ok((alpha * noise - sigma * sample).to_kind(sample.kind()))
    }

    /// What the model should predict: the noise, the velocity or the sample, by the configured `prediction_type`.
    ///
    /// # Errors
    /// Shapes or devices that differ, or unusable timesteps.
    pub fn target(&self, sample: &Tensor, noise: &Tensor, timesteps: &Tensor) -> Result<Tensor, Error> {
        match self.prediction_type {
            PredictionType::Epsilon => Ok(noise.shallow_clone()),
            PredictionType::Sample => Ok(sample.shallow_clone()),
            PredictionType::VPrediction => self.velocity(sample, noise, timesteps),
        }
    }

    /// The clean sample x₀ that a model's `output` for the noisy `sample` x_t means, both `[batch, …]`: [`ForwardProcess::target`] the
    /// other way round.
    ///
    /// # Errors
    /// Shapes or devices that differ, or unusable timesteps.
    pub fn clean(&self, sample: &Tensor, output: &Tensor, timesteps: &Tensor) -> Result<Tensor, Error> {
        ensure_alike("the output", output, sample)?;
        let (alpha, sigma) = self.levels(sample, timesteps)?;
        let clean = match self.prediction_type {
            PredictionType::Epsilon => (sample - sigma * output) / alpha,
            PredictionType::Sample => output.shallow_clone(),
            PredictionType::VPrediction => alpha * sample - sigma * output,
        };
        Ok(clean.to_kind(sample.kind()))
    }

    /// The signal-to-noise ratio ᾱ / (1 − ᾱ) of each of `timesteps`, f32 `[batch]` on the tables' device.
    ///
    /// # Errors
    /// Unusable timesteps.
    pub fn snr(&self, timesteps: &Tensor) -> Result<Tensor, Error> {
        let alphas_cumprod = self.at(timesteps, timesteps.size().first().copied().unwrap_or(1))?;
        Ok(&alphas_cumprod / (1.0 - &alphas_cumprod))
    }

    /// √ᾱ and √(1 − ᾱ) on `sample`'s device, shaped to multiply it: f32 [batch, 1, …].
    fn levels(&self, sample: &Tensor, timesteps: &Tensor) -> Result<(Tensor, Tensor), Error> {
        let mut shape = vec![1; sample.dim()];
        let batch = *sample.size().first().unwrap_or(&1);
        if let Some(first) = shape.first_mut() {
            *first = batch;
        }
        let alphas_cumprod = self.at(timesteps, batch)?.to_device(sample.device()).reshape(shape);
        let remainder: Tensor = 1.0 - &alphas_cumprod;
        Ok((alphas_cumprod.sqrt(), remainder.sqrt()))
    }

    fn at(&self, timesteps: &Tensor, batch: i64) -> Result<Tensor, Error> {
        let last = self.num_train_timesteps() - 1;
        let problem = if timesteps.kind() != Kind::Int64 || timesteps.size() != [batch] {
            Some(format!("{:?} {:?}", timesteps.kind(), timesteps.size()))
        } else if timesteps.device() == Device::Cpu && batch > 0 {
            let (least, most) = (timesteps.min().int64_value(&[]), timesteps.max().int64_value(&[]));
            (least < 0 || most > last).then(|| format!("from {least} to {most}"))
        } else {
            None
        };
        match problem {
            Some(actual) => Err(Error::Timesteps { actual, batch, last: last as usize }),
            None => Ok(self.alphas_cumprod.index_select(0, &timesteps.to_device(self.alphas_cumprod.device()))),
        }
    }
}
