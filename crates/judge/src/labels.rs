//! What a scene shows, as numbers for classifiers.

use std::collections::BTreeMap;

use attributes::{Attributes, Label};
use libtorch::random;
use scenes::{Background, Object, Scene, World};

use crate::world::characters;

/// What there is to be told apart in a world.
pub fn attributes(world: &World) -> Attributes {
    let after = |first: &str, names: Vec<&String>| -> Vec<String> {
        std::iter::once(first.to_owned()).chain(names.into_iter().cloned()).collect()
    };
    let (colors, places) = (world.colors.keys(), world.places.keys());
    let mut things: Vec<String> = world.nouns.iter().map(|noun| noun.word.clone()).collect();
    things.sort_unstable();
    things.dedup();
    Attributes {
        backgrounds: after("plain", colors.clone().chain(places).collect()),
        colors: after("own", colors.collect()),
        styles: after("none", world.styles.keys().collect()),
        things,
        places: world.places.clone(),
        style_phrases: world.styles.clone(),
        plurals: world.nouns.iter().map(|noun| (noun.plural(), noun.word.clone())).collect(),
    }
}

/// The numbers of scenes.
#[derive(Debug, Clone)]
pub(crate) struct Labels {
    attributes: Attributes,
    /// Drawings by what they show: a character's poses show one thing.
    identities: BTreeMap<String, i64>,
    names: BTreeMap<String, String>,
}

impl Labels {
    pub(crate) fn new(world: &World) -> Self {
        let names = characters();
        let mut identities = BTreeMap::new();
        let mut of_names = BTreeMap::new();
        for drawing in world.nouns.iter().flat_map(|noun| &noun.drawings) {
            let shown = names.get(drawing).unwrap_or(drawing).clone();
            let next = of_names.len() as i64;
            identities.insert(drawing.clone(), *of_names.entry(shown).or_insert(next));
        }
        Self { attributes: attributes(world), identities, names }
    }

    /// How many things there are to tell apart.
    pub(crate) fn identities(&self) -> i64 {
        self.identities.values().max().map_or(0, |last| last + 1)
    }

    /// The character that an object shows, if it is one.
    pub(crate) fn character(&self, object: &Object) -> Option<&str> {
        self.names.get(&object.drawing).map(String::as_str)
    }

    pub(crate) fn of(&self, scene: &Scene) -> Label {
        let Attributes { backgrounds, colors, styles, things, .. } = &self.attributes;
        let place = |names: &[String], name: &str| names.iter().position(|known| known == name).unwrap_or(0) as i64;
        let words = scene.objects.iter().flat_map(|object| [Some(object.word.as_str()), self.character(object)]);
        let mut shown: Vec<i64> = words.flatten().map(|word| place(things, word)).collect();
        shown.sort_unstable();
        shown.dedup();
        Label {
            background: match &scene.background {
                Background::Plain => 0,
                Background::Color(name) | Background::Place(name) => place(backgrounds, name),
            },
            color: scene.objects[0].color.as_ref().map_or(0, |color| place(colors, color)),
            style: scene.style.as_ref().map_or(0, |style| place(styles, style)),
            things: shown,
        }
    }

    /// Whether a scene shows a character before one of the backgrounds, a third of all, that no training scene has with it.
    pub(crate) fn withheld(&self, scene: &Scene) -> bool {
        let (Background::Color(background) | Background::Place(background)) = &scene.background else { return false };
        let hash = |name: &str| random::derive(0, &format!("{name} {background}"), 0);
        scene.objects.iter().filter_map(|object| self.character(object)).any(|name| hash(name).is_multiple_of(3))
    }

    /// What a scene shows, where it shows one thing.
    pub(crate) fn identity(&self, scene: &Scene) -> Option<i64> {
        match scene.objects.as_slice() {
            [only] => self.identities.get(&only.drawing).copied(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use attributes::{Demands, Reading};
    use scenes::Split;

    use super::*;

    #[test]
    fn labels_say_what_captions_say() {
        let world = crate::world();
        let labels = Labels::new(&world);
        let Attributes { backgrounds, styles, things, .. } = attributes(&world);
        for seed in 0..300 {
            let scene = Scene::sample(&world, seed, Split::HeldOut);
            let label = labels.of(&scene);
            let expected = match &scene.background {
                Background::Plain => "plain",
                Background::Color(name) | Background::Place(name) => name,
            };
            assert_eq!(backgrounds[label.background as usize], expected);
            assert_eq!(styles[label.style as usize], scene.style.as_deref().unwrap_or("none"));
            assert!(label.things.iter().any(|thing| things[*thing as usize] == scene.objects[0].word));
            assert_eq!(labels.identity(&scene).is_some(), scene.objects.len() == 1);
        }
    }

    fn demands(prompt: &str) -> Demands {
        Demands::of(&attributes(&crate::world()), prompt)
    }

    #[test]
    fn prompts_say_what_scenes_are_made_of() {
        let world = crate::world();
        let attributes = attributes(&world);
        for seed in 0..300 {
            let scene = Scene::sample(&world, seed, Split::HeldOut);
            let (first, rest) = scene.objects.split_first().unwrap();
            // A subject stands where the first thing stood; two of one thing are said in the plural.
            if rest.first() == Some(first) || rest.iter().any(|object| object.by_kind) {
                continue;
            }
            let caption = scene.caption(&world);
            let said = first.said(&world);
            let prompt = caption.split(' ').collect::<Vec<_>>();
            let words = said.split(' ').collect::<Vec<_>>();
            let Some(place) = prompt.windows(words.len()).position(|window| window == words) else {
                panic!("{caption}")
            };
            let prompt = [&prompt[..place], &["{}"], &prompt[place + words.len()..]].concat().join(" ");
            let background = match &scene.background {
                Background::Color(name) | Background::Place(name) if scene.tells_background => Some(name.clone()),
                _ => None,
            };
            let things: Vec<String> = rest.iter().map(|object| object.word.clone()).collect();
            let expected = Demands { background, color: first.color.clone(), style: scene.style.clone(), things };
            assert_eq!(Demands::of(&attributes, &prompt), expected, "{prompt}");
        }
    }

    #[test]
    fn an_image_obeys_when_all_is_there() {
        let reading = Reading {
            background: "snow".to_owned(),
            color: "red".to_owned(),
            style: "none".to_owned(),
            things: vec!["bird".to_owned(), "apple".to_owned()],
        };
        let met = |prompt: &str| demands(prompt).met_by(&reading);
        assert!(met("a red {} and an apple in the snow") && met("a photo of a {}") && met("a {} in the snow"));
        assert!(!met("a {} on the beach") && !met("a sketch of a {}") && !met("a green {}") && !met("a {} and a fox"));
        // A table is where it stands, and a background of snow is no snow-white one.
        assert_eq!(demands("a {} on a table"), Demands { background: Some("table".to_owned()), ..Demands::default() });
        assert!(!met("a {} on a white background"));
    }
}
