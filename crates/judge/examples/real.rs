//! Real pictures of a held-out character as prompts ask for it, for `real` of a table's subject:
//! `cargo run --release -p attndreambooth-judge --example real -- DRAWINGS ANIMATIONS CHARACTER PROMPTS IMAGES OUT`.
//!
//! PROMPTS is a set or a file in the words of the miniature's world; IMAGES counts the pictures of each prompt.

use std::path::Path;

use anyhow::{Context, Result, bail};
use attributes::Demands;
use prompts::{Plan, PromptSet};
use scenes::{Background, Object, Placement, Scene, World};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [drawings, animations, character, set, images, out] = arguments.as_slice() else {
        bail!(
            "give the folders of the drawings and the animations, a character, prompts, images of each and where to write"
        );
    };
    let sources = judge::sources(drawings.as_ref(), animations.as_ref())?;
    let attributes = judge::attributes(&sources.world);
    let plan = Plan { prompts: PromptSet::load(set)?, images: images.parse()?, seed: 0 };
    std::fs::create_dir_all(out)?;
    for image in plan.images(character) {
        let demands = Demands::of(&attributes, &plan.prompts.prompts[image.prompt].text);
        let scene = scene(&sources.world, character, &demands, image.seed)?;
        scene
            .render(&sources.world, &sources.album, pretrainer::IMAGE_SIZE)
            .save(Path::new(out).join(image.file_name()))?;
        terminal::say!("{}: {}", image.file_name(), scene.caption(&sources.world));
    }
    Ok(())
}

/// A character with all that is demanded, elsewhere and in another pose from each seed.
fn scene(world: &World, character: &str, demands: &Demands, seed: u64) -> Result<Scene> {
    let object = |word: &str, color: Option<String>| -> Result<Object> {
        let noun = world.nouns.iter().position(|noun| noun.word == word);
        let noun = noun.with_context(|| format!("the world has no {word:?}"))?;
        let drawings = &world.nouns[noun].drawings;
        let drawing = drawings[seed as usize % drawings.len()].clone();
        Ok(Object { noun: Some(noun), word: word.to_owned(), drawing, color, by_kind: false })
    };
    let mut objects = vec![object(character, demands.color.clone())?];
    for thing in &demands.things {
        objects.push(object(thing, None)?);
    }
    let background = match &demands.background {
        Some(name) if world.places.contains_key(name) => Background::Place(name.clone()),
        Some(name) if world.colors.contains_key(name) => Background::Color(name.clone()),
        _ => Background::Plain,
    };
    let style = demands.style.clone();
    let placement = Placement::Free;
    Ok(Scene { objects, background, tells_background: true, style, says_photo: false, placement, seed })
}
