//! The loss where a photo is in its image.

use anyhow::{Result, ensure};
use options::MaskedLoss;
use tch::{Kind, Tensor};

/// Less than any mask of 8 bits weighs that is not empty, and more than nothing.
const LEAST: f64 = 1e-6;

/// The loss of each sample, `[batch]` in f32, of squared errors [batch, channels, h, w] under masks [batch, 1, h, w] of
/// 0 to 1: their mean weighted by the mask, or 0 where that is 0 everywhere. Both may require gradients, which are the
/// errors'.
///
/// # Errors
/// When the shapes do not fit each other, or LibTorch refuses.
pub fn masked_loss(squared_error: &Tensor, mask: &Tensor, divisor: MaskedLoss) -> Result<Tensor> {
    let (errors, masks) = (squared_error.size(), mask.size());
    ensure!(
        errors.len() == 4 && masks == [errors[0], 1, errors[2], errors[3]],
        "the masks have shape {masks:?}, but errors of shape {errors:?} need [batch, 1, height, width] of the same \
         batch, height and width"
    );
    Ok(libtorch::catch(|| {
        let mask = mask.to_kind(Kind::Float);
        let sum = |xs: &Tensor| xs.sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Float);
        let channels = match divisor {
            MaskedLoss::Mean => errors[1] as f64,
            MaskedLoss::Reference => 1.0,
        };
        sum(&(squared_error * &mask)) / (sum(&mask).clamp_min(LEAST) * channels)
    })?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn a_full_mask_gives_the_mean_and_the_reference_as_many_times_it_as_there_are_channels() {
        let error = Tensor::rand([2, 4, 3, 3], (Kind::Float, Device::Cpu));
        let full = Tensor::ones([2, 1, 3, 3], (Kind::Uint8, Device::Cpu));
        let mean = error.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float);
        let [ours, theirs] =
            [MaskedLoss::Mean, MaskedLoss::Reference].map(|divisor| masked_loss(&error, &full, divisor).unwrap());
        assert!((&ours - &mean).abs().max().double_value(&[]) < 1e-6);
        assert!((&theirs - &mean * 4.0).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn grey_weighs_between_and_an_empty_mask_loses_nothing() {
        let error = Tensor::from_slice(&[1.0f32, 5.0, 3.0, 7.0]).view([1, 2, 1, 2]).repeat([2, 1, 1, 1]);
        let mask = Tensor::from_slice(&[1.0f32, 0.25, 0.0, 0.0]).view([2, 1, 1, 2]);
        let loss = Vec::<f32>::try_from(masked_loss(&error, &mask, MaskedLoss::Mean).unwrap()).unwrap();
        // (1 + 3 + 0.25 (5 + 7)) / (2 · 1.25)
        assert_eq!(loss, [2.8, 0.0]);
    }

    #[test]
    fn masks_of_another_shape_are_refused() {
        let error = Tensor::zeros([2, 4, 3, 3], (Kind::Float, Device::Cpu));
        for shape in [[2, 4, 3, 3], [1, 1, 3, 3], [2, 1, 3, 2]] {
            let said = masked_loss(&error, &Tensor::ones(shape, (Kind::Float, Device::Cpu)), MaskedLoss::Mean);
            assert!(said.unwrap_err().to_string().contains(&format!("{shape:?}")));
        }
    }
}
