//! CLIP scores of images.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use attributes::Demands;
use prompts::{Prompt, PromptSet};
use runs::{ImageScores, KindScores, Metrics, PromptScores, Scores};
use statistics::{Bootstrap, Estimate, bootstrap_mean};
use tch::{Kind, Tensor};

use crate::{FeatureExtractor, ImageFile, Mask};

/// An image to score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedImage {
    /// The file.
    pub path: PathBuf,
    /// The index of its prompt.
    pub prompt: usize,
    /// The seed that it was generated from.
    pub seed: u64,
}

/// What images are compared with.
#[derive(Debug, Clone)]
pub struct Reference<'a> {
    /// Photos of the subject.
    pub photos: &'a [PathBuf],
    /// The class noun, such as `dog`.
    pub category: &'a str,
    /// The prompts that the images are of.
    pub prompts: &'a PromptSet,
    /// Where the subject is in photos and images.
    pub masks: Option<Masks>,
}

/// Folders with a mask for each file, under the same name or with the ending `.png`; see [`Mask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masks {
    /// Of the photos.
    pub photos: PathBuf,
    /// Of the images.
    pub images: PathBuf,
    /// The colour to paint everything else with.
    pub background: [u8; 3],
}

/// Scores images. `on_image` is told how many have been encoded after each batch; an image counts once more if it is also scored
/// with its mask, and once more by a DINO.
///
/// # Errors
/// When there are no photos, no images or no mask, or a file cannot be used.
pub fn evaluate_images(
    extractor: &FeatureExtractor,
    generated: &[GeneratedImage],
    reference: &Reference<'_>,
    bootstrap: &Bootstrap,
    on_image: &mut dyn FnMut(usize),
) -> Result<Scores> {
    let Reference { photos, category, prompts, masks } = reference;
    ensure!(!photos.is_empty(), "there are no photos of the subject to compare images with");
    for (index, prompt) in prompts.prompts.iter().enumerate() {
        let any = generated.iter().any(|generated| generated.prompt == index);
        ensure!(any, "there are no images of prompt {}, {:?}, to score", index + 1, prompt.text);
    }
    if let Some(stray) = generated.iter().find(|generated| generated.prompt >= prompts.prompts.len()) {
        let (prompt, count) = (stray.prompt + 1, prompts.prompts.len());
        bail!("{} is said to be of prompt {prompt}, but there are {count} prompts", stray.path.display());
    }
    let plain_photos: Vec<ImageFile> = photos.iter().map(|path| extractor.photo(path)).collect();
    let images: Vec<ImageFile> = generated.iter().map(|generated| ImageFile::new(&generated.path)).collect();
    // What can be missing is found out before anything slow is done.
    let masked = masks.as_ref().map(|masks| masks.apply(photos, generated)).transpose()?;

    let photo_features = extractor.images(&plain_photos)?;
    let texts =
        |text: &dyn Fn(&Prompt) -> String| extractor.texts(&prompts.prompts.iter().map(text).collect::<Vec<_>>());
    let with_category = texts(&|prompt| prompt.with(category))?;
    let without = texts(&|prompt| prompt.without_subject())?;

    let demands: Vec<Option<Demands>> = prompts.prompts.iter().map(|prompt| extractor.demands(&prompt.text)).collect();

    let mut scores: Vec<Metrics<f64>> = Vec::with_capacity(generated.len());
    let mut seen = 0;
    extractor.each_batch(&images, &mut |batch| {
        let size = batch.size()[0] as usize;
        let clip_i = mean_cosines(batch, &photo_features)?;
        let rows: Vec<i64> = generated[seen..seen + size].iter().map(|generated| generated.prompt as i64).collect();
        let rows = Tensor::from_slice(&rows);
        let of_prompts = |texts: &Tensor| numbers(&(batch * texts.index_select(0, &rows)));
        let (clip_t, without) = (of_prompts(&with_category)?, of_prompts(&without)?);
        let wanted = generated[seen..seen + size].iter().map(|generated| demands[generated.prompt].as_ref());
        let obeyed = extractor.obeyed(batch, &wanted.collect::<Vec<_>>())?;
        for (((clip_i, clip_t), clip_t_without_category), obeyed) in
            clip_i.into_iter().zip(clip_t).zip(without).zip(obeyed)
        {
            scores.push(Metrics { clip_i, clip_t, clip_t_without_category, clip_i_masked: None, dino_i: None, obeyed });
        }
        seen += size;
        on_image(seen);
        Ok(())
    })?;
    if let Some((photos, images)) = masked {
        let photo_features = extractor.images(&photos)?;
        let mut scores = scores.iter_mut();
        extractor.each_batch(&images, &mut |batch| {
            for (clip_i, scores) in mean_cosines(batch, &photo_features)?.into_iter().zip(&mut scores) {
                scores.clip_i_masked = Some(clip_i);
            }
            seen += batch.size()[0] as usize;
            on_image(seen);
            Ok(())
        })?;
    }
    if let Some(dino) = extractor.dino() {
        let mut told = |count: usize| {
            seen += count;
            on_image(seen);
        };
        let (features, photos) = (dino.images(&images, &mut told)?, dino.images(&plain_photos, &mut |_| {})?);
        for (dino_i, scores) in mean_cosines(&features, &photos)?.into_iter().zip(&mut scores) {
            scores.dino_i = Some(dino_i);
        }
    }
    Ok(gather(generated, &scores, prompts, bootstrap))
}

