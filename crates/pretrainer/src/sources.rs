//! The training data.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use images::RgbImage;
use scenes::{Album, Scene, Split, World};
use tch::Tensor;
use tokenizer::Tokenizer;

use crate::{shapes, vocabulary};

/// The world, its drawings, and the words for it. Clones share everything.
#[derive(Clone)]
pub struct Sources {
    /// The world.
    pub world: Arc<World>,
    /// The drawings.
    pub album: Arc<Album>,
    /// CLIP's tokenizer with only the merges that the world's words need.
    pub tokenizer: Arc<Tokenizer>,
}

/// Scenes as images with captions.
pub(crate) type Pairs = (Vec<RgbImage>, Vec<String>);

impl Sources {
    /// The miniature's world, with the folder of the drawings.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub fn open(drawings: &Path) -> Result<Self> {
        let world = World::miniature();
        let album = Album::open(&world, drawings)?;
        Self::new(world, album)
    }

    /// The same with a world and its drawings.
    ///
    /// # Errors
    /// As [`Sources::open`].
    pub fn new(world: World, album: Album) -> Result<Self> {
        let folder = || tempfile::tempdir().context("cannot create a temporary folder");
        let (clip, own) = (folder()?, folder()?);
        Tokenizer::stable_diffusion_2()?.save(clip.path())?;
        vocabulary::write_truncated(clip.path(), &world.words(), own.path())?;
        let tokenizer = Arc::new(Tokenizer::load(own.path())?);
        Ok(Self { world: Arc::new(world), album: Arc::new(album), tokenizer })
    }

    /// The scenes of these seeds, rendered.
    pub(crate) fn pairs(&self, seeds: &[u64], split: Split) -> Pairs {
        self.families(seeds, split, 1)
    }

    /// Of each seed [`Scene::family`] of `size`, rendered.
    pub(crate) fn families(&self, seeds: &[u64], split: Split, size: usize) -> Pairs {
        use rayon::prelude::*;
        let pair =
            |scene: Scene| (scene.render(&self.world, &self.album, shapes::IMAGE_SIZE), scene.caption(&self.world));
        seeds.par_iter().flat_map(|seed| Scene::family(&self.world, *seed, split, size)).map(pair).unzip()
    }

    /// Token ids [captions, positions].
    ///
    /// # Errors
    /// When a caption is too long for a tokenizer to read.
    pub fn ids<T: AsRef<str>>(&self, captions: &[T]) -> Result<Tensor> {
        let ids: Vec<Vec<i64>> =
            captions.iter().map(|caption| Ok(self.tokenizer.encode(caption.as_ref())?.ids)).collect::<Result<_>>()?;
        Ok(Tensor::from_slice2(&ids))
    }
}

/// Images as [n, 3, height, width] in [-1, 1].
pub(crate) fn to_tensor<'a>(images: impl IntoIterator<Item = &'a RgbImage>) -> Tensor {
    let each: Vec<Tensor> = images.into_iter().map(sampling::image_to_tensor).collect();
    Tensor::cat(&each, 0)
}
