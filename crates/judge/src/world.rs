//! The miniature's world, as the judge knows it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use pretrainer::Sources;
use scenes::{Album, Noun, World};

/// Poses of each animation.
const POSES: usize = 5;
/// Those of `fixtures/subjects` begin at 0: these lie half-way between them.
const BETWEEN: f64 = 0.5;

/// The miniature's world, in which each held-out character is a noun twice: under its name, and as one more of its class noun.
pub fn world() -> World {
    let mut world = World::miniature();
    for subject in std::mem::take(&mut world.subjects) {
        let class = world.nouns.iter().find(|noun| noun.word == subject.category);
        let (plural, kind) = class.map_or((None, None), |class| (class.plural.clone(), class.kind.clone()));
        let drawings: Vec<String> =
            subject.drawings.iter().flat_map(|drawing| (0..POSES).map(|pose| pose_of(drawing, pose))).collect();
        let drawings = [subject.drawings, drawings].concat();
        let named = Noun {
            word: subject.name,
            plural: None,
            drawings: drawings.clone(),
            kind: Some(subject.category.clone()),
            common: true,
        };
        world.nouns.extend([named, Noun { word: subject.category, plural, drawings, kind, common: true }]);
    }
    world
}

/// That world with the drawings and the animations (folders of `CODEPOINT.webp`) of Microsoft's Fluent emoji.
///
/// # Errors
/// Names the file that cannot be used.
pub fn sources(drawings: &Path, animations: &Path) -> Result<Sources> {
    let miniature = World::miniature();
    let mut album = Album::open(&miniature, drawings)?;
    for drawing in miniature.subjects.iter().flat_map(|subject| &subject.drawings) {
        let poses = scenes::poses(&animations.join(format!("{drawing}.webp")), POSES, BETWEEN)?;
        album = album.with(poses.into_iter().enumerate().map(|(pose, image)| (pose_of(drawing, pose), image)));
    }
    Sources::new(world(), album)
}

fn pose_of(drawing: &str, pose: usize) -> String {
    format!("{drawing}-pose{pose}")
}

/// The held-out character that each of its drawings shows.
pub(crate) fn characters() -> BTreeMap<String, String> {
    let of = |subject: scenes::Subject| {
        let poses = subject.drawings.clone().into_iter();
        let poses = poses.flat_map(|drawing| (0..POSES).map(move |pose| pose_of(&drawing, pose)));
        let all: Vec<String> = poses.chain(subject.drawings).collect();
        all.into_iter().map(move |drawing| (drawing, subject.name.clone()))
    };
    World::miniature().subjects.into_iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_known_by_its_name_and_its_class_noun() {
        let (miniature, judged) = (World::miniature(), world());
        assert!(judged.subjects.is_empty() && !miniature.subjects.is_empty());
        assert_eq!(judged.nouns.len(), miniature.nouns.len() + 2 * miniature.subjects.len());
        assert_eq!(judged.nouns[..miniature.nouns.len()], miniature.nouns[..]);
        let words = judged.words();
        for subject in &miniature.subjects {
            let drawn = |word: &str| {
                judged.nouns.iter().any(|noun| noun.word == word && noun.drawings.contains(&subject.drawings[0]))
            };
            assert!(drawn(&subject.name) && drawn(&subject.category) && words.contains(&subject.name), "{subject:?}");
            assert!(!miniature.words().contains(&subject.name));
            assert_eq!(characters()[&subject.drawings[0]], subject.name);
        }
    }
}
