//! The scores of an evaluation, and how its images were generated.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use options::{GenerationSettings, SchedulerKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use statistics::{Bootstrap, Estimate, Share};

use crate::read::{entries, read, write};
use crate::{Versions, layout};

/// Scores: a number for one image, an [`Estimate`] for several.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Metrics<T> {
    /// CLIP-I, likeness to the subject: the mean cosine with all photos.
    pub clip_i: T,
    /// CLIP-T, likeness to the prompt: the cosine with the prompt in which the class noun stands for the subject, `a dog on
    /// the beach`.
    pub clip_t: T,
    /// CLIP-T with the prompt without the subject at all, `a on the beach`, as in Textual Inversion's evaluation.
    pub clip_t_without_category: T,
    /// CLIP-I with everything but the subject painted over, in photos and images, where there are masks.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub clip_i_masked: Option<T>,
    /// DINO-I, likeness to the subject as DINO sees it: the mean cosine with all photos, where a DINO was given.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub dino_i: Option<T>,
    /// Whether an image shows all that its prompt asks for beside the subject (1 or 0), as the judge's reader sees it, where the judge has
    /// one and the prompt asks for something.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub obeyed: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

impl<T> Metrics<T> {
    /// Each score with its name for readers, in the order of tables.
    pub fn named(&self) -> Vec<(&'static str, &T)> {
        let all = [
            ("CLIP-I", Some(&self.clip_i)),
            ("CLIP-I, subject only", self.clip_i_masked.as_ref()),
            ("DINO-I", self.dino_i.as_ref()),
            ("CLIP-T", Some(&self.clip_t)),
            ("CLIP-T without the class noun", Some(&self.clip_t_without_category)),
            ("obeyed", self.obeyed.as_ref()),
        ];
        all.into_iter().filter_map(|(name, score)| Some((name, score?))).collect()
    }
}

/// Scores of the images of a prompt set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Over all prompts.
    pub mean: Metrics<Estimate>,
    /// By kind of prompt, in the order of their first prompts.
    pub kinds: Vec<KindScores>,
    /// By prompt.
    pub prompts: Vec<PromptScores>,
}

impl Scores {
    /// How many images show all that their prompts ask for, of those whose prompts ask for something; none where nobody has read them.
    pub fn obeyed(&self) -> Option<Share> {
        let images = self.prompts.iter().flat_map(|prompt| &prompt.images);
        let read: Vec<f64> = images.filter_map(|image| image.scores.obeyed).collect();
        let count = read.iter().filter(|&&obeyed| obeyed > 0.5).count();
        (!read.is_empty()).then_some(Share { count: count as u64, of: read.len() as u64 })
    }
}

/// Scores over the prompts of a kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KindScores {
    /// The kind.
    pub kind: String,
    /// How many prompts.
    pub prompts: usize,
    /// Over all of them.
    pub mean: Metrics<Estimate>,
}

/// Scores of one prompt's images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptScores {
    /// The prompt, with `{}` for the subject.
    pub prompt: String,
    /// Its kind.
    pub kind: String,
    /// Over its images.
    pub mean: Metrics<Estimate>,
    /// Each image.
    pub images: Vec<ImageScores>,
}

/// Scores of one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageScores {
    /// Its file's name.
    pub file: String,
    /// The seed that it was generated from.
    pub seed: u64,
    /// Its scores.
    #[serde(flatten)]
    pub scores: Metrics<f64>,
}

/// The CLIP, or the DINO, that a score is from; scores of different ones cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClipName {
    /// Its name in tables: that of its folder.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
}

/// How the images of a folder are generated (`recipe.json`); images generated in another way are not mixed with them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GalleryConfig {
    /// The model's name in the images' parameters.
    pub model: String,
    /// Whatever else tells this model from others, such as its run's configuration.
    pub details: Value,
    /// Steps, guidance and size.
    pub settings: GenerationSettings,
    /// The scheduler.
    pub scheduler: SchedulerKind,
    /// The dtype of the computation.
    pub dtype: String,
}

impl GalleryConfig {
    /// Reads the configuration in a folder of images, if there is one.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        read(&folder.join(layout::GALLERY), "how the images beside it were generated")
    }

    /// Writes it into a folder of images.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write(&folder.join(layout::GALLERY), self)
    }
}

/// The images of one model and their scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// Its name: [`Variant::SUBJECT`], or `base` for the base model.
    pub name: String,
    /// The folder of its images, as seen from that of `scores.json`.
    pub folder: PathBuf,
    /// How they were generated.
    #[serde(rename = "recipe")]
    pub config: GalleryConfig,
    /// Their scores.
    pub scores: Scores,
}

impl Variant {
    /// The name of the model that the run has made.
    pub const SUBJECT: &str = "subject";
    /// The name of the base model.
    pub const BASE: &str = "base";
}

/// An evaluation (`scores.json`): everything that a table or a page of it shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The CLIP that scored the images.
    pub clip: ClipName,
    /// The DINO that scored too, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dino: Option<ClipName>,
    /// Of how many generated images a person says what the judge's reader says, whether they show what their prompts ask for; where the
    /// judge has a reader that was compared with a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<Share>,
    /// The name of the prompt set.
    pub prompt_set: String,
    /// Images of each prompt.
    pub images_per_prompt: usize,
    /// The seed that each image's is derived from.
    pub seed: u64,
    /// The class noun of the subject.
    pub category: String,
    /// The photos that images are compared with.
    pub photos: Vec<PathBuf>,
    /// How intervals were found.
    pub bootstrap: Bootstrap,
    /// Versions of what the numbers depend on, by name.
    pub versions: Versions,
    /// The models that were evaluated: the subject, and the base model where it was asked for.
    pub variants: Vec<Variant>,
}

