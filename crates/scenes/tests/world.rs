//! What the world promises: nothing of a subject in any scene, compositions that are kept apart, captions that are true.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use scenes::{Album, Background, Object, Placement, Scene, Split, World};

fn world() -> World {
    World::miniature()
}

fn scenes(world: &World, split: Split) -> Vec<Scene> {
    (0..3000).map(|seed| Scene::sample(world, seed, split)).collect()
}

#[test]
fn subjects_are_never_seen_or_named() {
    let world = world();
    assert!(world.subjects.len() >= 8);
    let drawings: BTreeSet<&String> = world.subjects.iter().flat_map(|subject| &subject.drawings).collect();
    let names: BTreeSet<&str> = world.subjects.iter().map(|subject| subject.name.as_str()).collect();
    for split in [Split::Training, Split::HeldOut] {
        for scene in scenes(&world, split) {
            assert!(scene.objects.iter().all(|object| !drawings.contains(&object.drawing)));
            assert!(scene.caption(&world).split(' ').all(|word| !names.contains(word)));
        }
    }
}

#[test]
fn held_out_compositions_are_not_trained() {
    let world = world();
    let composition = |scene: &Scene| {
        let mut things: Vec<_> = scene.objects.iter().map(|o| (o.word.clone(), o.color.clone())).collect();
        things.sort();
        format!("{things:?} {:?}", scene.background)
    };
    let trained: BTreeSet<String> = scenes(&world, Split::Training).iter().map(composition).collect();
    assert!(scenes(&world, Split::HeldOut).iter().all(|scene| !trained.contains(&composition(scene))));
}

#[test]
fn a_familys_captions_differ_in_a_thing_alone() {
    let world = world();
    let mut tinted = 0;
    for (seed, split) in (0..200).flat_map(|seed| [(seed, Split::Training), (seed, Split::HeldOut)]) {
        let family = Scene::family(&world, seed, split, 8);
        // Of 189 things in one composition about six are held out.
        assert!(family.len() == 8 || split == Split::HeldOut, "{}", family.len());
        assert_eq!(family[0], Scene::sample(&world, seed, split));
        assert_eq!(family, Scene::family(&world, seed, split, 8));
        let frame = |scene: &Scene| {
            // Two of a kind have a plural, which may differ in more than its ending.
            let said = scene.caption(&world);
            let plural = scene.objects[0].noun.map(|noun| world.nouns[noun].plural()).unwrap();
            let word = if said.contains("two ") { plural } else { scene.objects[0].said(&world).to_owned() };
            said.replacen(&word, "*", 1).replace("an *", "a *")
        };
        let captions: BTreeSet<String> = family.iter().map(|scene| scene.caption(&world)).collect();
        let frames: BTreeSet<String> = family.iter().map(frame).collect();
        assert_eq!((captions.len(), frames.len()), (family.len(), 1), "{captions:?}");
        assert!(family.iter().all(|scene| scene.is_held_out() == (split == Split::HeldOut)));
        tinted += usize::from(family[0].objects[0].color.is_some());
        // No caption is true of another's image.
        for (i, scene) in family.iter().enumerate() {
            for other in family.iter().skip(i + 1) {
                let kind = world.nouns[other.objects[0].noun.unwrap()].kind.as_deref();
                let said = scene.objects[0].said(&world);
                assert!(said != other.objects[0].word && Some(said) != kind, "{captions:?}");
            }
        }
    }
    assert!(tinted > 50, "{tinted}");
}

#[test]
fn captions_use_the_worlds_words_alone() {
    let world = world();
    let words = world.words();
    for scene in scenes(&world, Split::Training) {
        let caption = scene.caption(&world);
        assert!(caption.split(' ').all(|word| words.contains(word)), "{caption}");
    }
}

#[test]
fn captions_say_what_is_there() {
    let world = world();
    let object = |word: &str, color: Option<&str>| {
        let noun = world.nouns.iter().position(|noun| noun.word == word).unwrap();
        Object {
            noun: Some(noun),
            word: word.to_owned(),
            drawing: world.nouns[noun].drawings[0].clone(),
            color: color.map(str::to_owned),
            by_kind: false,
        }
    };
    let scene = |objects: Vec<Object>, background, style: Option<&str>| Scene {
        objects,
        background,
        tells_background: true,
        style: style.map(str::to_owned),
        says_photo: style.is_none(),
        placement: Placement::Steady,
        seed: 0,
    };
    let caption = |scene: Scene| scene.caption(&world);
    let blue = Background::Color("blue".to_owned());
    assert_eq!(
        caption(scene(vec![object("apple", Some("red"))], blue, None)),
        "a photo of a red apple on a blue background"
    );
    let snow = Background::Place("snow".to_owned());
    let pair = vec![object("elephant", None), object("fox", Some("orange"))];
    assert_eq!(caption(scene(pair, snow, Some("sketch"))), "a sketch of an elephant and an orange fox in the snow");
    let twins = vec![object("mouse", Some("gray")), object("mouse", Some("gray"))];
    assert_eq!(caption(scene(twins, Background::Plain, None)), "a photo of two gray mice");
}

