//! The pictures and captions that a judge is examined with: compositions that it has not seen.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use libtorch::random;
use pretrainer::Sources;
use scenes::{Background, RgbImage, Scene, Split, Subject, World};
use serde::{Deserialize, Serialize};

use crate::labels::Labels;
use crate::pictures::drawn;
use crate::sheet::{read_sheet, write_sheet};

/// Captions to choose from.
const CAPTIONS: usize = 100;
/// Sets of captions.
const SETS: u64 = 2;
/// Pictures of each character, at most.
const PORTRAITS: usize = 8;
/// The file of the captions.
const RECORD: &str = "examination.json";

/// Scenes with different captions.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub(crate) images: Vec<RgbImage>,
    pub(crate) captions: Vec<String>,
}

/// Pictures of a character as its photos are, in its poses, before backgrounds that no training scene has with it.
#[derive(Debug, Clone)]
pub(crate) struct Portraits {
    pub(crate) name: String,
    pub(crate) images: Vec<RgbImage>,
    pub(crate) captions: Vec<PortraitCaptions>,
}

/// The captions of a portrait, of which one is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PortraitCaptions {
    pub(crate) right: String,
    pub(crate) wrong_background: String,
    pub(crate) wrong_color: String,
    pub(crate) wrong_style: String,
}

/// What a judge is asked.
#[derive(Debug, Clone)]
pub struct Examination {
    /// Scenes of ordinary nouns.
    pub(crate) nouns: Vec<Set>,
    /// Scenes of held-out characters, whose captions say the class noun.
    pub(crate) characters: Vec<Set>,
    pub(crate) portraits: Vec<Portraits>,
}

/// What the file beside the sheets says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    nouns: Vec<Vec<String>>,
    characters: Vec<Vec<String>>,
    portraits: Vec<(String, Vec<PortraitCaptions>)>,
}

impl Examination {
    /// Draws it.
    ///
    /// # Errors
    /// When the world is too small for it.
    pub fn draw(sources: &Sources) -> Result<Self> {
        let artist = Artist { sources, labels: Labels::new(&sources.world) };
        let character = |scene: &Scene| artist.labels.character(&scene.objects[0]).map(str::to_owned);
        let by_class = |scene: &Scene| {
            let first = &scene.objects[0];
            character(scene).is_some_and(|name| name != first.word) && !first.by_kind && scene.objects.len() == 1
        };
        let ordinary = |scene: &Scene| scene.objects.iter().all(|object| artist.labels.character(object).is_none());
        let sets = |purpose: &str, fits: &dyn Fn(&Scene) -> bool| -> Result<Vec<Set>> {
            (0..SETS).map(|set| artist.distinct(random::derive(set, purpose, 0), fits)).collect()
        };
        Ok(Self {
            nouns: sets("nouns", &ordinary)?,
            characters: sets("characters", &by_class)?,
            portraits: World::miniature().subjects.into_iter().map(|subject| artist.portraits(subject)).collect(),
        })
    }

    /// Reads it from a folder.
    ///
    /// # Errors
    /// Names the file that is not there, damaged or of another size.
    pub fn open(folder: &Path) -> Result<Self> {
        let record: Record = json::read(&folder.join(RECORD), "the captions of a judge's examination")?;
        let sets = |kind: &str, captions: Vec<Vec<String>>| -> Result<Vec<Set>> {
            let set = |(i, captions): (usize, Vec<String>)| {
                Ok(Set { images: read_sheet(&folder.join(format!("{kind}-{i}.jpg")), captions.len())?, captions })
            };
            captions.into_iter().enumerate().map(set).collect()
        };
        let count = record.portraits.iter().map(|(_, captions)| captions.len()).sum();
        let mut images = read_sheet(&folder.join("portraits.jpg"), count)?.into_iter();
        let portraits = record.portraits.into_iter().map(|(name, captions)| {
            let images = images.by_ref().take(captions.len()).collect();
            Portraits { name, images, captions }
        });
        let portraits = portraits.collect();
        Ok(Self { nouns: sets("nouns", record.nouns)?, characters: sets("characters", record.characters)?, portraits })
    }

    /// Writes it into a folder: sheets of JPEG images and their captions.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let captions = |kind: &str, sets: &[Set]| -> Result<Vec<Vec<String>>> {
            let set = |(i, set): (usize, &Set)| {
                write_sheet(&folder.join(format!("{kind}-{i}.jpg")), &set.images)?;
                Ok(set.captions.clone())
            };
            sets.iter().enumerate().map(set).collect()
        };
        let all: Vec<RgbImage> = self.portraits.iter().flat_map(|portraits| portraits.images.clone()).collect();
        write_sheet(&folder.join("portraits.jpg"), &all)?;
        let of = |portraits: &Portraits| (portraits.name.clone(), portraits.captions.clone());
        let record = Record {
            nouns: captions("nouns", &self.nouns)?,
            characters: captions("characters", &self.characters)?,
            portraits: self.portraits.iter().map(of).collect(),
        };
        atomic::write(&folder.join(RECORD), format!("{}\n", serde_json::to_string_pretty(&record)?))
    }
}

struct Artist<'a> {
    sources: &'a Sources,
    labels: Labels,
}

