//! What several tests share.
#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};

use golden::{Formula, fixtures};
use model_files::{BaseModel, ModelOptions};
use tch::{Device, Kind, Tensor};
use weights::{Archive, Init, Source, Tensors};

pub(crate) const BASES: [&str; 2] = ["tiny-sd15", "tiny-sd21"];
pub(crate) const F32: (Kind, Device) = (Kind::Float, Device::Cpu);
/// The token that fixtures/export/generate.py adds.
pub(crate) const TOKEN: &str = "<dog>";

pub(crate) fn open(path: &Path) -> BaseModel {
    BaseModel::open(path, &ModelOptions::default()).unwrap()
}

pub(crate) fn base(name: &str) -> PathBuf {
    fixtures().join(name)
}

pub(crate) fn read(folder: &Path) -> Tensors {
    Archive::open_folder(folder).unwrap().tensors().unwrap()
}

pub(crate) fn formula(name: &str, shape: &[i64]) -> Tensor {
    Formula.fetch(name, shape, Init::Const(0.0), F32).unwrap()
}

/// The base's U-Net moved a little, as fixtures/export/generate.py does it.
pub(crate) fn changed_unet(base: &Path) -> Tensors {
    let unet = read(&base.join("unet")).into_iter();
    unet.map(|(name, t)| (name.clone(), &t + formula(&name, &t.size()) * 0.05)).collect()
}

/// The embedding of [`TOKEN`].
pub(crate) fn rows(width: i64) -> Tensor {
    formula("embedding", &[2, width])
}

/// Asserts that two sets of tensors are the same to the last bit.
pub(crate) fn assert_same(what: &str, actual: &Tensors, expected: &Tensors) {
    let names = |tensors: &Tensors| tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(actual), names(expected), "{what}");
    for (name, tensor) in actual {
        assert_eq!(tensor.kind(), expected[name].kind(), "{what}: {name}");
        assert!(tensor.equal(&expected[name]), "{what}: {name} differs");
    }
}

/// A copy of a base model, to be damaged.
pub(crate) fn copy_of(name: &str, to: &Path) -> PathBuf {
    let copied = to.join(name);
    golden::copy_folder(&base(name), &copied);
    copied
}
