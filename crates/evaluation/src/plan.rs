//! Which pictures an evaluation looks at.

use anyhow::Result;
use libtorch::random::derive;

use crate::PromptSet;

/// Prompts, and how many pictures of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What to draw.
    pub prompts: PromptSet,
    /// Pictures of each prompt; 32 in the paper.
    pub images: usize,
    /// The seed that each picture's own is derived from.
    pub seed: u64,
}

/// One picture to draw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shot {
    /// The index of its prompt in the set.
    pub prompt: usize,
    /// Its number among the prompt's pictures.
    pub image: usize,
    /// The prompt with the subject.
    pub text: String,
    /// The seed of its noise.
    pub seed: u64,
}

impl Plan {
    /// Checks that there are not too many pictures.
    ///
    /// # Errors
    /// Says how many there would be.
    pub fn check(&self) -> Result<()> {
        let pictures = self.prompts.prompts.len().saturating_mul(self.images);
        // The paper's evaluation has 24 prompts with 32 pictures each.
        let key = "the number of pictures (prompts times images)";
        Ok(limits::within(key, pictures, 1..=1_000_000, "all of them are drawn and scored")?)
    }

    /// All pictures of a subject such as `[V] dog`, prompt by prompt.
    ///
    /// The seed of a picture depends on the plan's seed, the prompt's text without the subject, and the picture's number:
    /// different models draw from the same noise, and a prompt or a picture more changes none of the others. It has 32
    /// bits, as some programs allow no more.
    pub fn shots(&self, subject: &str) -> Vec<Shot> {
        let mut shots = Vec::with_capacity(self.prompts.prompts.len() * self.images);
        for (index, prompt) in self.prompts.prompts.iter().enumerate() {
            for image in 0..self.images {
                let seed = derive(self.seed, &prompt.text, image as u64) >> 32;
                shots.push(Shot { prompt: index, image, text: prompt.with(subject), seed });
            }
        }
        shots
    }
}

impl Shot {
    /// The name of its file: `007-03.png` is the fourth picture of the eighth prompt.
    pub fn file_name(&self) -> String {
        format!("{:03}-{:02}.png", self.prompt, self.image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_pictures_than_anybody_can_draw_are_refused() {
        let plan = |images| Plan { prompts: PromptSet::load("ours24").unwrap(), images, seed: 0 };
        plan(32).check().unwrap();
        for images in [0, 1 << 32, usize::MAX] {
            let error = plan(images).check().unwrap_err().to_string();
            assert!(error.contains("prompts times images") && error.contains("from 1 to 1000000"), "{error}");
        }
    }

    #[test]
    fn models_share_seeds_and_nothing_else_does() {
        let plan = Plan { prompts: PromptSet::load("ours24").unwrap(), images: 3, seed: 0 };
        let (ours, base) = (plan.shots("[V] dog"), plan.shots("dog"));
        assert_eq!(ours.len(), 72);
        let seeds = |shots: &[Shot]| shots.iter().map(|shot| shot.seed).collect::<Vec<_>>();
        assert_eq!(seeds(&ours), seeds(&base));
        let mut distinct = seeds(&ours);
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 72);
        assert!(distinct.iter().all(|&seed| seed <= u64::from(u32::MAX)));
        assert_ne!(seeds(&Plan { seed: 1, ..plan.clone() }.shots("dog")), seeds(&base));

        let mut fewer = Plan { images: 2, ..plan };
        fewer.prompts.prompts.remove(0);
        assert_eq!(fewer.shots("dog")[3].seed, base[7].seed);
        assert_eq!((base[7].prompt, base[7].file_name().as_str()), (2, "002-01.png"));
    }
}
