//! What a table compares: a file in TOML.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use options::{Dtype, SchedulerKind};
use prompts::PromptSet;
use requests::{Sampler, TrainOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subjects::{check_names, parse_options};

/// Methods, subjects, seeds and prompts, and how they are judged.
///
/// ```toml
/// name = "dogs"
/// model = "sd2.1-base"
/// judge = "clip-vit-b32"
/// protocol = "paper"
/// reference = "AttnDreamBooth"
/// margin = { identity = 0.01, text = 0.01 }
///
/// [[subjects]]
/// name = "rex"
/// photos = "photos/rex"
/// category = "dog"
///
/// [[methods]]
/// name = "AttnDreamBooth"
///
/// [[methods]]
/// name = "OFT"
/// method = "oft"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TablePlan {
    /// What the table is called, fit for a folder's name.
    pub name: String,
    /// The base model: a folder or file, as seen from the plan's, or a name as for `--model`.
    pub model: PathBuf,
    /// The CLIP that scores, likewise; unset, as for `evaluate`.
    #[serde(default)]
    pub judge: Option<PathBuf>,
    /// The folder of a DINO (facebook/dino-vits16) for DINO-I, the likeness as DINO sees it.
    #[serde(default)]
    pub dino: Option<PathBuf>,
    /// Values of prompts, images and sampler that are not set here.
    #[serde(default)]
    pub protocol: Protocol,
    /// A prompt set, or a file of prompts.
    #[serde(default)]
    pub prompts: Option<String>,
    /// Images of each prompt.
    #[serde(default)]
    pub images: Option<u32>,
    /// Denoising steps.
    #[serde(default)]
    pub steps: Option<usize>,
    /// Classifier-free guidance.
    #[serde(default)]
    pub guidance_scale: Option<f64>,
    /// The scheduler, where a method has none of its own.
    #[serde(default)]
    pub scheduler: Option<SchedulerKind>,
    /// Precision in which images are generated.
    #[serde(default)]
    pub dtype: Dtype,
    /// Training seeds. Images of a seed's runs are generated from seeds that are derived from it: the same ones for all methods.
    #[serde(default = "one_seed")]
    pub seeds: Vec<u64>,
    /// The method that the others are compared with.
    pub reference: String,
    /// Differences smaller than these are not worth a claim, whatever is found: fixed before the table is computed.
    #[serde(default)]
    pub margin: Margin,
    /// Kinds of prompts of which only those count that the base model obeys without the subject, in at least half of its images: what it
    /// cannot draw, no method can be blamed for. The judge must have a reader.
    #[serde(default)]
    pub obeyed_by_base: Vec<String>,
    /// Whom to learn.
    pub subjects: Vec<Subject>,
    /// How.
    pub methods: Vec<Method>,
}

/// How a published comparison was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The defaults of `evaluate`: 4 images of each prompt.
    #[default]
    Quick,
    /// The paper's section 5: 24 prompts, 32 images each, DPM-Solver++ in 50 steps, guidance 7.5.
    Paper,
    /// The same, with CLIP's images as in Textual Inversion's evaluation: photos squashed into squares, resized without antialiasing.
    TextualInversion,
    /// DreamBooth's prompts for objects, 4 images each.
    DreambenchObjects,
    /// DreamBooth's prompts for live subjects, 4 images each.
    DreambenchLive,
    /// CoRe's 20 prompts for objects, 32 images each.
    CoreObjects,
    /// CoRe's 20 prompts for live subjects, 32 images each.
    CoreLive,
}

/// What is too little for a claim.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Margin {
    /// Of the likeness to the subject, CLIP-I.
    pub identity: f64,
    /// Of the likeness to the prompt, CLIP-T.
    pub text: f64,
}

impl Default for Margin {
    fn default() -> Self {
        Self { identity: 0.01, text: 0.01 }
    }
}

/// A subject of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Its name, fit for a folder's.
    pub name: String,
    /// The folder of its photos, or a single one, as seen from the plan's folder.
    pub photos: PathBuf,
    /// The class noun.
    pub category: String,
    /// A folder with pictures of the subject as the prompts ask for it, named as generated ones (`000-00.png`); unset, its photos stand
    /// for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real: Option<PathBuf>,
}

