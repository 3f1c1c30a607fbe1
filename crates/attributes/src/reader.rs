//! A reader of an image's attributes, on CLIP's image features.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use layers::Linear;
use serde::{Deserialize, Serialize};
use statistics::Share;
use tch::{Device, Kind, Tensor};
use weights::{Archive, Scope, Source};

use crate::attributes::{Attributes, Label};

/// The file of a reader's weights in its CLIP's folder.
pub const WEIGHTS: &str = "reader.safetensors";
/// The file of what it knows.
pub const ATTRIBUTES: &str = "attributes.json";
/// The file of a person's agreement with it.
pub const AGREEMENT: &str = "agreement.json";
/// What its parameters' names begin with.
pub const PREFIX: &str = "reader";
/// A thing is there from this probability on.
const THERE: f64 = 0.5;

/// Linear classifiers on image features.
#[derive(Debug)]
pub struct Reader {
    attributes: Attributes,
    width: i64,
    agreement: Option<Share>,
    background: Linear,
    color: Linear,
    style: Linear,
    things: Linear,
}

/// What is read from an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// "plain", a colour or a place.
    pub background: String,
    /// The colour that the first thing has, or "own".
    pub color: String,
    /// A style, or "none".
    pub style: String,
    /// The words for what is there, the likeliest first.
    pub things: Vec<String>,
}

impl Reader {
    /// Takes the parameters below `vs`; features are `width` wide.
    pub fn new(vs: &Scope, width: i64, attributes: &Attributes) -> Self {
        let vs = &(vs / PREFIX);
        let head = |name: &str, classes: usize| Linear::new(&(vs / name), width, classes as i64);
        Self {
            background: head("background", attributes.backgrounds.len()),
            color: head("color", attributes.colors.len()),
            style: head("style", attributes.styles.len()),
            things: head("things", attributes.things.len()),
            attributes: attributes.clone(),
            width,
            agreement: None,
        }
    }

    /// Opens the reader in the folder of a CLIP, which has it beside its own files: [`ATTRIBUTES`] and [`WEIGHTS`], and perhaps
    /// [`AGREEMENT`]; none where it has none. It reads features on `device`.
    ///
    /// # Errors
    /// When a file is damaged, or lacks what the other has.
    pub fn open(folder: &Path, device: Device) -> Result<Option<Self>> {
        let path = folder.join(ATTRIBUTES);
        if !path.exists() {
            return Ok(None);
        }
        let attributes: Attributes = json::read(&path, "the attributes that a reader knows")?;
        let archive = Archive::open(&folder.join(WEIGHTS))?;
        let width = archive.shapes().find(|(name, _)| *name == format!("{PREFIX}.background.weight"));
        let width = width.map_or(0, |(_, shape)| shape.last().copied().unwrap_or(0));
        let built =
            weights::build(&archive as &dyn Source, (Kind::Float, device), |vs| Ok(Self::new(vs, width, &attributes)));
        let (reader, _) = built.with_context(|| format!("the reader in {}", folder.display()))?;
        let agreement = folder.join(AGREEMENT);
        let agreement = agreement.exists().then(|| json::read(&agreement, "how often a person agrees with a reader"));
        Ok(Some(Self { agreement: agreement.transpose()?, ..reader }))
    }

    /// What there is to be read.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// Of how many generated images a person says what it says: whether they show what their prompts ask for.
    pub fn agreement(&self) -> Option<Share> {
        self.agreement
    }