impl Artist<'_> {
    fn drawn(&self, scenes: &[Scene]) -> Vec<RgbImage> {
        scenes.iter().map(|scene| drawn(self.sources, &self.labels, scene).image).collect()
    }

    /// Scenes of held-out compositions whose captions differ in what they say, so that only one is true of each: all tell the
    /// background, "a photo of" tells nothing, and no colour is told of a sketch, which is grey.
    fn distinct(&self, seed: u64, fits: &dyn Fn(&Scene) -> bool) -> Result<Set> {
        let world = &self.sources.world;
        let mut said = BTreeSet::new();
        let all = (0..2000 * CAPTIONS as u64)
            .map(|i| Scene::sample(world, random::derive(seed, "measured", i), Split::HeldOut));
        let mut new = |scene: &Scene| said.insert(Scene { says_photo: false, ..scene.clone() }.caption(world));
        let told = all.filter(fits).filter(|scene| scene.tells_background && !is_colored_sketch(scene));
        let scenes: Vec<Scene> = told.filter(|scene| new(scene)).take(CAPTIONS).collect();
        ensure!(scenes.len() == CAPTIONS, "the world has too few scenes: {CAPTIONS} different captions are measured");
        Ok(Set { images: self.drawn(&scenes), captions: scenes.iter().map(|scene| scene.caption(world)).collect() })
    }

    fn portraits(&self, subject: Subject) -> Portraits {
        let noun = self.sources.world.nouns.iter().find(|noun| noun.word == subject.name);
        let drawings = noun.map_or(subject.drawings, |noun| noun.drawings.clone());
        let subject = Subject { drawings, ..subject };
        let all = (0..10_000u64).map(|i| {
            let seed = random::derive(i, "portrait", 0);
            Scene::of_subject(&self.sources.world, &subject, seed as usize % 1000, seed)
        });
        // Each before another background, so that none is like another for that.
        let mut backgrounds = Vec::new();
        let new = |scene: &Scene| {
            let new = self.labels.withheld(scene) && !backgrounds.contains(&scene.background);
            if new {
                backgrounds.push(scene.background.clone());
            }
            new
        };
        let scenes: Vec<Scene> = all.filter(new).take(PORTRAITS).collect();
        Portraits {
            name: subject.name,
            images: self.drawn(&scenes),
            captions: scenes.iter().enumerate().map(|(i, scene)| self.captions(scene, i)).collect(),
        }
    }

    /// The caption of a scene, and those of what it does not show, the `i`-th of each kind.
    fn captions(&self, scene: &Scene, i: usize) -> PortraitCaptions {
        let world = &self.sources.world;
        let places: Vec<&String> = world.places.keys().collect();
        let elsewhere = (0..places.len()).map(|turn| Background::Place(places[(i + turn) % places.len()].clone()));
        let background = elsewhere.into_iter().find(|place| *place != scene.background);
        let background = background.unwrap_or(Background::Plain);
        let mut tinted = scene.clone();
        tinted.objects[0].color = world.colors.keys().nth(i % world.colors.len()).cloned();
        let style = world.styles.keys().nth(i % world.styles.len()).cloned();
        PortraitCaptions {
            right: scene.caption(world),
            wrong_background: Scene { background, ..scene.clone() }.caption(world),
            wrong_color: tinted.caption(world),
            wrong_style: Scene { style, ..scene.clone() }.caption(world),
        }
    }
}

/// Whether a scene's caption says colours that its picture cannot show.
fn is_colored_sketch(scene: &Scene) -> bool {
    let colored = matches!(scene.background, Background::Color(_)) || scene.objects.iter().any(|of| of.color.is_some());
    scene.style.as_deref() == Some("sketch") && colored
}

#[cfg(test)]
mod tests {
    use scenes::Album;

    use super::*;

    #[test]
    fn it_reads_back_and_asks_what_no_training_scene_shows() {
        let world = crate::world();
        let album = Album::placeholder(&world);
        let sources = Sources::new(world, album).unwrap();
        let drawn = Examination::draw(&sources).unwrap();
        assert_eq!((drawn.nouns.len(), drawn.characters.len()), (SETS as usize, SETS as usize));
        for set in drawn.nouns.iter().chain(&drawn.characters) {
            let different: BTreeSet<&String> = set.captions.iter().collect();
            assert_eq!((set.images.len(), different.len()), (CAPTIONS, CAPTIONS));
            let colors: Vec<String> = sources.world.colors.keys().map(|color| format!(" {color} ")).collect();
            let sketches: Vec<&String> = set.captions.iter().filter(|caption| caption.contains("sketch of")).collect();
            assert!(!sketches.iter().any(|caption| colors.iter().any(|color| caption.contains(color.as_str()))));
        }
        assert_eq!(drawn.portraits.len(), World::miniature().subjects.len());
        for Portraits { name, images, captions } in &drawn.portraits {
            assert!(images.len() == captions.len() && captions.len() >= 4, "{name}: {}", captions.len());
            for PortraitCaptions { right, wrong_background, wrong_color, wrong_style } in captions {
                assert!([wrong_background, wrong_color, wrong_style].iter().all(|wrong| *wrong != right), "{right}");
            }
        }
        let folder = tempfile::tempdir().unwrap();
        drawn.save(folder.path()).unwrap();
        let read = Examination::open(folder.path()).unwrap();
        assert_eq!(read.nouns[0].captions, drawn.nouns[0].captions);
        let (ours, theirs) = (&read.portraits[3], &drawn.portraits[3]);
        assert_eq!((&ours.name, &ours.captions), (&theirs.name, &theirs.captions));
        // JPEG changes them a little.
        let difference = |a: &RgbImage, b: &RgbImage| {
            let sum: u64 = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
            sum as f64 / a.as_raw().len() as f64
        };
        assert!(ours.images.iter().zip(&theirs.images).all(|(a, b)| difference(a, b) < 4.0));
        std::fs::remove_file(folder.path().join("portraits.jpg")).unwrap();
        assert!(format!("{:#}", Examination::open(folder.path()).unwrap_err()).contains("portraits.jpg"));
    }
}
