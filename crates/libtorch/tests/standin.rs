//! The stand-in for a CUDA device is as strict as one, so that tests on it show what would fail on a GPU.
#![allow(clippy::unwrap_used)]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use libtorch::{random, synchronize, upload};
use tch::{Device, Kind, Tensor};

const GPU: Device = Device::Cuda(0);

/// Runs the test of this file called `name`, one of those that need the stand-in.
fn on_the_standin(name: &str) -> std::process::Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    cuda_standin::preload(command.args(["--ignored", "--exact", name])).output().unwrap()
}

fn passes(name: &str) {
    let output = on_the_standin(name);
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Whether a test that is part of another was started by it.
fn started() -> bool {
    let here = cuda_standin::is_here();
    assert!(!here || libtorch::cuda_unavailable().is_none(), "the stand-in was not preloaded");
    here
}

fn refused(words: &str, f: impl FnOnce() -> Tensor) {
    let error = libtorch::catch(f).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn two_devices_do_not_mix() {
    passes("mixed_devices");
}

#[test]
#[ignore = "part of two_devices_do_not_mix"]
fn mixed_devices() {
    if !started() {
        return;
    }
    let here = |shape: &[i64]| random::normal(1, shape);
    let there = |shape: &[i64]| here(shape).to_device(GPU);
    let same = "to be on the same device";
    refused(same, || there(&[2, 2]).matmul(&here(&[2, 2])));
    refused(same, || there(&[2, 2]) + here(&[2, 2]));
    let convolve = |weight: &Tensor, bias: &Tensor| there(&[1, 2, 4, 4]).conv2d(weight, Some(bias), 1, 1, 1, 1);
    refused(same, || convolve(&here(&[2, 2, 3, 3]), &there(&[2])));
    refused(same, || convolve(&there(&[2, 2, 3, 3]), &here(&[2])));
    let attend = |key: &Tensor, mask: &Tensor| {
        let query = there(&[1, 1, 3, 4]);
        Tensor::scaled_dot_product_attention(&query, key, &query, Some(mask), 0.0, false, None, false)
    };
    refused(same, || attend(&here(&[1, 1, 3, 4]), &there(&[3, 3])));
    refused(same, || attend(&there(&[1, 1, 3, 4]), &here(&[3, 3])));
    // Single numbers may come from the host.
    assert_eq!((there(&[2]) * Tensor::from(2.0f32)).to_device(Device::Cpu), here(&[2]) * 2.0);
    assert_eq!(convolve(&there(&[2, 2, 3, 3]), &there(&[2])).device(), GPU);
}

#[test]
fn what_is_not_waited_for_is_not_there() {
    passes("a_download_before_it_arrives");
}

#[test]
#[ignore = "part of what_is_not_waited_for_is_not_there"]
fn a_download_before_it_arrives() {
    if !started() {
        return;
    }
    let numbers = random::normal(1, &[8]);
    let there = upload(&numbers, GPU);
    let back = there.to_device_(Device::Cpu, Kind::Float, /* non_blocking: */ true, false);
    let all_nan = |tensor: &Tensor| bool::try_from(tensor.isnan().all()).unwrap();
    assert!(all_nan(&back));
    // What changes afterwards does not matter.
    let _ = there.shallow_clone().zero_();
    synchronize(GPU);
    assert_eq!(back, numbers);
    // Nor is memory zero before it is written.
    assert!(all_nan(&Tensor::empty([8], (Kind::Float, GPU)).to_device(Device::Cpu)));
    refused("random numbers are drawn on the device", || Tensor::randn([8], (Kind::Float, GPU)));
    refused("invalid device ordinal", || Tensor::zeros([8], (Kind::Float, Device::Cuda(1))));
}

/// LibTorch looks for CUDA once and remembers it; seeded numbers do not make it look.
#[test]
fn a_device_may_come_after_random_numbers() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "random_numbers_before_the_device"]).env("CUDA_STANDIN_LATE", "1");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
#[ignore = "part of a_device_may_come_after_random_numbers"]
fn random_numbers_before_the_device() {
    if std::env::var_os("CUDA_STANDIN_LATE").is_none() {
        return;
    }
    let numbers = random::normals(1, &[8], 2);
    let _ = (random::uniform(1, &[8]), random::integers(1, 9, &[8]));
    let path = std::ffi::CString::new(cuda_standin::library().into_os_string().into_encoded_bytes()).unwrap();
    #[allow(unsafe_code)]
    // Safety: the library registers a device and touches nothing else.
    let opened = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    assert!(!opened.is_null(), "{}", path.to_string_lossy());
    assert_eq!(libtorch::cuda_unavailable(), None);
    assert_eq!(numbers.to_device(GPU).to_device(Device::Cpu), numbers);
}

#[test]
fn the_host_cannot_read_the_devices_memory() {
    const SEGMENTATION_FAULT: i32 = 11;
    let status = on_the_standin("reading_the_devices_memory").status;
    assert_eq!(status.signal(), Some(SEGMENTATION_FAULT), "{status}");
}

#[test]
#[ignore = "part of the_host_cannot_read_the_devices_memory, which it ends"]
fn reading_the_devices_memory() {
    if !started() {
        return;
    }
    let there = random::normal(1, &[8]).to_device(GPU);
    #[allow(unsafe_code)]
    // Safety: there is none, which is what the test is for; the process ends here.
    let number = unsafe { there.data_ptr().cast::<f32>().read_volatile() };
    panic!("the host has read {number}");
}
