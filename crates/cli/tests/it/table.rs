//! `table`: cells are computed once, each for itself, and collected.

use std::fs;
use std::path::Path;

use golden::fixtures;

use crate::common::{photos, refuses, succeed, text};

/// Two methods of a step each, one subject, two prompts.
pub(crate) fn plan(folder: &Path, steps: usize) -> String {
    photos(&folder.join("photos"));
    fs::write(folder.join("prompts.txt"), "a {} on the beach\na {} in space\n").unwrap();
    let [model, judge] = ["tiny-sd21", "tiny-clip"].map(|name| text(&fixtures().join(name)));
    let plan = format!(
        r#"
name = "two"
model = "{model}"
judge = "{judge}"
prompts = "prompts.txt"
images = 1
steps = {steps}
reference = "ours"
subjects = [{{ name = "tom", photos = "photos", category = "cat" }}]

[[methods]]
name = "ours"
batch_size = 2
resolution = 64
set = ["phases.embedding.steps=1", "phases.cross_attention.steps=1", "phases.unet.steps=1"]

[[methods]]
name = "TI"
method = "textual-inversion"
steps = 1
batch_size = 2
resolution = 64
"#
    );
    fs::write(folder.join("plan.toml"), plan).unwrap();
    text(&folder.join("plan.toml"))
}

/// `table ACTION PLAN --out FOLDER/out` and more.
fn table(action: &str, plan: &str, folder: &Path, more: &[&str]) -> Vec<String> {
    let out = text(&folder.join("out"));
    ["table", action, plan, "--out", &out].iter().chain(more).map(|&word| word.to_owned()).collect()
}

fn words(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}

fn succeeds(line: &[String]) -> String {
    String::from_utf8(succeed(&words(line)).stdout).unwrap()
}

#[test]
fn cells_are_computed_once_each_for_itself_and_collected() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path();
    let plan_file = plan(folder, 2);
    let run = |more: &[&str]| succeeds(&table("run", &plan_file, folder, &[&["--device", "cpu"], more].concat()));
    let cell = |method: &str| folder.join("out/cells/tom").join(method).join("seed-0");
    let collect = |more: &[&str]| table("collect", &plan_file, folder, more);

    run(&["--index", "3", "--keep", "everything"]);
    let of_inversion = cell("TI");
    assert!(of_inversion.join("run/learned_embeds.safetensors").exists() && !cell("ours").exists());
    refuses(&words(&collect(&[])), "1 of 4 cells are done");
    let record = fs::read(of_inversion.join("cell.json")).unwrap();

    // The others; nothing of a cell but its scores and figures stays, unless asked for.
    run(&["--shard", "0/2"]);
    run(&["--shard", "1/2"]);
    assert_eq!(fs::read(of_inversion.join("cell.json")).unwrap(), record);
    for name in ["TI", "ours"] {
        assert!(!cell(name).join("run").exists() && !cell(name).join("images").exists(), "{name}");
        for figure in ["figures/000.png", "figures/001.png", "figures/attention/grid.png", "figures/embedding/grid.png"]
        {
            assert!(cell(name).join(figure).exists(), "{name}: {figure}");
        }
    }
    let planned = succeeds(&table("plan", &plan_file, folder, &["--device", "cpu"]));
    assert!(planned.contains("0 of 4 cells are left"), "{planned}");

    let csv = succeeds(&collect(&["--format", "csv"]));
    let rows: Vec<&str> = csv.lines().filter(|line| line.contains(",all,")).collect();
    let names: Vec<&str> = rows.iter().filter_map(|row| row.split(',').next()).collect();
    assert_eq!(names, ["real pictures", "base model", "ours", "TI"]);
    assert!(fs::read_to_string(folder.join("out/table.html")).unwrap().starts_with("<!doctype html>"));
    let json: serde_json::Value = serde_json::from_str(&succeeds(&collect(&["--format", "json"]))).unwrap();
    let cost = &json["rows"][3]["cost"];
    // The embedding of one token, and no more.
    assert_eq!((cost["trained_parameters"].as_u64(), cost["steps"].as_u64()), (Some(32), Some(1)));
    assert!(json["rows"][2]["cost"]["trained_parameters"].as_u64() > Some(10_000));
    assert!(json["rows"][3]["against"]["identity"]["p_value"].is_f64());
    for format in ["text", "md", "latex"] {
        assert!(succeeds(&collect(&["--format", format])).contains("real pictures"), "{format}");
    }

    // Another plan does not take these cells for its own.
    plan(folder, 3);
    let other = "sampler.steps was 2, is 3";
    refuses(&words(&table("run", &plan_file, folder, &["--device", "cpu"])), other);
    refuses(&words(&collect(&[])), other);
}

#[test]
fn what_cannot_be_done_is_refused_in_a_sentence() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path();
    let file = plan(folder, 2);
    let refused = |action: &str, more: &[&str], said: &str| refuses(&words(&table(action, &file, folder, more)), said);
    refused("run", &["--device", "cpu", "--index", "9"], "no cell 9 (--index): the cells are numbered from 0 to 3");
    refused("run", &["--shard", "2/2"], "2/2 is not one of 2 parts");
    refused("collect", &[], "`table run` computes the cells first");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("method = \"textual-inversion\"", "method = \"inversion\"")).unwrap();
    refused("run", &["--device", "cpu", "--index", "3"], "inversion");
    fs::write(&file, text.replace("photos = \"photos\"", "photos = \"nowhere\"")).unwrap();
    refused("run", &["--device", "cpu", "--index", "0"], "the subject tom");
    fs::write(&file, text.replace("tiny-clip", "no-clip")).unwrap();
    refused("run", &["--device", "cpu"], "the plan's judge");
}