    /// Reads images by their features [images, width], of whichever length.
    ///
    /// # Errors
    /// When the features have another width.
    pub fn read(&self, features: &Tensor) -> Result<Vec<Reading>> {
        ensure!(
            features.dim() == 2 && features.size()[1] == self.width,
            "the features have the shape {:?}, but the reader takes [images, {}]",
            features.size(),
            self.width
        );
        let Attributes { backgrounds, colors, styles, things, .. } = &self.attributes;
        let features = scaled(features);
        let best = |head: &Linear, names: &[String]| -> Result<Vec<String>> {
            let places = Vec::<i64>::try_from(head.forward(&features).argmax(1, false).to_device(Device::Cpu))?;
            Ok(places.into_iter().map(|place| names[place as usize].clone()).collect())
        };
        let there = Vec::<Vec<f64>>::try_from(
            self.things.forward(&features).sigmoid().to_device(Device::Cpu).to_kind(Kind::Double),
        )?;
        let shown = there.into_iter().map(|probabilities| {
            let mut known: Vec<(f64, &String)> = probabilities.into_iter().zip(things).collect();
            known.retain(|(probability, _)| *probability >= THERE);
            known.sort_by(|a, b| b.0.total_cmp(&a.0));
            known.into_iter().map(|(_, name)| name.clone()).collect()
        });
        let parts = best(&self.background, backgrounds)?.into_iter().zip(best(&self.color, colors)?);
        let parts = parts.zip(best(&self.style, styles)?).zip(shown);
        Ok(parts.map(|(((background, color), style), things)| Reading { background, color, style, things }).collect())
    }

    /// The loss of reading pictures by their features: cross-entropy of each attribute, and of each thing's being there.
    pub fn loss(&self, features: &Tensor, labels: &[&Label]) -> Tensor {
        let (features, device) = (&scaled(features), features.device());
        let one = |head: &Linear, of: fn(&Label) -> i64| {
            let targets =
                Tensor::from_slice(&labels.iter().map(|label| of(label)).collect::<Vec<_>>()).to_device(device);
            head.forward(features).cross_entropy_for_logits(&targets)
        };
        let classes = self.attributes.things.len();
        let mut there = vec![0.0f32; labels.len() * classes];
        for (row, label) in labels.iter().enumerate() {
            label.things.iter().for_each(|thing| there[row * classes + *thing as usize] = 1.0);
        }
        let there = Tensor::from_slice(&there).reshape([labels.len() as i64, classes as i64]).to_device(device);
        let logits = self.things.forward(features);
        let things = logits.binary_cross_entropy_with_logits::<Tensor>(&there, None, None, tch::Reduction::Sum);
        one(&self.background, |label| label.background)
            + one(&self.color, |label| label.color)
            + one(&self.style, |label| label.style)
            + things / labels.len() as f64
    }
}

/// Features as classifiers take them: in f32, all of one length, so that those that scores are made of can be read.
fn scaled(features: &Tensor) -> Tensor {
    const LENGTH: f64 = 10.0;
    let features = features.to_kind(Kind::Float);
    let lengths = features.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Float).clamp_min(1e-12).sqrt();
    features / lengths * LENGTH
}

#[cfg(test)]
mod tests {
    use libtorch::random;
    use weights::Random;

    use super::*;

    const WIDTH: i64 = 8;

    fn attributes() -> Attributes {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        Attributes {
            backgrounds: words(&["plain", "red", "snow"]),
            colors: words(&["own", "red"]),
            styles: words(&["none", "sketch"]),
            things: words(&["apple", "bird", "cat"]),
            ..Attributes::default()
        }
    }

    fn reader() -> (Reader, weights::Parameters) {
        let to = (Kind::Float, Device::Cpu);
        weights::build(&Random { seed: 1 } as &dyn Source, to, |vs| Ok(Reader::new(vs, WIDTH, &attributes()))).unwrap()
    }

