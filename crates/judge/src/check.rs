//! What a judge must be able to see, on compositions that it has not seen.

use std::path::Path;

use anyhow::Result;
use clip::{ClipModel, cosine_similarity};
use pretrainer::{accuracy, prepare};
use scenes::RgbImage;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use tokenizer::Tokenizer;
use vae::AutoencoderKl;

use crate::examination::{Examination, PortraitCaptions, Portraits, Set};
use crate::pictures::as_generated;

/// Pictures computed together.
const BATCH: usize = 25;

/// How often the right one is found among a hundred, in [0, 1].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Recalls {
    /// The caption of a picture.
    pub image_to_text: f64,
    /// The picture of a caption.
    pub text_to_image: f64,
}

/// What is seen of pictures of one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sight {
    /// Scenes of ordinary nouns.
    pub nouns: Recalls,
    /// Scenes of held-out characters, whose captions say the class noun.
    pub characters: Recalls,
    /// The mean CLIP-T of ordinary nouns with their own captions.
    pub clip_t_nouns: f64,
    /// That of characters.
    pub clip_t_characters: f64,
    /// How often the nearest other picture of a character shows the same character.
    pub nearest_subject: f64,
    /// How much more alike pictures of one character are than those of it and of the nearest other one: the mean over characters.
    pub subject_gap: f64,
    /// The least of them, and whose it is.
    pub least_gap: (String, f64),
    /// How often the right caption of a character beats one with another place or background.
    pub right_background: f64,
    /// How often it beats one with a colour.
    pub right_color: f64,
    /// How often it beats one with a style.
    pub right_style: f64,
}

/// What a judge sees.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Of pictures as they are drawn.
    pub pristine: Sight,
    /// Of pictures that have gone through the miniature's VAE.
    pub rebuilt: Sight,
}

/// Something that a judge must see.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// What it is, in words.
    pub what: String,
    /// What was measured.
    pub value: f64,
    /// The least that will do.
    pub least: f64,
}

impl Sight {
    /// All that must be seen, in the same order for every sight.
    pub fn bounds(&self) -> Vec<Bound> {
        let recalls = [("ordinary nouns", self.nouns), ("characters", self.characters)];
        let mut bounds: Vec<(String, f64, f64)> = Vec::new();
        for (what, Recalls { image_to_text, text_to_image }) in recalls {
            bounds.push((format!("finds the caption of a scene of {what}"), image_to_text, 0.85));
            bounds.push((format!("finds the scene of {what} of a caption"), text_to_image, 0.85));
        }
        let share = self.clip_t_characters / self.clip_t_nouns;
        bounds.push(("CLIP-T of characters, as a share of that of nouns".to_owned(), share, 0.9));
        bounds.push(("finds the same character".to_owned(), self.nearest_subject, 0.95));
        bounds.push(("likeness beyond the nearest other character".to_owned(), self.subject_gap, 0.25));
        for (what, value) in
            [("background", self.right_background), ("colour", self.right_color), ("style", self.right_style)]
        {
            bounds.push((format!("prefers the caption with the right {what}"), value, 0.95));
        }
        bounds.into_iter().map(|(what, value, least)| Bound { what, value, least }).collect()
    }
}

impl Check {
    /// What it cannot see well enough, in sentences; nothing where it may judge.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for (kind, sight) in [("pristine", &self.pristine), ("rebuilt", &self.rebuilt)] {
            let failed = sight.bounds().into_iter().filter(|bound| bound.value.is_nan() || bound.value < bound.least);
            failures.extend(
                failed.map(|Bound { what, value, least }| format!("{kind}: {what}: {value:.3}, below {least}")),
            );
        }
        failures
    }
}

/// Examines the judge in `folder`, with pictures through the VAE of `miniature` too.
///
/// # Errors
/// When a model cannot be loaded.
pub fn check(folder: &Path, miniature: &Path, examination: &Examination, device: Device) -> Result<Check> {
    tch::no_grad(|| {
        let (model, _) = ClipModel::from_folder(folder, (Kind::Float, device))?;
        let (vae, _) = AutoencoderKl::from_folder(&miniature.join("vae"), (Kind::Float, device))?;
        let examiner = Examiner { model, tokenizer: Tokenizer::load(folder)?, device };
        let rebuilt = |images: &[RgbImage]| -> Result<Vec<RgbImage>> {
            let mut seen = Vec::new();
            for some in images.chunks(BATCH) {
                seen.extend(as_generated(&vae, &some.iter().collect::<Vec<_>>(), &vec![0.0; some.len()])?);
            }
            Ok(seen)
        };
        Ok(Check {
            pristine: examiner.sight(examination, &|images| Ok(images.to_vec()))?,
            rebuilt: examiner.sight(examination, &rebuilt)?,
        })
    })
}

struct Examiner {
    model: ClipModel,
    tokenizer: Tokenizer,
    device: Device,
}

type Seen<'a> = dyn Fn(&[RgbImage]) -> Result<Vec<RgbImage>> + 'a;

