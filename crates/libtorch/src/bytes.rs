//! Tensors from and to raw memory.

use std::ops::Deref;

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::Error;

/// Large enough that a thread's work outweighs handing it over.
const COPY_CHUNK: usize = 4 << 20;

/// A new tensor of `shape` whose elements of dtype `kind` stand in `bytes` (little-endian, row-major), converted to `to`.
///
/// On the CPU without a change of dtype this is a single copy, shared among threads.
///
/// # Errors
/// When `bytes` is not as long as `shape` and `kind` say, or memory runs out.
pub fn tensor_from_bytes(bytes: &[u8], kind: Kind, shape: &[i64], to: (Kind, Device)) -> Result<Tensor, Error> {
    let elements = shape.iter().try_fold(1usize, |n, &d| usize::try_from(d).ok().and_then(|d| n.checked_mul(d)));
    let expected = elements.and_then(|n| n.checked_mul(kind.elt_size_in_bytes()));
    if expected != Some(bytes.len()) {
        return Err(Error::Torch(format!("{} bytes cannot hold a {kind:?} tensor of shape {shape:?}", bytes.len())));
    }
    if to != (kind, Device::Cpu) && bytes.as_ptr().align_offset(kind.elt_size_in_bytes()) == 0 {
        let strides = contiguous_strides(shape);
        return crate::catch(|| {
            // Safety: the view does not outlive `bytes`, since the conversion below makes an owned copy.
            let view = unsafe { Tensor::from_blob(bytes.as_ptr(), shape, &strides, kind, Device::Cpu) };
            view.to_device_(to.1, to.0, false, true)
        });
    }
    let tensor = Tensor::f_empty(shape, (kind, Device::Cpu))?;
    if !bytes.is_empty() {
        // Safety: the tensor is new, contiguous, on the CPU and exactly this long.
        let memory = unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<u8>(), bytes.len()) };
        memory
            .par_chunks_mut(COPY_CHUNK)
            .zip(bytes.par_chunks(COPY_CHUNK))
            .for_each(|(to, from)| to.copy_from_slice(from));
    }
    if to == (kind, Device::Cpu) { Ok(tensor) } else { crate::catch(|| tensor.to_device_(to.1, to.0, false, false)) }
}

/// The elements of a tensor as bytes (little-endian, row-major) in this process's memory.
#[derive(Debug)]
pub struct HostBytes(Tensor);

impl HostBytes {
    /// The bytes of `tensor`; copied only when it is on another device or not contiguous.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn of(tensor: &Tensor) -> Result<Self, Error> {
        crate::catch(|| Self(tensor.detach().to_device(Device::Cpu).contiguous()))
    }
}

impl Deref for HostBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let len = self.0.numel() * self.0.kind().elt_size_in_bytes();
        if len == 0 {
            return &[];
        }
        // Safety: the tensor is contiguous, on the CPU and owned, so its memory lives as long as `self`. Like every
        // tensor's it could be written through another handle; this workspace changes parameters between
        // steps only, never while they are saved.
        unsafe { std::slice::from_raw_parts(self.0.data_ptr().cast::<u8>(), len) }
    }
}

fn contiguous_strides(shape: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i].max(1);
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_make_the_same_tensor_as_values() {
        let values: Vec<f32> = (0..24).map(|i| i as f32 * 0.5 - 3.0).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let expected = Tensor::from_slice(&values).reshape([2, 3, 4]);
        let cpu = Device::Cpu;
        let same = tensor_from_bytes(&bytes, Kind::Float, &[2, 3, 4], (Kind::Float, cpu)).unwrap();
        assert_eq!(same, expected);
        let half = tensor_from_bytes(&bytes, Kind::Float, &[2, 3, 4], (Kind::BFloat16, cpu)).unwrap();
        assert_eq!(half, expected.to_kind(Kind::BFloat16));
        assert_eq!(*HostBytes::of(&expected).unwrap(), bytes);
        let swapped = expected.transpose(0, 2).contiguous().transpose(0, 2);
        assert_eq!(*HostBytes::of(&swapped).unwrap(), bytes);
    }

    #[test]
    fn misaligned_bytes_are_converted_too() {
        let mut bytes = vec![0u8];
        bytes.extend(1.5f32.to_le_bytes());
        let tensor = tensor_from_bytes(&bytes[1..], Kind::Float, &[1], (Kind::Double, Device::Cpu)).unwrap();
        assert_eq!(f64::try_from(tensor).unwrap(), 1.5);
    }

    #[test]
    fn a_wrong_length_is_an_error() {
        for shape in [&[3i64] as &[_], &[-1], &[i64::MAX, 2]] {
            assert!(tensor_from_bytes(&[0; 8], Kind::Float, shape, (Kind::Float, Device::Cpu)).is_err());
        }
        assert!(tensor_from_bytes(&[], Kind::Float, &[0, 4], (Kind::Float, Device::Cpu)).is_ok());
    }
}