impl Evaluation {
    /// Reads the evaluation in a folder, if there is one.
    ///
    /// # Errors
    /// When `scores.json` cannot be read or has another form; names the key.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        read(&folder.join(layout::SCORES), "the scores of an evaluation")
    }

    /// Writes it into a folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write(&folder.join(layout::SCORES), self)
    }

    /// The images of the run's own model and their scores.
    pub fn subject(&self) -> Option<&Variant> {
        self.variants.iter().find(|variant| variant.name == Variant::SUBJECT)
    }
}

/// The evaluations of a run, each with its folder, sorted by the folder's name.
///
/// # Errors
/// As [`Evaluation::read`].
pub fn evaluations(run: &Path) -> Result<Vec<(PathBuf, Evaluation)>> {
    let folders = entries(&run.join(layout::EVALUATION))?.into_iter().filter(|folder| folder.is_dir());
    let read = folders.map(|folder| Ok(Evaluation::read(&folder)?.map(|evaluation| (folder, evaluation))));
    Ok(read.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Scores over several runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AcrossRuns {
    /// CLIP-I; the interval says what other runs and images might have given.
    pub clip_i: Estimate,
    /// CLIP-T with the class noun, likewise.
    pub clip_t: Estimate,
    /// The means of CLIP-I and CLIP-T of each run.
    pub by_run: Vec<[f64; 2]>,
}

/// Paired differences between the scores of two ways of training, run by run: what the runs have in common, such as a subject
/// that is hard, is in neither.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Differences {
    /// Of CLIP-I.
    pub clip_i: Estimate,
    /// Of CLIP-T with the class noun.
    pub clip_t: Estimate,
}

/// The table of an ablation (`ablation.json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ablation {
    /// The subject and the seed of each run, the same for all variants.
    pub runs: Vec<(String, u64)>,
    /// The method as a whole, and without each of its parts.
    pub variants: Vec<AblationRow>,
}

/// A variant of the method in an ablation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AblationRow {
    /// Its name, such as `full` or `without-stage1`.
    pub variant: String,
    /// Its scores.
    #[serde(flatten)]
    pub scores: AcrossRuns,
    /// Their differences to the whole method's, where that is among the variants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against_full: Option<Differences>,
}

impl Ablation {
    /// Reads the table in the folder of an ablation, if there is one.
    ///
    /// # Errors
    /// When `ablation.json` cannot be read or has another form; names the key.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        read(&folder.join(layout::ABLATION_RECORD), "the table of an ablation")
    }

    /// Writes it into a folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write(&folder.join(layout::ABLATION_RECORD), self)
    }
}

/// Runs side by side, for programs (`compare.json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunComparison {
    /// The runs.
    pub runs: Vec<ComparedRun>,
    /// The values of the configuration that are not the same in all runs, by their paths, each with one text a run.
    pub settings_that_differ: BTreeMap<String, Vec<String>>,
}

/// A run among others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComparedRun {
    /// Its name, unlike the others'.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Its configuration.
    pub config: crate::TrainConfig,
    /// The means over each prompt set that it was evaluated on.
    pub scores: BTreeMap<String, Metrics<Estimate>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_none_and_a_renamed_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Evaluation::read(folder.path()).unwrap(), None);
        assert!(evaluations(folder.path()).unwrap().is_empty());
        let three = folder.path().join("evaluation/three");
        std::fs::create_dir_all(&three).unwrap();
        let estimate = Estimate { mean: 0.5, low: 0.4, high: 0.6 };
        let mean = Metrics {
            clip_i: estimate,
            clip_t: estimate,
            clip_t_without_category: estimate,
            clip_i_masked: None,
            dino_i: None,
            obeyed: None,
        };
        let settings =
            GenerationSettings { steps: 2, guidance_scale: 7.5, height: 64, width: 64, scheduler: None, eta: None };
        let scheduler = SchedulerKind::Ddim;
        let config =
            GalleryConfig { model: "m".into(), details: Value::Null, settings, scheduler, dtype: "fp32".into() };
        let image = Metrics {
            clip_i: 0.5,
            clip_t: 0.25,
            clip_t_without_category: 0.125,
            clip_i_masked: Some(0.75),
            dino_i: None,
            obeyed: Some(1.0),
        };
        let images = vec![ImageScores { file: "000-00.png".into(), seed: u64::MAX, scores: image }];
        let prompts = vec![PromptScores { prompt: "a {}".into(), kind: "any".into(), mean, images }];
        let kinds = vec![KindScores { kind: "any".into(), prompts: 1, mean }];
        let scores = Scores { mean, kinds, prompts };
        let evaluation = Evaluation {
            clip: ClipName { name: "tiny".into(), folder: "clip".into() },
            dino: None,
            reader: None,
            prompt_set: "three".into(),
            images_per_prompt: 1,
            seed: 0,
            category: "dog".into(),
            photos: Vec::new(),
            bootstrap: Bootstrap::default(),
            versions: Versions::new(),
            variants: vec![Variant { name: Variant::SUBJECT.into(), folder: "subject".into(), config, scores }],
        };
        evaluation.write(&three).unwrap();
        assert_eq!(evaluations(folder.path()).unwrap(), [(three.clone(), evaluation)]);
        let path = three.join("scores.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains(r#""scheduler": "DDIMScheduler""#) && !text.contains(r#""clip_i_masked": null"#),
            "{text}"
        );
        std::fs::write(&path, text.replacen("\"kinds\"", "\"types\"", 1)).unwrap();
        let error = format!("{:#}", evaluations(folder.path()).unwrap_err());
        assert!(error.contains("three/scores.json is not the scores of an evaluation: variants[0].scores"), "{error}");
        assert!(error.contains("missing field `kinds`"), "{error}");
    }
}