impl Examiner {
    fn sight(&self, asked: &Examination, seen: &Seen<'_>) -> Result<Sight> {
        let mut sight = Sight::default();
        (sight.nouns, sight.clip_t_nouns) = self.matching(&asked.nouns, seen)?;
        (sight.characters, sight.clip_t_characters) = self.matching(&asked.characters, seen)?;
        let images: Vec<RgbImage> = asked.portraits.iter().flat_map(|portraits| portraits.images.clone()).collect();
        let features = self.features(&images, seen)?;
        likeness(&asked.portraits, &features, &mut sight)?;
        self.preferences(&asked.portraits, &features, &mut sight)?;
        Ok(sight)
    }

    /// How often images and captions of a set find each other, and their mean CLIP-T: means over the sets.
    fn matching(&self, sets: &[Set], seen: &Seen<'_>) -> Result<(Recalls, f64)> {
        let (mut recalls, mut clip_t) = (Recalls::default(), 0.0);
        let part = 1.0 / sets.len() as f64;
        for Set { images, captions } in sets {
            let cosines = cosine_similarity(&self.features(images, seen)?, &self.texts(captions)?)?;
            recalls.image_to_text += part * accuracy(&cosines).double_value(&[]);
            recalls.text_to_image += part * accuracy(&cosines.tr()).double_value(&[]);
            clip_t += part * cosines.diag(0).mean(Kind::Double).double_value(&[]);
        }
        Ok((recalls, clip_t))
    }

    /// Whether pictures prefer their captions to those of what they do not show.
    fn preferences(&self, portraits: &[Portraits], features: &Tensor, sight: &mut Sight) -> Result<()> {
        let agreement = |caption: fn(&PortraitCaptions) -> &String| -> Result<Tensor> {
            let captions: Vec<&String> = portraits.iter().flat_map(|of| of.captions.iter().map(caption)).collect();
            Ok(cosine_similarity(features, &self.texts(&captions)?)?.diag(0))
        };
        let own = agreement(|captions| &captions.right)?;
        let beats = |wrong: fn(&PortraitCaptions) -> &String| -> Result<f64> {
            Ok(own.gt_tensor(&agreement(wrong)?).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]))
        };
        sight.right_background = beats(|captions| &captions.wrong_background)?;
        sight.right_color = beats(|captions| &captions.wrong_color)?;
        sight.right_style = beats(|captions| &captions.wrong_style)?;
        Ok(())
    }

    fn features(&self, images: &[RgbImage], seen: &Seen<'_>) -> Result<Tensor> {
        let images = seen(images)?;
        let each = images.chunks(BATCH).map(|some| self.model.image_features(&prepare(some).to_device(self.device)));
        Ok(Tensor::cat(&each.collect::<Result<Vec<_>>>()?, 0))
    }

    fn texts<T: AsRef<str>>(&self, captions: &[T]) -> Result<Tensor> {
        let ids = captions.iter().map(|caption| Ok(self.tokenizer.encode(caption.as_ref())?.ids));
        let ids = Tensor::from_slice2(&ids.collect::<Result<Vec<_>>>()?);
        self.model.text_features(&ids.to_device(self.device))
    }
}

/// Whether pictures of one character are more alike than those of two.
fn likeness(portraits: &[Portraits], features: &Tensor, sight: &mut Sight) -> Result<()> {
    let whose: Vec<usize> = portraits.iter().enumerate().flat_map(|(i, of)| vec![i; of.images.len()]).collect();
    let cosines = Vec::<Vec<f64>>::try_from(cosine_similarity(features, features)?.to_kind(Kind::Double))?;
    let nearest = |i: usize| {
        let others = (0..whose.len()).filter(|j| *j != i);
        others.max_by(|a, b| cosines[i][*a].total_cmp(&cosines[i][*b])).map(|j| whose[j])
    };
    let found = (0..whose.len()).filter(|i| nearest(*i) == Some(whose[*i])).count();
    sight.nearest_subject = found as f64 / whose.len() as f64;
    let mean = |a: usize, b: usize| {
        let pairs = (0..whose.len()).flat_map(|i| (0..whose.len()).map(move |j| (i, j)));
        let pairs: Vec<f64> =
            pairs.filter(|(i, j)| i != j && whose[*i] == a && whose[*j] == b).map(|(i, j)| cosines[i][j]).collect();
        pairs.iter().sum::<f64>() / pairs.len() as f64
    };
    let gap = |a: usize| {
        let others = (0..portraits.len()).filter(|b| *b != a).map(|b| mean(a, b));
        mean(a, a) - others.fold(f64::NEG_INFINITY, f64::max)
    };
    let gaps: Vec<f64> = (0..portraits.len()).map(gap).collect();
    sight.subject_gap = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let least = gaps.iter().zip(portraits).min_by(|a, b| a.0.total_cmp(b.0));
    sight.least_gap = least.map(|(gap, of)| (of.name.clone(), *gap)).unwrap_or_default();
    Ok(())
}
