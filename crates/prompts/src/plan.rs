//! Which images to generate of a prompt set.

use anyhow::Result;
use options::derive_seed;

use crate::PromptSet;

/// Prompts, and how many images of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The prompts.
    pub prompts: PromptSet,
    /// Images of each prompt; 32 in the paper.
    pub images: usize,
    /// The seed that each image's own is derived from.
    pub seed: u64,
}

/// One image to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedImage {
    /// The index of its prompt in the set.
    pub prompt: usize,
    /// Its number among the prompt's images.
    pub image: usize,
    /// The prompt with the subject.
    pub text: String,
    /// The seed of its noise.
    pub seed: u64,
}

impl Plan {
    /// Checks that there are not too many images.
    ///
    /// # Errors
    /// Says how many there would be.
    pub fn check(&self) -> Result<()> {
        let count = self.prompts.prompts.len().saturating_mul(self.images);
        // The paper's evaluation has 24 prompts with 32 images each.
        let key = "the number of images (prompts times images)";
        Ok(limits::within(key, count, 1..=1_000_000, "all of them are generated and scored")?)
    }

    /// All images of a subject such as `[V] dog`, prompt by prompt.
    ///
    /// The seed of an image depends on the plan's seed, the prompt's text without the subject, and the image's number:
    /// different models start from the same noise, and one prompt or image more changes none of the others. It has 32
    /// bits, as some programs allow no more.
    pub fn images(&self, subject: &str) -> Vec<PlannedImage> {
        let mut images = Vec::with_capacity(self.prompts.prompts.len() * self.images);
        for (index, prompt) in self.prompts.prompts.iter().enumerate() {
            for image in 0..self.images {
                let seed = derive_seed(self.seed, &prompt.text, image as u64) >> 32;
                images.push(PlannedImage { prompt: index, image, text: prompt.with(subject), seed });
            }
        }
        images
    }
}

impl PlannedImage {
    /// The name of its file: `007-03.png` is the fourth image of the eighth prompt.
    pub fn file_name(&self) -> String {
        format!("{:03}-{:02}.png", self.prompt, self.image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_images_than_anybody_can_generate_are_refused() {
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
        let (ours, base) = (plan.images("[V] dog"), plan.images("dog"));
        assert_eq!(ours.len(), 72);
        let seeds = |images: &[PlannedImage]| images.iter().map(|image| image.seed).collect::<Vec<_>>();
        assert_eq!(seeds(&ours), seeds(&base));
        let mut distinct = seeds(&ours);
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 72);
        assert!(distinct.iter().all(|&seed| seed <= u64::from(u32::MAX)));
        assert_ne!(seeds(&Plan { seed: 1, ..plan.clone() }.images("dog")), seeds(&base));

        let mut fewer = Plan { images: 2, ..plan };
        fewer.prompts.prompts.remove(0);
        assert_eq!(fewer.images("dog")[3].seed, base[7].seed);
        assert_eq!((base[7].prompt, base[7].file_name().as_str()), (2, "002-01.png"));
    }
}
