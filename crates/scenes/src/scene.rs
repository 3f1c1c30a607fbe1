//! What a picture shows, drawn from a seed.

use crate::World;
use crate::draws::Draws;

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

/// A picture before it is painted.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// One thing, or two from left to right.
    pub objects: Vec<Object>,
    /// What is behind them.
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
    /// Large, in the middle and as drawn, nearly the same in every scene: a small model learns shapes soonest that way.
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
    pub picture: String,
    /// A colour word, if it is tinted.
    pub color: Option<String>,
    /// Whether the caption says the wider word.
    pub by_kind: bool,
}

/// What is behind the things.
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
    /// A scene of one kind of compositions.
    pub fn draw(world: &World, seed: u64, split: Split) -> Self {
        let mut draws = Draws::new(seed);
        loop {
            let scene = Self::any(world, &mut draws);
            if scene.is_held_out() == (split == Split::HeldOut) {
                return scene;
            }
        }
    }

    /// A scene, and others that are said alike but for their first thing, `size` in all (fewer where the world has too few
    /// things). Colours and backgrounds do not tell them apart: a model that has to do so must know the things.
    pub fn family(world: &World, seed: u64, split: Split, size: usize) -> Vec<Self> {
        let first = Self::draw(world, seed, split);
        // Not the numbers that paint the first one.
        let mut draws = Draws::new(fnv(&first.seed.to_le_bytes()));
        let mut family = vec![first];
        for _ in 0..100 * size {
            if family.len() >= size {
                break;
            }
            let thing = Object { by_kind: false, ..Self::object(world, &mut draws, 0.0) };
            let clear = |scene: &Self| scene.objects.iter().all(|object| !object.may_be(&thing, world));
            if family.iter().all(clear) {
                let scene = family[0].with_first(thing, draws.seed());
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
        let mut draws = Draws::new(seed);
        let background = match turn % 2 {
            0 => Background::Place(places[draws.below(places.len())].clone()),
            _ => Background::Color(colors[draws.below(colors.len())].clone()),
        };
        let object = Object {
            noun: None,
            word: subject.category.clone(),
            picture: subject.pictures[turn % subject.pictures.len()].clone(),
            color: None,
            by_kind: false,
        };
        let (objects, seed) = (vec![object], draws.seed());
        let placement = Placement::Free;
        Self { objects, background, tells_background: true, style: None, says_photo: true, placement, seed }
    }

    fn any(world: &World, draws: &mut Draws) -> Self {
        let pick = |draws: &mut Draws, names: Vec<&String>| names[draws.below(names.len())].clone();
        let kind_of_scene = draws.unit();
        let mut first = Self::object(world, draws, 0.3);
        let objects = if kind_of_scene < 0.82 {
            vec![first]
        } else if kind_of_scene < 0.94 {
            let mut second = Self::object(world, draws, 0.25);
            while second.noun == first.noun {
                second = Self::object(world, draws, 0.25);
            }
            vec![first, second]
        } else {
            first.by_kind = false;
            vec![first.clone(), first]
        };
        let background = match draws.unit() {
            u if u < 0.42 => Background::Color(loop {
                let color = pick(draws, world.colors.keys().collect());
                if objects.iter().all(|object| object.color.as_ref() != Some(&color)) {
                    break color;
                }
            }),
            u if u < 0.9 => Background::Place(pick(draws, world.places.keys().collect())),
            _ => Background::Plain,
        };
        let tells_background = background != Background::Plain && draws.chance(0.93);
        let style = draws.chance(0.15).then(|| pick(draws, world.styles.keys().collect()));
        let says_photo = style.is_none() && draws.chance(0.6);
        let placement = Placement::Steady;
        Self { objects, background, tells_background, style, says_photo, placement, seed: draws.seed() }
    }

    fn object(world: &World, draws: &mut Draws, tinted: f32) -> Object {
        let common = world.common();
        let noun = if !common.is_empty() && draws.chance(COMMON) {
            common[draws.below(common.len())]
        } else {
            draws.below(world.nouns.len())
        };
        let pictures = &world.nouns[noun].pictures;
        let picture = pictures[draws.below(pictures.len())].clone();
        let colors: Vec<&String> = world.colors.keys().collect();
        let color = draws.chance(tinted).then(|| colors[draws.below(colors.len())].clone());
        Object { noun: Some(noun), word: world.nouns[noun].word.clone(), picture, color, by_kind: draws.chance(0.15) }
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
