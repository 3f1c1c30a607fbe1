//! Tensors as images and back.

use images::RgbImage;
use tch::{Device, Kind, Tensor};

/// Finite images [batch, 3, height, width] in [-1, 1] as 8-bit images: (x/2 + 0.5) clamped to [0, 1], times 255, rounded.
pub(crate) fn to_images(images: &Tensor) -> Vec<RgbImage> {
    let bytes = ((images.to_kind(Kind::Float) / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round().to_kind(Kind::Uint8);
    let bytes = bytes.permute([0, 2, 3, 1]).to_device(Device::Cpu).contiguous();
    (0..bytes.size()[0]).map(|i| to_image(&bytes.get(i))).collect()
}

/// Bytes [height, width, 3] as an image.
fn to_image(bytes: &Tensor) -> RgbImage {
    let (height, width, _) = bytes.size3().expect("the caller made it three-dimensional");
    let pixels = Vec::<u8>::try_from(bytes.reshape([-1])).expect("the caller made it bytes");
    RgbImage::from_raw(width as u32, height as u32, pixels).expect("three bytes a pixel")
}

/// An image as [1, 3, height, width] in [-1, 1], f32 on the CPU: x / 127.5 - 1.
pub fn image_to_tensor(image: &RgbImage) -> Tensor {
    let shape = [1, i64::from(image.height()), i64::from(image.width()), 3];
    let bytes = Tensor::from_slice(image.as_raw()).reshape(shape);
    bytes.permute([0, 3, 1, 2]).to_kind(Kind::Float).contiguous() / 127.5 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_survives_the_round_trip() {
        let image = RgbImage::from_fn(5, 4, |x, y| [x as u8 * 63, y as u8 * 85, (x * y) as u8].into());
        let images = image_to_tensor(&image);
        assert_eq!(images.size(), [1, 3, 4, 5]);
        assert_eq!(to_images(&images), [image]);
    }

    #[test]
    fn values_are_rounded_and_clamped() {
        let images = Tensor::from_slice(&[-2.0f32, -0.999, 1.5]).reshape([1, 3, 1, 1]);
        assert_eq!(to_images(&images)[0].as_raw(), &[0, 0, 255]);
        let images = Tensor::from_slice(&[0.0f32, 0.0059, -0.0059]).reshape([1, 3, 1, 1]);
        assert_eq!(to_images(&images)[0].as_raw(), &[128, 128, 127]);
    }
}