#[test]
fn most_things_are_common_ones_and_all_are_shown() {
    let world = world();
    let common = world.common();
    assert!(!common.is_empty() && common.len() < world.nouns.len() / 2);
    let nouns: Vec<usize> =
        scenes(&world, Split::Training).iter().flat_map(|scene| &scene.objects).filter_map(|o| o.noun).collect();
    let share = nouns.iter().filter(|noun| common.contains(noun)).count() as f64 / nouns.len() as f64;
    // Those that are sampled from all nouns may be common too: 0.8 + 0.2 * 60 / 189.
    let expected = 0.8 + 0.2 * common.len() as f64 / world.nouns.len() as f64;
    assert!((share - expected).abs() < 0.03, "{share}");
    let shown: BTreeSet<usize> = nouns.into_iter().collect();
    assert!(shown.len() > world.nouns.len() * 9 / 10, "{}", shown.len());
}

#[test]
fn a_seed_is_an_image() {
    let world = world();
    let album = Album::placeholder(&world);
    for seed in 0..20 {
        let scene = Scene::sample(&world, seed, Split::Training);
        assert_eq!(scene, Scene::sample(&world, seed, Split::Training));
        let image = scene.render(&world, &album, 64);
        assert_eq!(image, scene.render(&world, &album, 64));
        assert!(image.pixels().any(|pixel| pixel != image.get_pixel(0, 0)), "seed {seed} is blank");
    }
}

#[test]
fn taught_things_stand_where_they_stand_and_subjects_do_not() {
    let world = world();
    let album = Album::placeholder(&world);
    let color = Background::Color("white".to_owned());
    // The left edge and the width of what is no background, in parts of the image.
    let extent = |placement, seed| {
        let subject = &world.subjects[0];
        let scene = Scene { placement, background: color.clone(), ..Scene::of_subject(&world, subject, 1, seed) };
        let image = scene.render(&world, &album, 100);
        let columns = (0..100).filter(|&x| (0..100).any(|y| image.get_pixel(x, y).0.iter().min() < Some(&200)));
        let columns: Vec<u32> = columns.collect();
        (columns[0], columns.len())
    };
    let spread = |placement| {
        let extents: Vec<(u32, usize)> = (0..40).map(|seed| extent(placement, seed)).collect();
        let (lefts, widths): (Vec<u32>, Vec<usize>) = extents.into_iter().unzip();
        (
            lefts.iter().max().unwrap() - lefts.iter().min().unwrap(),
            widths.iter().max().unwrap() - widths.iter().min().unwrap(),
        )
    };
    let ((steady_left, steady_width), (free_left, free_width)) = (spread(Placement::Steady), spread(Placement::Free));
    assert!(steady_left <= 7 && steady_width <= 6, "{steady_left} {steady_width}");
    assert!(free_left > 12 && free_width > 12, "{free_left} {free_width}");
}

#[test]
fn a_world_that_teaches_its_subjects_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("world.json");
    let refused = |change: &dyn Fn(&mut World)| {
        let mut world = world();
        change(&mut world);
        std::fs::write(&path, serde_json::to_string(&world).unwrap()).unwrap();
        format!("{:#}", World::open(&path).unwrap_err())
    };
    let message = refused(&|world| world.nouns[0].drawings = world.subjects[0].drawings.clone());
    assert!(message.contains("is also one of a noun"), "{message}");
    let message = refused(&|world| world.subjects[0].name = "cat".to_owned());
    assert!(message.contains("\"cat\" is also a noun"), "{message}");
    let message = refused(&|world| world.subjects[0].category = "yacht".to_owned());
    assert!(message.contains("\"yacht\" of \"penguin\" is not taught"), "{message}");
    let message = refused(&|world| _ = world.places.insert("moon".to_owned(), "on the moon".to_owned()));
    assert!(message.contains("the place \"moon\" has no painter"), "{message}");
}
