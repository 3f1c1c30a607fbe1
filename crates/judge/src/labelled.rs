//! Generated images that a person has looked at, and how often the judge's reader says the same.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use attributes::{Demands, Reader, Reading};
use clip::ClipModel;
use pretrainer::prepare;
use scenes::RgbImage;
use serde::{Deserialize, Serialize};
use statistics::Share;
use tch::{Device, Kind};

use crate::sheet::{read_sheet, write_sheet};

/// The sheet of the images.
const SHEET: &str = "labelled.jpg";
/// What they show.
const RECORD: &str = "labelled.json";

/// An image of a prompt, and what a person sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelledImage {
    /// The prompt that it was generated of, with `{}` for the subject.
    pub prompt: String,
    /// What it shows; of its things, those that the prompt asks for.
    pub seen: Reading,
}

/// Generated images and what they show.
#[derive(Debug, Clone)]
pub struct Labelled {
    images: Vec<RgbImage>,
    labels: Vec<LabelledImage>,
}

/// How often person and reader say the same, of what prompts ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// Whether an image shows all that its prompt asks for.
    pub obeyed: Share,
    /// Images that obey and are said not to.
    pub missed: u64,
    /// Images that do not obey and are said to.
    pub imagined: u64,
    /// The background, where a prompt asks for one.
    pub background: Share,
    /// The colour of the subject, likewise.
    pub color: Share,
    /// The style.
    pub style: Share,
    /// Whether another thing is there.
    pub things: Share,
}

impl Labelled {
    /// Puts images and labels together.
    ///
    /// # Errors
    /// When there are not as many.
    pub fn new(images: Vec<RgbImage>, labels: Vec<LabelledImage>) -> Result<Self> {
        ensure!(images.len() == labels.len(), "there are {} images and {} labels", images.len(), labels.len());
        Ok(Self { images, labels })
    }

    /// Reads them from a folder, if there are some.
    ///
    /// # Errors
    /// Names the file that is damaged or of another size.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(RECORD);
        if !path.exists() {
            return Ok(None);
        }
        let labels: Vec<LabelledImage> = json::read(&path, "what a person has seen on images")?;
        let images = read_sheet(&folder.join(SHEET), labels.len())?;
        Ok(Some(Self { images, labels }))
    }

    /// Writes them into a folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        write_sheet(&folder.join(SHEET), &self.images)?;
        atomic::write(&folder.join(RECORD), format!("{}\n", serde_json::to_string_pretty(&self.labels)?))
    }

    /// How often labels are what the reader of the judge in `folder` says of the images.
    ///
    /// # Errors
    /// When the judge has no reader, or a file is damaged.
    pub fn agreement(&self, folder: &Path, device: Device) -> Result<Agreement> {
        let (model, _) = ClipModel::from_folder(folder, (Kind::Float, device))?;
        let Some(reader) = Reader::open(folder, device)? else {
            bail!("{} has no reader: it has no {}", folder.display(), attributes::ATTRIBUTES);
        };
        let pixels = prepare(&self.images).to_device(device);
        let readings = tch::no_grad(|| reader.read(&model.image_features(&pixels)?))?;
        let of = |(label, read)| {
            let LabelledImage { prompt, seen }: &LabelledImage = label;
            (Demands::of(reader.attributes(), prompt), seen, read)
        };
        Ok(compare(self.labels.iter().zip(&readings).map(of)))
    }
}

fn compare<'a>(images: impl Iterator<Item = (Demands, &'a Reading, &'a Reading)>) -> Agreement {
    let none = Share { count: 0, of: 0 };
    let mut agreement =
        Agreement { obeyed: none, missed: 0, imagined: 0, background: none, color: none, style: none, things: none };
    let add = |share: &mut Share, same: bool| {
        share.count += u64::from(same);
        share.of += 1;
    };
    for (demands, seen, read) in images {
        let [person, reader] = [seen, read].map(|reading| demands.met_by(reading));
        add(&mut agreement.obeyed, person == reader);
        agreement.missed += u64::from(person && !reader);
        agreement.imagined += u64::from(!person && reader);
        // Of each demand: whether both say that it is met.
        for (share, wanted, [seen, read]) in [
            (&mut agreement.background, &demands.background, [&seen.background, &read.background]),
            (&mut agreement.color, &demands.color, [&seen.color, &read.color]),
            (&mut agreement.style, &demands.style, [&seen.style, &read.style]),
        ] {
            if let Some(wanted) = wanted {
                add(share, (wanted == seen) == (wanted == read));
            }
        }
        for thing in &demands.things {
            add(&mut agreement.things, seen.things.contains(thing) == read.things.contains(thing));
        }
    }
    agreement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_counts_what_prompts_ask_for() {
        let reading = |background: &str, color: &str, things: &[&str]| Reading {
            background: background.to_owned(),
            color: color.to_owned(),
            style: "none".to_owned(),
            things: things.iter().map(|thing| (*thing).to_owned()).collect(),
        };
        let attributes = crate::attributes(&crate::world());
        let demands = |prompt: &str| Demands::of(&attributes, prompt);
        let seen = [reading("snow", "own", &["apple"]), reading("snow", "own", &[]), reading("beach", "red", &[])];
        let read =
            [reading("snow", "red", &["apple"]), reading("snow", "own", &["apple"]), reading("city", "own", &[])];
        let prompts = ["a {} and an apple in the snow", "a {} and an apple in the snow", "a red {} on the beach"];
        let images = prompts.iter().zip(&seen).zip(&read).map(|((prompt, seen), read)| (demands(prompt), seen, read));
        let share = |count, of| Share { count, of };
        let expected = Agreement {
            obeyed: share(1, 3),
            missed: 1,
            imagined: 1,
            background: share(2, 3),
            color: share(0, 1),
            style: share(0, 0),
            things: share(1, 2),
        };
        assert_eq!(compare(images), expected);
    }
}
