//! A scene in words.

use crate::{Background, Scene, World};

impl Scene {
    /// What a person would write below the image: "a photo of a red apple and a fox in the snow".
    pub fn caption(&self, world: &World) -> String {
        let lead = match &self.style {
            Some(style) => world.styles.get(style).map(String::as_str),
            None => self.says_photo.then_some("a photo of"),
        };
        let background = match &self.background {
            _ if !self.tells_background => None,
            Background::Plain => None,
            Background::Color(color) => Some(format!("on {} {color} background", article(color))),
            Background::Place(place) => world.places.get(place).cloned(),
        };
        let parts = [lead.map(str::to_owned), Some(self.things(world)), background];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    fn things(&self, world: &World) -> String {
        let of = |color: &Option<String>, word: &str| match color {
            Some(color) => format!("{color} {word}"),
            None => word.to_owned(),
        };
        if let [first, second] = self.objects.as_slice()
            && first == second
        {
            let plural = first.noun.map_or_else(|| format!("{}s", first.word), |noun| world.nouns[noun].plural());
            return format!("two {}", of(&first.color, &plural));
        }
        let each = self.objects.iter().map(|object| {
            let words = of(&object.color, object.said(world));
            format!("{} {words}", article(&words))
        });
        each.collect::<Vec<_>>().join(" and ")
    }
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) && !word.starts_with("uni") { "an" } else { "a" }
}
