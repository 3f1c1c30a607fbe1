//! For tests only: golden tensors, and procedural weights that Python and Rust fill alike.
//!
//! A golden is a safetensors file in `fixtures/<component>/` with the inputs and outputs that the reference
//! implementation produced; the `generate.py` beside it made it. [`Golden::assert_close`] compares by the largest
//! error relative to the largest reference value. [`Formula`] fills models of the full size from
//! (tensor name, index), as `fixtures/fill.py` does, so that nothing large is committed; [`Hollow`] builds such
//! models without numbers. A [`Digest`] stands for a parameter's change where the change itself would be too large a file.
//!
//! Invariant: a dev-dependency, never part of the product; here panics are the way to report.

mod digest;
mod formula;
mod hollow;

use std::path::{Path, PathBuf};
use std::{fs, io};

use tch::{Kind, Tensor};
use weights::{Archive, Tensors};

pub use digest::Digest;
pub use formula::Formula;
pub use hollow::Hollow;

/// The folder of all fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").canonicalize().expect("the workspace has fixtures")
}

/// Copies a folder and all below it into `to`, which need not exist: a model or a run to be damaged.
pub fn copy_folder(from: &Path, to: &Path) {
    fn copy(from: &Path, to: &Path) -> io::Result<()> {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let to = to.join(entry.file_name());
            if entry.path().is_dir() { copy(&entry.path(), &to)? } else { fs::copy(entry.path(), to).map(|_| ())? }
        }
        Ok(())
    }
    copy(from, to).unwrap_or_else(|error| panic!("{} cannot be copied: {error}", from.display()));
}

/// The tensors of one golden file.
#[derive(Debug)]
pub struct Golden {
    path: PathBuf,
    tensors: Tensors,
}

impl Golden {
    /// Opens `fixtures/<path>`.
    pub fn open(path: &str) -> Self {
        let path = fixtures().join(path);
        let tensors = Archive::open(&path).map_err(Into::into).and_then(|a| a.tensors());
        Self { tensors: tensors.unwrap_or_else(|error| panic!("{}: {error}", path.display())), path }
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Tensor {
        let found = self.tensors.get(name).map(Tensor::shallow_clone);
        found.unwrap_or_else(|| panic!("{} has no tensor {name:?}", self.path.display()))
    }

    /// The names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Asserts that `actual` has the reference's shape and differs from it by at most `tolerance` times the
    /// reference's largest magnitude. Prints the error that was measured.
    pub fn assert_close(&self, name: &str, actual: &Tensor, tolerance: f64) {
        assert_close(&format!("{} {name}", self.path.display()), actual, &self.get(name), tolerance);
    }
}

/// Asserts that two tensors are close, as [`Golden::assert_close`] does.
pub fn assert_close(what: &str, actual: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(actual.size(), expected.size(), "{what}: shape");
    let error = relative_error(actual, expected);
    #[expect(clippy::print_stdout, reason = "cargo test shows it on request and on failure")]
    {
        println!("{what}: relative error {error:.2e} (bound {tolerance:.0e})");
    }
    assert!(error <= tolerance, "{what}: relative error {error:.2e} exceeds {tolerance:.0e}");
}

/// The largest difference relative to the largest magnitude of `expected`; infinite when either has a NaN.
pub fn relative_error(actual: &Tensor, expected: &Tensor) -> f64 {
    let actual = actual.detach().to_kind(Kind::Double);
    let expected = expected.detach().to_kind(Kind::Double);
    let largest = expected.abs().max().double_value(&[]);
    let difference = (actual - expected).abs().max().double_value(&[]);
    let error = if largest == 0.0 { difference } else { difference / largest };
    if error.is_nan() { f64::INFINITY } else { error }
}
