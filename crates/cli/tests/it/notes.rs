//! What is taken otherwise than a user of other programs would think is said.

use crate::common::{model, photos, stderr, succeed, train};

/// The lines of standard error that are notes.
fn notes(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("note: ")).collect()
}

#[test]
fn prompts_that_mean_something_else_elsewhere_are_noted() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").display().to_string();
    let long = "cat ".repeat(90);
    let model = model();
    let generate = |prompt: &str, negative: &str| {
        let size = ["--device", "cpu", "--steps", "1", "--height", "64", "--width", "64", "--out", &out];
        let texts = ["--prompt", prompt, "--negative-prompt", negative, "--model", &model];
        stderr(&succeed(&[&["generate"], &size[..], &texts[..]].concat()))
    };
    assert_eq!(notes(&generate("a cat [sic] (small)", "blurry")), [""; 0]);
    let text = generate("a (cat:1.2) <lora:x:1>", &long);
    let found = notes(&text);
    assert_eq!(found.len(), 3, "{text}");
    assert!(
        found[0].contains("<lora:x:1>") && found[1].contains("(cat:1.2)") && found[2].contains("too long"),
        "{text}"
    );
}

#[test]
fn prompts_of_a_configuration_are_noted_before_training() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let none = [
        "phases.embedding.steps=0",
        "phases.cross_attention.steps=0",
        "phases.unet.steps=0",
        r#"validation.prompts=["a (<new>:1.5)"]"#,
    ];
    let sets: Vec<&str> = none.iter().flat_map(|set| ["--set", set]).collect();
    let output = train(folder.path(), "run", &sets).output().unwrap();
    assert!(output.status.success() && stderr(&output).contains("weights of words"), "{}", stderr(&output));
}

/// A folder as kohya's and OneTrainer's users have it.
#[test]
fn a_dry_run_says_what_lies_beside_photos_and_what_is_used_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("photos/10_cat");
    photos(&inner);
    for n in 0..3 {
        std::fs::write(inner.join(format!("{n}.txt")), "outdoors, sitting, solo").unwrap();
    }
    std::fs::copy(inner.join("0.png"), inner.join("0-masklabel.png")).unwrap();
    let said = |more: &[&str]| {
        let output = train(folder.path(), "run", &[&["--dry-run"], more].concat()).output().unwrap();
        assert!(output.status.success() && !folder.path().join("run").exists(), "{}", stderr(&output));
        stderr(&output)
    };
    let text = said(&[]);
    let found = notes(&text);
    // And one on the category's tokens.
    assert_eq!(found.len(), 4, "{text}");
    for (note, words) in found.iter().zip([
        "of the name 10_cat, as kohya's scripts have them, neither the repeats nor the words are used",
        "notes.txt is not a JPEG",
        "captions (0.txt, 1.txt, 2.txt) and masks (0-masklabel.png) are not used",
    ]) {
        assert!(note.starts_with(words), "{text}");
    }
    let template = ["--caption_template", "a photo of a [V] [category], [caption]"];
    let text = said(&[&["--masked_loss", "--unmasked-weight", "0.2", "--enable_bucket"], &template[..]].concat());
    for words in [
        "photos without a mask count as a whole: 1.png, 2.png",
        "the first as \"a photo of a [V] cat, outdoors, sitting, solo\"",
        "under masks (1 by files, 0 by alpha channels), and outside with a weight of 0.2",
        "crops are 72x56 (3 photos)",
    ] {
        assert!(text.contains(words), "{text}");
    }
    assert!(!text.contains("are not used:"), "{text}");
}
