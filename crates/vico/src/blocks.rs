//! The blocks, and the two passes of the U-Net.

use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};
use unet::{
    AttentionObserver, Features, Hooks, Inserted, Insertion, Insertions, KvCache, TransformerBlock, TransformerPlace,
    UNet,
};
use weights::{Parameters, Random, Scope, Source};

use crate::reference::{Positions, References, Watch};

/// What a block's parameters are called below its transformer's name.
pub(crate) const MODULE: &str = "image_cross_attention";
/// More blocks than the paper has there are in no U-Net of more layers either.
const BLOCKS: usize = 4;

/// A block behind each second of the decoder's attention layers, four of Stable Diffusion's nine: those with the numbers 2, 4, 6
/// and 8, counted from 1.
///
/// Each is a transformer block of its own with the heads and the width of its layer, whose context is what the reference's pass has
/// made at the same place, where it shows the subject.
#[derive(Debug)]
pub struct ImageAttention {
    places: Vec<TransformerPlace>,
    blocks: Vec<Arc<Mutex<dyn Insertion>>>,
    parameters: Vec<(String, Tensor)>,
}

#[derive(Debug)]
struct Block(TransformerBlock);

impl Insertion for Block {
    /// The inputs are the reference's features and its mask.
    fn forward(&self, features: &Tensor, inputs: &[Tensor]) -> Tensor {
        self.0.forward_to(features, &inputs[0], &inputs[1])
    }
}

/// The transformers of a U-Net that blocks stand behind.
///
/// # Errors
/// When it has fewer than two attention layers in the decoder.
pub(crate) fn places(unet: &UNet) -> Result<Vec<TransformerPlace>> {
    let decoder = unet.transformers().filter(|place| place.name.starts_with("up_blocks."));
    let places: Vec<TransformerPlace> = decoder.skip(1).step_by(2).take(BLOCKS).cloned().collect();
    ensure!(
        !places.is_empty(),
        "the U-Net has fewer than two attention layers in its decoder, behind whose second one image cross-attention begins"
    );
    Ok(places)
}

impl ImageAttention {
    /// As it is before training: by PyTorch's defaults from a seed, in f32 on a device.
    ///
    /// # Errors
    /// When the U-Net has too few layers, or memory runs out.
    pub fn new(unet: &UNet, seed: u64, device: Device) -> Result<Self> {
        Self::of(unet, &Random { seed }, device)
    }

    /// With the parameters of a source, by their names.
    pub(crate) fn of(unet: &UNet, source: &dyn Source, device: Device) -> Result<Self> {
        let places = places(unet)?;
        let build = |vs: &Scope| {
            let block = |place: &TransformerPlace| -> Arc<Mutex<dyn Insertion>> {
                let vs = vs / &place.name / MODULE;
                Arc::new(Mutex::new(Block(TransformerBlock::new(&vs, place.channels, place.channels, place.heads))))
            };
            Ok(places.iter().map(block).collect())
        };
        let (blocks, parameters): (Vec<_>, Parameters) =
            libtorch::catch(|| weights::build(source, (Kind::Float, device), build))??;
        parameters.check_finite()?;
        let parameters = parameters.iter().map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).collect();
        Ok(Self { places, blocks, parameters })
    }

    /// The same blocks, in the same memory.
    #[must_use]
    pub fn share(&self) -> Self {
        Self {
            places: self.places.clone(),
            blocks: self.blocks.clone(),
            parameters: self.parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect(),
        }
    }

    /// The parameters by name, such as `up_blocks.1.attentions.1.image_cross_attention.attn2.to_k.weight`.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// The reference's pass: a plain one of clean latents [batch, 4, h, w] at the timesteps and with the text of the images that will
    /// look at it, of which each sample, or one for all, has its `positions`. Gradients come through all that it gives.
    ///
    /// # Errors
    /// What the U-Net refuses.
    pub fn look(
        &self,
        unet: &UNet,
        reference: &Tensor,
        timesteps: &Tensor,
        text: &KvCache,
        positions: &[Positions],
    ) -> Result<References> {
        let _span = tracing::trace_span!("vico/reference").entered();
        let batch = reference.size().first().copied().unwrap_or(0);
        ensure!(
            positions.len() == 1 || positions.len() as i64 == batch,
            "there are positions of {} prompts, but references of {batch} images: give one for each, or one for all",
            positions.len()
        );
        let mut watch = Watch::new(&self.places, positions);
        let mut features = Features::of(self.places.iter().map(|place| place.name.as_str()));
        let hooks = Hooks { observer: Some(&mut watch), features: Some(&mut features), insertions: None };
        let _prediction = unet.forward_hooked(reference, timesteps, text, hooks)?;
        Ok(watch.finish(features.seen))
    }

    /// The U-Net's prediction of noisy latents that look at references, one for each; `observer` sees this pass alone.
    ///
    /// # Errors
    /// What the U-Net refuses.
    pub fn predict(
        &self,
        unet: &UNet,
        noisy: &Tensor,
        timesteps: &Tensor,
        text: &KvCache,
        references: &References,
        observer: Option<&mut dyn AttentionObserver>,
    ) -> Result<Tensor> {
        let inserted = |(block, (name, place)): (&Arc<Mutex<dyn Insertion>>, &(String, crate::reference::Place))| {
            let inputs = vec![place.features.shallow_clone(), place.subject.shallow_clone()];
            (name.clone(), Inserted { part: Arc::clone(block), inputs })
        };
        let insertions: Insertions = self.blocks.iter().zip(&references.places).map(inserted).collect();
        // Borrowed as long as the insertions.
        let observer = observer.map(|observer| observer as &mut dyn AttentionObserver);
        unet.forward_hooked(noisy, timesteps, text, Hooks { observer, features: None, insertions: Some(&insertions) })
    }
}
