//! A LibTorch found on this machine, wherever it came from.

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use anyhow::{Context, bail, ensure};

use super::loader;

/// The only version that tch 0.24 accepts.
pub(super) const VERSION: &str = "2.11.0";

/// A folder with `include/` and `lib/` of the right LibTorch: an unpacked archive, or the `torch` of a Python.
#[derive(Debug)]
pub(super) struct Installation {
    root: PathBuf,
    /// As the installation itself says, with its build: `2.11.0+cu130`.
    version: String,
}

impl Installation {
    /// The installation at `root`, if it is one and of the right version; links in `root` itself are resolved.
    pub(super) fn at(root: &Path) -> anyhow::Result<Self> {
        let root = root.canonicalize().with_context(|| format!("there is no {}", root.display()))?;
        // LIBTORCH may be a folder of links as ours is; what they lead to is what counts.
        let root =
            root.join("include").canonicalize().ok().and_then(|path| Some(path.parent()?.to_owned())).unwrap_or(root);
        for part in ["include/torch", "include/ATen", "lib/libtorch_cpu.so", "lib/libc10.so", "lib/libtorch.so"] {
            ensure!(root.join(part).exists(), "there is no {part} in {}", root.display());
        }
        let version = version(&root)?;
        let release = version.split('+').next().unwrap_or_default();
        if release != VERSION {
            bail!("{} is version {version}, not {VERSION}", root.display());
        }
        Ok(Self { root, version })
    }

    /// The folder with `include/` and `lib/`, without links.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Every library that LibTorch's CPU half needs must be found by the system's loader.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.check_library("libtorch_cpu.so")
    }

    /// The same for the CUDA half, which the program opens at run time from beside the real `libtorch_cpu.so`.
    pub(super) fn cuda(&self) -> anyhow::Result<()> {
        ensure!(self.root.join("lib/libtorch_cuda.so").exists(), "{} has no CUDA libraries", self.root.display());
        self.check_library("libtorch_cuda.so")
    }

    fn check_library(&self, name: &str) -> anyhow::Result<()> {
        let missing = loader::missing(&self.root.join("lib").join(name))?;
        ensure!(missing.is_empty(), "its {name} needs {}, which the loader does not find", missing.join(", "));
        Ok(())
    }

    /// What a program linked with the CPU half needs in its library folder: name and file of each.
    ///
    /// Not `libtorch_cuda.so`: one program serves machines with and without CUDA.
    pub(super) fn libraries(&self) -> anyhow::Result<Vec<(String, PathBuf)>> {
        let lib = self.root.join("lib");
        let mut libraries = Vec::new();
        for name in ["libtorch.so", "libtorch_cpu.so", "libc10.so"] {
            libraries.push((name.to_owned(), lib.join(name).canonicalize()?));
        }
        // Those beside it (a wheel's libgomp, libcudart, libcupti) are found relative to the real file only.
        let home = self.root.parent().filter(|_| self.root.ends_with("torch")).unwrap_or(&self.root);
        for (name, file) in loader::found(&lib.join("libtorch_cpu.so"))? {
            let file = file.canonicalize().with_context(|| format!("{} cannot be read", file.display()))?;
            if file.starts_with(home) && !libraries.iter().any(|(known, _)| *known == name) {
                libraries.push((name, file));
            }
        }
        Ok(libraries)
    }
}

/// `2.11.0+cu130 (with CUDA) from /opt/libtorch`
impl fmt::Display for Installation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cuda = if self.cuda().is_ok() { "with CUDA" } else { "CPU only" };
        write!(formatter, "{} ({cuda}) from {}", self.version, crate::workspace::display(&self.root))
    }
}

/// From the archive's `build-version`, the wheel's `version.py`, or else the header, which does not name the build.
fn version(root: &Path) -> anyhow::Result<String> {
    if let Ok(text) = fs::read_to_string(root.join("build-version")) {
        return Ok(text.trim().to_owned());
    }
    let quoted = |text: String, key: &str| {
        let after = text.split_once(key)?.1;
        Some(after.split(['\'', '"']).nth(1)?.to_owned())
    };
    let python = fs::read_to_string(root.join("version.py")).ok().and_then(|text| quoted(text, "__version__ = "));
    let header = || {
        let header = fs::read_to_string(root.join("include/torch/headeronly/version.h")).ok()?;
        quoted(header, "#define TORCH_VERSION ")
    };
    python.or_else(header).with_context(|| format!("{} does not say which version it is", root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(version_file: &str, text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for part in ["include/torch/headeronly", "include/ATen", "lib"] {
            fs::create_dir_all(dir.path().join(part)).unwrap();
        }
        for library in ["libtorch.so", "libtorch_cpu.so", "libc10.so"] {
            fs::copy(std::env::current_exe().unwrap(), dir.path().join("lib").join(library)).unwrap();
        }
        fs::write(dir.path().join(version_file), text).unwrap();
        dir
    }

    #[test]
    fn version_is_read_from_archive_wheel_and_header() {
        let header = "/// as a string literal.\n#define TORCH_VERSION \\\n  \"2.11.0\"\n";
        for (file, text, version) in [
            ("build-version", "2.11.0+cpu\n", "2.11.0+cpu"),
            ("version.py", "__all__ = ['__version__']\n__version__ = '2.11.0+cu130'\ndebug = False\n", "2.11.0+cu130"),
            ("include/torch/headeronly/version.h", header, "2.11.0"),
        ] {
            let dir = fake(file, text);
            let found = Installation::at(dir.path()).unwrap();
            assert_eq!(found.version, version);
            found.check().unwrap();
        }
    }

    #[test]
    fn other_versions_and_incomplete_folders_are_refused_by_name() {
        let other = fake("build-version", "2.5.1+cpu");
        assert!(
            format!("{:#}", Installation::at(other.path()).unwrap_err()).contains("is version 2.5.1+cpu, not 2.11.0")
        );
        let prefix = fake("build-version", "2.11.00");
        assert!(Installation::at(prefix.path()).is_err());
        let bare = fake("build-version", "2.11.0");
        fs::remove_file(bare.path().join("lib/libc10.so")).unwrap();
        assert!(format!("{:#}", Installation::at(bare.path()).unwrap_err()).contains("no lib/libc10.so"));
        assert!(Installation::at(Path::new("/nowhere")).is_err());
    }
}