/// A method of a table: its name there, and options of `train` under their names in JSON (`method`, `set`, `learning_rate`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct Method {
    /// Its name in the table, fit for a folder's.
    pub name: String,
    /// What it is trained with, beside model, photos, class noun and seed.
    #[serde(flatten)]
    pub train: Box<TrainOptions>,
}

impl PartialEq for Method {
    fn eq(&self, other: &Self) -> bool {
        serde_json::to_value(self).ok() == serde_json::to_value(other).ok()
    }
}

fn one_seed() -> Vec<u64> {
    vec![0]
}

/// What the plan itself gives to `train`.
const OWN: [&str; 5] = ["model", "concept", "category", "seed", "results"];

impl TryFrom<Value> for Method {
    type Error = anyhow::Error;

    fn try_from(mut value: Value) -> Result<Self> {
        let fields = value.as_object_mut().context("a method is a table with a name and options of `train`")?;
        let name = fields.remove("name").context("a method has no name")?;
        let name = name.as_str().context("a method's name is not a text")?.to_owned();
        let train = parse_options(std::mem::take(fields), &OWN, &format!("the method {name:?}"))?;
        Ok(Self { name, train: Box::new(train) })
    }
}

impl TablePlan {
    /// Reads a plan; paths in it that exist as seen from its folder are resolved.
    ///
    /// # Errors
    /// When the file cannot be read, or says something that cannot be done; names the key.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = json::text(path).with_context(|| format!("cannot read {shown}"))?;
        let mut plan: Self = toml::from_str(&text).with_context(|| format!("{shown} is not the plan of a table"))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let resolve = |path: &mut PathBuf| {
            let seen = folder.join(&path);
            if seen.exists() {
                *path = seen;
            }
        };
        resolve(&mut plan.model);
        plan.judge.iter_mut().for_each(resolve);
        plan.dino.iter_mut().for_each(resolve);
        for subject in &mut plan.subjects {
            resolve(&mut subject.photos);
            subject.real.iter_mut().for_each(resolve);
        }
        plan.methods.iter_mut().filter_map(|method| method.train.config.as_mut()).for_each(resolve);
        if let Some(prompts) = &mut plan.prompts {
            let seen = folder.join(&prompts);
            if seen.exists() {
                *prompts = seen.to_string_lossy().into_owned();
            }
        }
        plan.check().with_context(|| format!("the plan {shown}"))?;
        Ok(plan)
    }

    fn check(&self) -> Result<()> {
        check_names("table", [&self.name])?;
        ensure!(!self.subjects.is_empty(), "it has no subjects ([[subjects]])");
        ensure!(!self.methods.is_empty(), "it has no methods ([[methods]])");
        ensure!(!self.seeds.is_empty(), "it has no seeds");
        check_names("subject", self.subjects.iter().map(|subject| &subject.name))?;
        check_names("method", self.methods.iter().map(|method| &method.name))?;
        check_names("seed", self.seeds.iter().map(ToString::to_string))?;
        for name in [crate::REAL, crate::BASE] {
            ensure!(self.methods.iter().all(|method| method.name != name), "{name:?} is a row that every table has");
        }
        let names: Vec<&str> = self.methods.iter().map(|method| method.name.as_str()).collect();
        ensure!(
            names.contains(&self.reference.as_str()),
            "its reference is {:?}, but its methods are {}",
            self.reference,
            names.join(", ")
        );
        for (key, value) in [("margin.identity", self.margin.identity), ("margin.text", self.margin.text)] {
            limits::within(key, value, 0.0..=1.0, "scores are cosines")?;
        }
        let plan = self.plan(0)?;
        plan.check()?;
        for kind in &self.obeyed_by_base {
            let known = plan.prompts.prompts.iter().any(|prompt| prompt.kind == *kind);
            ensure!(known, "obeyed_by_base has {kind:?}, but no prompt is of that kind");
        }
        Ok(())
    }

    /// The prompts and their images of a training seed.
    ///
    /// # Errors
    /// When there are no such prompts.
    pub fn plan(&self, seed: u64) -> Result<prompts::Plan> {
        Ok(prompts::Plan { prompts: PromptSet::load(&self.prompts())?, images: self.images() as usize, seed })
    }

    /// The prompt set or file.
    pub fn prompts(&self) -> String {
        let of_protocol = match self.protocol {
            Protocol::Quick | Protocol::Paper | Protocol::TextualInversion => "ours24",
            Protocol::DreambenchObjects => "dreambooth-objects",
            Protocol::DreambenchLive => "dreambooth-live",
            Protocol::CoreObjects => "core-inanimate",
            Protocol::CoreLive => "core-animate",
        };
        self.prompts.clone().unwrap_or_else(|| of_protocol.to_owned())
    }

    /// Images of each prompt.
    pub fn images(&self) -> u32 {
        self.images.unwrap_or(match self.protocol {
            Protocol::Quick | Protocol::DreambenchObjects | Protocol::DreambenchLive => 4,
            Protocol::Paper | Protocol::TextualInversion | Protocol::CoreObjects | Protocol::CoreLive => 32,
        })
    }

    /// How images are generated; what is unset is the run's own.
    pub fn sampler(&self) -> Sampler {
        let published = self.protocol != Protocol::Quick;
        Sampler {
            steps: self.steps.or(published.then_some(50)),
            guidance_scale: self.guidance_scale.or(published.then_some(7.5)),
            scheduler: self.scheduler,
            eta: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"
name = "dogs"
model = "model"
protocol = "paper"
images = 2
reference = "ours"

[[subjects]]
name = "rex"
photos = "rex"
category = "dog"

[[methods]]
name = "ours"

[[methods]]
name = "OFT"
method = "oft"
set = ["phases.adapter.steps=3"]
learning_rate = 1e-3
"#;

    fn read(text: &str) -> Result<TablePlan> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("model"))?;
        let path = folder.path().join("plan.toml");
        std::fs::write(&path, text)?;
        TablePlan::read(&path)
    }

    #[test]
    fn a_plan_says_what_its_protocol_leaves_open() {
        let plan = read(PLAN).unwrap();
        assert!(plan.model.is_absolute() && plan.subjects[0].photos == Path::new("rex"));
        assert_eq!((plan.images(), plan.prompts().as_str()), (2, "ours24"));
        let Sampler { steps, guidance_scale, .. } = plan.sampler();
        assert_eq!((steps, guidance_scale), (Some(50), Some(7.5)));
        assert_eq!(plan.seeds, [0]);
        let oft = &plan.methods[1].train;
        assert_eq!((oft.method.as_deref(), oft.learning_rate, oft.set.len()), (Some("oft"), Some(1e-3), 1));
        let again: TablePlan = toml::from_str(&toml::to_string(&plan).unwrap()).unwrap();
        assert_eq!(again, plan);
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let says = |old: &str, new: &str, words: &str| {
            assert!(PLAN.contains(old), "{old}");
            let error = format!("{:#}", read(&PLAN.replacen(old, new, 1)).unwrap_err());
            assert!(error.contains(words), "{error}");
        };
        says(
            "reference = \"ours\"",
            "reference = \"mine\"",
            "its reference is \"mine\", but its methods are ours, OFT",
        );
        says("method = \"oft\"", "methd = \"oft\"", "the method \"OFT\" has \"methd\", which is no option of `train`");
        says("method = \"oft\"", "seed = 3", "which is given elsewhere");
        says("method = \"oft\"", "method = 3", "the method \"OFT\"");
        says("name = \"OFT\"", "name = \"Ours\"", "two methods are called Ours");
        says("name = \"OFT\"", "name = \"../oft\"", "must be fit for a folder's name");
        says("name = \"OFT\"", "name = \"base model\"", "is a row that every table has");
        says("images = 2", "image = 2", "unknown field `image`");
        says("images = 2", "prompts = \"none\"", "none");
        says("images = 2", "obeyed_by_base = [\"hard\"]", "obeyed_by_base has \"hard\"");
        says("images = 2", "seeds = [1, 1]", "two seeds are called 1");
        says("images = 2", "margin = { identity = 2.0, text = 0.1 }", "margin.identity is 2");
        says(
            "\n[[subjects]]\nname = \"rex\"\nphotos = \"rex\"\ncategory = \"dog\"\n",
            "subjects = []\n",
            "no subjects",
        );
    }
}
