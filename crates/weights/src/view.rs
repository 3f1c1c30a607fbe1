//! The tensors of an archive under other names, without a copy.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::Archive;

/// A tensor of an [`Archive`], or a part of one, under another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Its new name.
    pub name: String,
    /// Its name in the archive.
    pub of: String,
    /// (index, count): one of `count` parts with as many rows each; (0, 1) for the whole.
    pub part: (usize, usize),
    /// The shape of the view, if it is not that of the rows: as many elements.
    pub shape: Option<Vec<i64>>,
    /// Whether it is a matrix that the archive has transposed.
    pub transposed: bool,
}

impl View {
    /// All of the tensor `of`, called `name`.
    pub fn whole(name: impl Into<String>, of: impl Into<String>) -> Self {
        Self { name: name.into(), of: of.into(), part: (0, 1), shape: None, transposed: false }
    }
}

impl Archive {
    /// The archive of these views, and of nothing else. Nothing is read: a view is a range of the mapped file.
    ///
    /// # Errors
    /// When a tensor does not exist, has no such parts or not as many elements as the view's shape, or two views have the
    /// same name.
    pub fn view(self, views: impl IntoIterator<Item = View>) -> Result<Self> {
        let mut entries = BTreeMap::new();
        for View { name, of, part: (index, count), shape, transposed } in views {
            let mut entry = self.entries.get(&of).with_context(|| format!("there is no tensor {of:?}"))?.clone();
            if count != 1 {
                let rows = entry.shape.first().copied().unwrap_or(0);
                ensure!(
                    index < count && rows > 0 && rows % count as i64 == 0,
                    "the tensor {of:?} has {rows} rows, which are not {count} equal parts"
                );
                entry.shape[0] /= count as i64;
                let bytes = entry.bytes.len() / count;
                let start = entry.bytes.start + index * bytes;
                entry.bytes = start..start + bytes;
            }
            if let Some(shape) = shape {
                ensure!(
                    shape.iter().product::<i64>() == entry.shape.iter().product::<i64>(),
                    "the tensor {of:?} of shape {:?} cannot be viewed as one of shape {shape:?}",
                    entry.shape
                );
                entry.shape = shape;
            }
            if transposed {
                ensure!(
                    entry.shape.len() == 2,
                    "the tensor {of:?} of shape {:?} is no matrix, which could be transposed",
                    entry.shape
                );
                entry.shape.reverse();
                entry.transposed = !entry.transposed;
            }
            ensure!(entries.insert(name.clone(), entry).is_none(), "two tensors would be called {name:?}");
        }
        Ok(Self { entries, ..self })
    }
}

#[cfg(test)]
mod tests {
    use tch::{Kind, Tensor};

    use super::*;

    fn archive(folder: &std::path::Path) -> Archive {
        let file = folder.join("a.safetensors");
        let tensor = Tensor::arange(12, (Kind::Float, tch::Device::Cpu)).reshape([6, 2]);
        weights_file(&file, &[("fused", &tensor), ("conv", &tensor.reshape([6, 2, 1, 1])), ("odd", &tensor.get(0))]);
        Archive::open(&file).unwrap()
    }

    fn weights_file(file: &std::path::Path, tensors: &[(&str, &Tensor)]) {
        crate::save(file, tensors.iter().copied()).unwrap();
    }

    #[test]
    fn parts_and_shapes_are_those_of_torch() {
        let folder = tempfile::tempdir().unwrap();
        let whole = archive(folder.path()).tensor("fused").unwrap().unwrap();
        let views = (0..3).map(|i| View { part: (i, 3), ..View::whole(format!("part.{i}"), "fused") });
        let matrix = View { shape: Some(vec![6, 2]), ..View::whole("matrix", "conv") };
        let turned = View { transposed: true, ..View::whole("turned", "fused") };
        let view = archive(folder.path()).view(views.chain([matrix, turned])).unwrap();
        let names = ["matrix", "part.0", "part.1", "part.2", "turned"];
        assert_eq!(view.shapes().map(|(name, _)| name).collect::<Vec<_>>(), names);
        assert_eq!(view.tensor("turned").unwrap().unwrap(), whole.tr());
        for (i, expected) in whole.chunk(3, 0).iter().enumerate() {
            assert_eq!(&view.tensor(&format!("part.{i}")).unwrap().unwrap(), expected);
        }
        assert_eq!(view.tensor("matrix").unwrap().unwrap(), whole);
        assert_eq!(view.tensor("fused").unwrap(), None);
    }

    #[test]
    fn what_is_not_there_cannot_be_viewed() {
        let folder = tempfile::tempdir().unwrap();
        let says = |view: View, words: &str| {
            let error = archive(folder.path()).view([view]).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        says(View::whole("a", "none"), "there is no tensor \"none\"");
        says(View { part: (0, 5), ..View::whole("a", "fused") }, "has 6 rows, which are not 5 equal parts");
        says(View { part: (3, 3), ..View::whole("a", "fused") }, "not 3 equal parts");
        says(View { shape: Some(vec![5]), ..View::whole("a", "fused") }, "cannot be viewed as one of shape [5]");
        says(View { transposed: true, ..View::whole("a", "odd") }, "is no matrix");
        let twice = archive(folder.path()).view([View::whole("a", "odd"), View::whole("a", "fused")]);
        assert!(twice.unwrap_err().to_string().contains("two tensors would be called \"a\""));
    }
}