/// Scores photos of the subject in the place of images, each with its caption: what a perfect method would score. CLIP-I of a photo is
/// its mean cosine with the others, and 1 where there are none.
///
/// # Errors
/// When there are no photos, not as many captions, or a file cannot be used.
pub fn evaluate_photos(
    extractor: &FeatureExtractor,
    photos: &[PathBuf],
    captions: &[String],
    bootstrap: &Bootstrap,
) -> Result<Scores> {
    ensure!(
        !photos.is_empty() && photos.len() == captions.len(),
        "there are {} photos and {} captions, but each photo is scored with its caption",
        photos.len(),
        captions.len()
    );
    let features = extractor.images(&photos.iter().map(|path| extractor.photo(path)).collect::<Vec<_>>())?;
    let clip_t = numbers(&(&features * extractor.texts(captions)?))?;
    let count = photos.len() as f64;
    // Each photo has the cosine 1 with itself.
    let others = |mean: f64| if count > 1.0 { (mean * count - 1.0) / (count - 1.0) } else { 1.0 };
    let clip_i = mean_cosines(&features, &features)?.into_iter().map(others);
    let dino_i: Vec<Option<f64>> = match extractor.dino() {
        Some(dino) => {
            let files: Vec<ImageFile> = photos.iter().map(|path| extractor.photo(path)).collect();
            let features = dino.images(&files, &mut |_| {})?;
            mean_cosines(&features, &features)?.into_iter().map(|mean| Some(others(mean))).collect()
        }
        None => vec![None; photos.len()],
    };
    let scored =
        photos.iter().zip(clip_i).zip(clip_t).zip(dino_i).map(|(((photo, clip_i), clip_t), dino_i)| ImageScores {
            file: photo.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            seed: 0,
            scores: Metrics {
                clip_i,
                clip_t,
                clip_t_without_category: clip_t,
                clip_i_masked: None,
                dino_i,
                obeyed: None,
            },
        });
    let images: Vec<ImageScores> = scored.collect();
    let mean = estimate(&[&images], bootstrap);
    let prompt = PromptScores { prompt: "{}".to_owned(), kind: "photo".to_owned(), mean, images };
    Ok(Scores { mean, kinds: Vec::new(), prompts: vec![prompt] })
}

/// The mean cosine of each row of `features` [n, width] with all of `others` [m, width], which all have length 1.
fn mean_cosines(features: &Tensor, others: &Tensor) -> Result<Vec<f64>> {
    numbers(&(features.matmul(&others.tr()) / others.size()[0]))
}