    /// By hand: the class of the largest w · f / |f| · 10 + b, and the things whose sigmoid is 1/2 or more, likeliest first.
    #[test]
    fn readings_are_those_of_linear_classifiers() {
        let (reader, _) = reader();
        let features = random::normal(3, &[5, WIDTH]) * 3.0;
        let readings = tch::no_grad(|| reader.read(&features)).unwrap();
        let rows = Vec::<Vec<f64>>::try_from(features.to_kind(Kind::Double)).unwrap();
        for (row, reading) in rows.iter().zip(&readings) {
            let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            let unit = Tensor::from_slice(&row.iter().map(|x| 10.0 * x / length).collect::<Vec<f64>>());
            let logits = |head: &Linear| -> Vec<f64> {
                let logits = head.forward(&unit.to_kind(Kind::Float).unsqueeze(0)).squeeze_dim(0);
                Vec::try_from(logits.to_kind(Kind::Double)).unwrap()
            };
            let best = |head: &Linear, names: &[String]| {
                let logits = logits(head);
                let place = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
                names[place].clone()
            };
            let known = attributes();
            assert_eq!(reading.background, best(&reader.background, &known.backgrounds));
            assert_eq!(reading.color, best(&reader.color, &known.colors));
            assert_eq!(reading.style, best(&reader.style, &known.styles));
            let things = logits(&reader.things);
            let mut there: Vec<usize> = (0..things.len()).filter(|thing| things[*thing] >= 0.0).collect();
            there.sort_by(|a, b| things[*b].total_cmp(&things[*a]));
            assert_eq!(reading.things, there.iter().map(|thing| known.things[*thing].clone()).collect::<Vec<_>>());
        }
        let longer = tch::no_grad(|| reader.read(&(&features * 7.0))).unwrap();
        assert_eq!(longer, readings);
        let first = tch::no_grad(|| reader.read(&features.narrow(0, 0, 1))).unwrap();
        assert_eq!(first[0], readings[0]);
    }

    #[test]
    fn it_opens_as_it_was_saved_and_says_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Reader::open(folder.path(), Device::Cpu);
        assert!(open().unwrap().is_none());
        std::fs::write(folder.path().join(ATTRIBUTES), serde_json::to_string(&attributes()).unwrap()).unwrap();
        assert!(format!("{:#}", open().unwrap_err()).contains("reader.safetensors"));
        let (saved, parameters) = reader();
        weights::save(
            &folder.path().join(WEIGHTS),
            parameters.iter().map(|(name, value)| (name, value.shallow_clone())),
        )
        .unwrap();
        std::fs::write(folder.path().join(AGREEMENT), r#"{"count": 93, "of": 100}"#).unwrap();
        let opened = open().unwrap().unwrap();
        let features = random::normal(4, &[3, WIDTH]);
        assert_eq!(tch::no_grad(|| opened.read(&features)).unwrap(), tch::no_grad(|| saved.read(&features)).unwrap());
        assert_eq!((opened.agreement(), saved.agreement()), (Some(Share { count: 93, of: 100 }), None));
        let error = opened.read(&random::normal(4, &[3, 5])).unwrap_err().to_string();
        assert!(error.contains("[3, 5]") && error.contains("[images, 8]"), "{error}");
        let more = Attributes { things: vec!["apple".to_owned()], ..attributes() };
        std::fs::write(folder.path().join(ATTRIBUTES), serde_json::to_string(&more).unwrap()).unwrap();
        assert!(format!("{:#}", open().unwrap_err()).contains("reader.things.weight"));
    }

    /// Cross-entropy is ln(classes) without any weights, and binary cross-entropy ln(2) a thing.
    #[test]
    fn without_knowledge_the_loss_is_that_of_chance() {
        let (reader, parameters) = reader();
        tch::no_grad(|| parameters.iter().for_each(|(_, value)| drop(value.shallow_clone().zero_())));
        let label = Label { background: 1, color: 0, style: 1, things: vec![0, 2] };
        let loss = reader.loss(&random::normal(5, &[2, WIDTH]), &[&label, &label]).double_value(&[]);
        let chance = 3f64.ln() + 2f64.ln() + 2f64.ln() + 3.0 * 2f64.ln();
        assert!((loss - chance).abs() < 1e-5, "{loss} and {chance}");
    }
}
