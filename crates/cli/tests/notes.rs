//! What is taken otherwise than a user of other programs would think is said.
#![allow(clippy::unwrap_used)]

mod common;

use common::{model, photos, stderr, succeed, train};

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