/// The sums of the rows.
fn numbers(products: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::try_from(products.to_kind(Kind::Double).sum_dim_intlist(1i64, false, Kind::Double))?)
}

impl Masks {
    /// Photos and images with their masks.
    fn apply(&self, photos: &[PathBuf], generated: &[GeneratedImage]) -> Result<(Vec<ImageFile>, Vec<ImageFile>)> {
        let masked = |path: &PathBuf, folder: &Path| {
            let name = path.file_name().unwrap_or_default();
            let same = folder.join(name);
            let mask = if same.exists() { same } else { folder.join(name).with_extension("png") };
            ensure!(
                mask.exists(),
                "{} has no mask {}; masks are white where the subject is, and have the names of photos and images",
                path.display(),
                mask.display()
            );
            let mask = Some(Mask { path: mask, background: self.background });
            Ok(ImageFile { mask, ..ImageFile::new(path) })
        };
        let photos = photos.iter().map(|path| masked(path, &self.photos)).collect::<Result<_>>()?;
        let images = generated.iter().map(|generated| masked(&generated.path, &self.images)).collect::<Result<_>>()?;
        Ok((photos, images))
    }
}

fn gather(generated: &[GeneratedImage], scores: &[Metrics<f64>], set: &PromptSet, bootstrap: &Bootstrap) -> Scores {
    let images_of = |prompt: usize| {
        let of_prompt = generated.iter().zip(scores).filter(move |(generated, _)| generated.prompt == prompt);
        of_prompt.map(|(generated, &scores)| {
            let file = generated.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            ImageScores { file, seed: generated.seed, scores }
        })
    };
    let prompts: Vec<PromptScores> = set
        .prompts
        .iter()
        .enumerate()
        .map(|(index, prompt)| {
            let images: Vec<ImageScores> = images_of(index).collect();
            let mean = estimate(&[&images], bootstrap);
            PromptScores { prompt: prompt.text.clone(), kind: prompt.kind.clone(), mean, images }
        })
        .collect();
    let mut names: Vec<&str> = Vec::new();
    for prompt in &prompts {
        if !names.contains(&prompt.kind.as_str()) {
            names.push(&prompt.kind);
        }
    }
    let over = |kind: Option<&str>| -> Vec<&[ImageScores]> {
        let prompts = prompts.iter().filter(|prompt| kind.is_none_or(|kind| prompt.kind == kind));
        prompts.map(|prompt| prompt.images.as_slice()).collect()
    };
    let kinds = names.into_iter().map(|kind| {
        let groups = over(Some(kind));
        KindScores { kind: kind.to_owned(), prompts: groups.len(), mean: estimate(&groups, bootstrap) }
    });
    Scores { mean: estimate(&over(None), bootstrap), kinds: kinds.collect(), prompts }
}

/// Scores over groups of images, one for each prompt.
pub fn estimate<G: AsRef<[ImageScores]>>(groups: &[G], bootstrap: &Bootstrap) -> Metrics<Estimate> {
    let over = |metric: &dyn Fn(&Metrics<f64>) -> f64| {
        let values = |group: &G| group.as_ref().iter().map(|image| metric(&image.scores)).collect();
        bootstrap_mean(&groups.iter().map(values).collect::<Vec<_>>(), bootstrap)
    };
    // Over the prompts whose images have it.
    let optional = |metric: fn(&Metrics<f64>) -> Option<f64>| {
        let values = |group: &G| group.as_ref().iter().map(|image| metric(&image.scores)).collect::<Option<Vec<f64>>>();
        let groups: Vec<Vec<f64>> = groups.iter().filter_map(values).collect();
        (!groups.is_empty()).then(|| bootstrap_mean(&groups, bootstrap))
    };
    Metrics {
        clip_i: over(&|scores| scores.clip_i),
        clip_t: over(&|scores| scores.clip_t),
        clip_t_without_category: over(&|scores| scores.clip_t_without_category),
        clip_i_masked: optional(|scores| scores.clip_i_masked),
        dino_i: optional(|scores| scores.dino_i),
        obeyed: optional(|scores| scores.obeyed),
    }
}
