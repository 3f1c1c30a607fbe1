//! A running average of parameters.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use options::optimizer::EmaConfig;
use tch::{Kind, Tensor};
use weights::{Archive, Init};

use crate::parameters::collect;

/// The exponential moving average of parameters, with handles to them.
#[derive(Debug)]
pub struct Ema {
    config: EmaConfig,
    updates: u64,
    pairs: Vec<Pair>,
}

#[derive(Debug)]
struct Pair {
    name: String,
    parameter: Tensor,
    average: Tensor,
}

impl Ema {
    /// Starts from a copy of the parameters.
    ///
    /// # Errors
    /// When `decay` is out of range, a parameter is not f32, given twice or on another device than the first, or
    /// memory runs out.
    pub fn new<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a Tensor)>, config: &EmaConfig) -> Result<Self> {
        let (parameters, _) = collect(parameters)?;
        let pairs = libtorch::catch(|| pairs(parameters, |_, parameter| parameter.detach().copy()));
        Self::start(config, 0, pairs.context("cannot allocate the parameters' averages")?)
    }

    /// Resumes from what [`Ema::save`] wrote for the same parameters.
    ///
    /// # Errors
    /// As [`Ema::new`]; and when the file cannot be read, or is not of these parameters: then all names that are
    /// missing, left over or of another shape are listed (a [`weights::LoadError`]).
    pub fn load<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
        config: &EmaConfig,
        path: &Path,
    ) -> Result<Self> {
        let (parameters, device) = collect(parameters)?;
        let archive = Archive::open(path)?;
        let updates = archive.metadata().get(UPDATES).and_then(|text| text.parse().ok());
        let updates = updates.ok_or_else(|| {
            anyhow!("{} does not say after how many updates it was saved; is it an average?", path.display())
        })?;
        let (pairs, _) = weights::build(&archive, (Kind::Float, device), |vs| {
            Ok(pairs(parameters, |name, parameter| vs.get(name, &parameter.size(), Init::Const(0.0))))
        })
        .context("the saved averages are not those of the parameters to train")?;
        Self::start(config, updates, pairs)
    }

    fn start(config: &EmaConfig, updates: u64, pairs: Vec<Pair>) -> Result<Self> {
        config.validate()?;
        Ok(Self { config: config.clone(), updates, pairs })
    }

    /// Writes the averages to a safetensors file under the parameters' names, so that it is also a weights file.
    ///
    /// # Errors
    /// When the file cannot be written; then whatever was there before is unchanged.
    pub fn save(&self, path: &Path) -> Result<()> {
        let [(key, updates)] = self.metadata();
        weights::save_with_metadata(path, self.averages(), &[(key, &updates)])
    }

    /// What [`Ema::load`] reads beside the averages, from the file's metadata.
    pub fn metadata(&self) -> [(&'static str, String); 1] {
        [(UPDATES, self.updates.to_string())]
    }

    /// The averages by the parameters' names.
    pub fn averages(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.pairs.iter().map(|pair| (pair.name.as_str(), &pair.average))
    }

    /// Takes the parameters' present values into the averages.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn update(&mut self) -> Result<()> {
        self.updates = self.updates.saturating_add(1);
        let weight = 1.0 - self.decay();
        let lerp = |Pair { parameter, average, .. }: &mut Pair| _ = average.lerp_(&parameter.detach(), weight);
        Ok(libtorch::catch(|| self.pairs.iter_mut().for_each(lerp))?)
    }

    /// Exchanges the values of the parameters and the averages: once before the averages are tried out or saved as a
    /// model, and once after.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn swap(&mut self) -> Result<()> {
        let swap = |Pair { parameter, average, .. }: &mut Pair| {
            let before = parameter.detach().copy();
            parameter.copy_(average);
            average.copy_(&before);
        };
        Ok(libtorch::catch(|| tch::no_grad(|| self.pairs.iter_mut().for_each(swap)))?)
    }

    /// What the present update keeps.
    fn decay(&self) -> f64 {
        match self.updates {
            1 if self.config.warm_up => 0.0,
            n if self.config.warm_up => self.config.decay.min(n as f64 / (n as f64 + 9.0)),
            _ => self.config.decay,
        }
    }
}

/// The key of the file's metadata that counts the updates.
const UPDATES: &str = "updates";

fn pairs(parameters: Vec<(String, Tensor)>, average: impl Fn(&str, &Tensor) -> Tensor) -> Vec<Pair> {
    let pair = |(name, parameter): (String, Tensor)| {
        let average = average(&name, &parameter);
        Pair { name, parameter, average }
    };
    parameters.into_iter().map(pair).collect()
}
