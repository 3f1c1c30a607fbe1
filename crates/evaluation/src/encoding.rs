//! What all image encoders share: images prepared by all cores, features of length 1.

use anyhow::{Context, Result, ensure};
use clip::ImageProcessor;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tch::{Device, Kind, Tensor};

use crate::ImageFile;

/// [batch, 3, height, width] on the CPU.
pub(crate) fn prepare(images: &[ImageFile], processor: &ImageProcessor) -> Result<Tensor> {
    let prepare = |image: &ImageFile| libtorch::catch(|| image.prepare(processor))?;
    let prepared = images.par_iter().map(prepare).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::stack(&prepared, 0))
}

/// An image encoder's features without gradients, of length 1, on the CPU; finite.
pub(crate) fn unit(features: impl Fn() -> Result<Tensor>) -> Result<Tensor> {
    let features = libtorch::catch(|| tch::no_grad(features))??.to_kind(Kind::Float);
    let length = features.square().sum_dim_intlist(-1, true, Kind::Float).sqrt();
    let features = (features / length).to_device(Device::Cpu);
    ensure!(
        libtorch::catch(|| features.isfinite().all().int64_value(&[]) == 1)?,
        "CLIP or DINO gives features that are not finite, which no score can be made of: its weights are damaged; fetch or convert \
         them again"
    );
    Ok(features)
}

/// Threads that prepare images, as many as LibTorch has. Within each, LibTorch works alone: they would take the cores
/// from each other otherwise.
pub(crate) fn preparers() -> Result<ThreadPool> {
    let threads = tch::get_num_threads();
    let pool = ThreadPoolBuilder::new().num_threads(threads.max(1) as usize);
    let pool = pool.start_handler(|_| tch::set_num_threads(1)).build().context("cannot start threads")?;
    // LibTorch keeps the number for each thread, and the last one given for threads that are still to come: when all of
    // the pool have started, that is set right.
    pool.broadcast(|_| ());
    tch::set_num_threads(threads);
    Ok(pool)
}
