//! What an image shows, sampled from a seed.

use crate::World;
use crate::rng::Rng;

/// One composition in so many is held out.
const HELD_OUT: u64 = 32;

/// The share of things that are common ones.
const COMMON: f32 = 0.8;

/// Which compositions a scene may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Those that models are trained with.
    Training,
    /// Those that no training scene has.
    HeldOut,
}

/// An image before it is painted.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// One thing, or two from left to right.
    pub objects: Vec<Object>,
    /// The background.
    pub background: Background,
    /// Whether the caption tells the background.
    pub tells_background: bool,
    /// The name of a style.
    pub style: Option<String>,
    /// Whether the caption begins with "a photo of".
    pub says_photo: bool,
    /// How freely its things are placed.
    pub placement: Placement,
    /// The seed of positions, sizes and small differences.
    pub seed: u64,
}

/// How things stand in a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Large, in the middle and unmirrored, nearly the same in every scene: a small model learns shapes soonest that way.
    Steady,
    /// Larger and smaller, aside, mirrored: as photos of a subject show it.
    Free,
}

/// A thing in a scene.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// The noun's place in the world, or none for a subject, of which captions say the category.
    pub noun: Option<usize>,
    /// The word, where there is no noun.
    pub word: String,
    /// The name of the drawing.
    pub drawing: String,
    /// A colour word, if it is tinted.
    pub color: Option<String>,
    /// Whether the caption says the wider word.
    pub by_kind: bool,
}

/// A background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Background {
    /// A light grey.
    Plain,
    /// A colour by its word.
    Color(String),
    /// A place by its name.
    Place(String),
}

impl Object {
    /// The word that captions say, in the singular.
    pub fn said<'a>(&'a self, world: &'a World) -> &'a str {
        match self.noun.map(|noun| &world.nouns[noun]) {
            Some(noun) => noun.kind.as_deref().filter(|_| self.by_kind).unwrap_or(&noun.word),
            None => &self.word,
        }
    }

    /// Whether captions that name the one may mean the other.
    fn may_be(&self, other: &Self, world: &World) -> bool {
        let kind = |object: &Self| object.noun.and_then(|noun| world.nouns[noun].kind.as_deref());
        let names =
            |one: &Self, other: &Self| [Some(other.word.as_str()), kind(other)].contains(&Some(one.said(world)));
        names(self, other) || names(other, self)
    }
}

impl Scene {
    /// Samples a scene of the compositions of one split.
    pub fn sample(world: &World, seed: u64, split: Split) -> Self {
        let mut rng = Rng::new(seed);
        loop {
            let scene = Self::any(world, &mut rng);
            if scene.is_held_out() == (split == Split::HeldOut) {
                return scene;
            }
        }
    }

    /// A scene, and others that are said alike but for their first thing, `size` in all (fewer where the world has too few
    /// things). Colours and backgrounds do not tell them apart: a model that has to do so must know the things.
    pub fn family(world: &World, seed: u64, split: Split, size: usize) -> Vec<Self> {
        let first = Self::sample(world, seed, split);
        // Not the numbers that paint the first one.
        let mut rng = Rng::new(fnv(&first.seed.to_le_bytes()));
        let mut family = vec![first];
        for _ in 0..100 * size {
            if family.len() >= size {
                break;
            }
            let thing = Object { by_kind: false, ..Self::object(world, &mut rng, 0.0) };
            let clear = |scene: &Self| scene.objects.iter().all(|object| !object.may_be(&thing, world));
            if family.iter().all(clear) {
                let scene = family[0].with_first(thing, rng.seed());
                if scene.is_held_out() == (split == Split::HeldOut) {
                    family.push(scene);
                }
            }
        }
        family
    }

    /// With `thing` instead of the first one (of both, where there are two of it), in its colour.
    fn with_first(&self, thing: Object, seed: u64) -> Self {
        let first = &self.objects[0];
        let thing = Object { color: first.color.clone(), ..thing };
        let replaced = |object: &Object| if object == first { thing.clone() } else { object.clone() };
        Self { objects: self.objects.iter().map(replaced).collect(), seed, ..self.clone() }
    }

    /// A subject, alone, as its photos show it: no style, its own colours, the background of `turn`.
    pub fn of_subject(world: &World, subject: &crate::Subject, turn: usize, seed: u64) -> Self {
        let places: Vec<&String> = world.places.keys().collect();
        let colors: Vec<&String> = world.colors.keys().collect();
        let mut rng = Rng::new(seed);
        let background = match turn % 2 {
            0 => Background::Place(places[rng.below(places.len())].clone()),
            _ => Background::Color(colors[rng.below(colors.len())].clone()),
        };
        let object = Object {
            noun: None,
            word: subject.category.clone(),
            drawing: subject.drawings[turn % subject.drawings.len()].clone(),
            color: None,
            by_kind: false,
        };
        let (objects, seed) = (vec![object], rng.seed());
        let placement = Placement::Free;
        Self { objects, background, tells_background: true, style: None, says_photo: true, placement, seed }
    }

    fn any(world: &World, rng: &mut Rng) -> Self {
        let pick = |rng: &mut Rng, names: Vec<&String>| names[rng.below(names.len())].clone();
        let kind_of_scene = rng.unit();
        let mut first = Self::object(world, rng, 0.3);
        let objects = if kind_of_scene < 0.82 {
            vec![first]
        } else if kind_of_scene < 0.94 {
            let mut second = Self::object(world, rng, 0.25);
            while second.noun == first.noun {
                second = Self::object(world, rng, 0.25);
            }
            vec![first, second]
        } else {
            first.by_kind = false;
            vec![first.clone(), first]
        };
        let background = match rng.unit() {
            u if u < 0.42 => Background::Color(loop {
                let color = pick(rng, world.colors.keys().collect());
                if objects.iter().all(|object| object.color.as_ref() != Some(&color)) {
                    break color;
                }
            }),
            u if u < 0.9 => Background::Place(pick(rng, world.places.keys().collect())),
            _ => Background::Plain,
        };
        let tells_background = background != Background::Plain && rng.chance(0.93);
        let style = rng.chance(0.15).then(|| pick(rng, world.styles.keys().collect()));
        let says_photo = style.is_none() && rng.chance(0.6);
        let placement = Placement::Steady;
        Self { objects, background, tells_background, style, says_photo, placement, seed: rng.seed() }
    }

    fn object(world: &World, rng: &mut Rng, tinted: f32) -> Object {
        let common = world.common();
        let noun = if !common.is_empty() && rng.chance(COMMON) {
            common[rng.below(common.len())]
        } else {
            rng.below(world.nouns.len())
        };
        let drawings = &world.nouns[noun].drawings;
        let drawing = drawings[rng.below(drawings.len())].clone();
        let colors: Vec<&String> = world.colors.keys().collect();
        let color = rng.chance(tinted).then(|| colors[rng.below(colors.len())].clone());
        Object { noun: Some(noun), word: world.nouns[noun].word.clone(), drawing, color, by_kind: rng.chance(0.15) }
    }

    /// Whether the things, their colours and the background together are kept from training.
    pub fn is_held_out(&self) -> bool {
        let mut things: Vec<String> =
            self.objects.iter().map(|object| format!("{:?} {}", object.color, object.word)).collect();
        things.sort();
        let composition = format!("{things:?} {:?}", self.background);
        let is_composed = self.background != Background::Plain || self.objects.len() > 1;
        is_composed && fnv(composition.as_bytes()).is_multiple_of(HELD_OUT)
    }
}

/// FNV-1a with a finaliser, so that its low bits are good.
fn fnv(bytes: &[u8]) -> u64 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd) >> 32
}
