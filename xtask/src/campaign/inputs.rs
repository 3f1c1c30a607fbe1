//! Damaged files of every kind that the program reads.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::case::{Case, half_written};
use super::child::Ending;
use super::mutate::damage;
use super::tally::Verdict;

/// Files, and a command that reads them.
struct Target {
    /// A file or a folder, of which one file is damaged.
    path: &'static str,
    arguments: &'static str,
}

const GENERATE: &str = "generate --device cpu --model model --prompt cat --steps 1 --out out";
const RESUME: &str = "train --device cpu --resume --out killed --set phases.unet.steps=10000 --checkpoint-every 1 --category cat \
                      --batch-size 2 --resolution 64 --set phases.embedding.steps=3 --set phases.cross_attention.steps=3";
const TRAIN: &str = "train --device cpu --model model --concept photos --category cat --batch-size 1 --resolution 64 --set \
                     phases.embedding.steps=1 --set phases.cross_attention.steps=0 --set phases.unet.steps=0 --results none --out out";
const EVALUATE: &str = "evaluate --device cpu --run run --clip clip --prompts prompts.txt --images 1 --steps 1 --height 64 \
                        --width 64";

const TARGETS: [Target; 24] = [
    Target { path: "model/unet", arguments: GENERATE },
    Target { path: "model/vae", arguments: GENERATE },
    Target { path: "model/text_encoder", arguments: GENERATE },
    Target { path: "model/scheduler", arguments: GENERATE },
    Target { path: "model/tokenizer", arguments: GENERATE },
    Target { path: "model/model_index.json", arguments: "export --run run --out out" },
    Target { path: "model/tokenizer", arguments: "export --run run --out out" },
    Target {
        path: "model/vae",
        arguments: "probe --device cpu --model model --component vae-decoder --inputs latents.safetensors --outputs out",
    },
    Target { path: "clip", arguments: EVALUATE },
    Target { path: "run/evaluation", arguments: EVALUATE },
    Target { path: "prompts.txt", arguments: EVALUATE },
    Target {
        path: "prompts.json",
        arguments: "evaluate --device cpu --run run --clip clip --prompts prompts.json --images 1 --steps 1 --height 64 --width 64",
    },
    Target { path: "photos", arguments: TRAIN },
    Target { path: "photos", arguments: TRAIN },
    Target {
        path: "config.json",
        arguments: "train --device cpu --config config.json --model model --concept photos --category cat --resolution 64 --batch-size 1 --set phases.embedding.steps=1 --set phases.cross_attention.steps=0 --set phases.unet.steps=0 --results none --out out",
    },
    Target { path: "killed/log.jsonl", arguments: RESUME },
    Target { path: "killed/config.json", arguments: RESUME },
    Target { path: "killed/checkpoints", arguments: RESUME },
    Target { path: "run/config.json", arguments: "inspect --device cpu --run run --images 0 --out out" },
    Target { path: "run/learned_embeds.safetensors", arguments: "inspect --device cpu --run run --images 0 --out out" },
    Target { path: "run/unet", arguments: "attend --device cpu --run run --prompt [V] --steps 1 --out out" },
    Target { path: "run", arguments: "report --run run --out out" },
    Target { path: "other", arguments: "compare run other --out out" },
    Target {
        path: "latents.safetensors",
        arguments: "generate --device cpu --model model --prompt cat --steps 1 --height 64 --width 64 --latents latents.safetensors --out out",
    },
];

pub(super) fn run(case: &Case<'_>) -> anyhow::Result<Verdict> {
    let target = case.chance(|chance| &TARGETS[chance.below(TARGETS.len())]);
    let root = case.folder();
    let mut files = Vec::new();
    list(&root.join(target.path), &mut files)?;
    files.sort();
    let path = case.chance(|chance| chance.pick(&files).clone());
    let name = path.strip_prefix(&root)?.display().to_string();
    let bytes = fs::read(&path)?;
    let damaged = case.chance(|chance| damage(&name, &bytes, chance));
    fs::write(&path, damaged)?;
    case.note(format!("damaged {name}"));

    // A run that resumes is stopped when it has shown that it can.
    let mut running = case.start(case.prepared.command(target.arguments))?;
    let goes_on = target.arguments == RESUME;
    let stopped = goes_on && {
        let before = fs::metadata(root.join("killed/log.jsonl")).map(|log| log.len()).unwrap_or(0);
        let grown = || fs::metadata(root.join("killed/log.jsonl")).is_ok_and(|log| log.len() > before + 200);
        while running.wait(std::time::Duration::from_millis(20))? && !grown() {}
        let there = running.wait(std::time::Duration::ZERO)?;
        running.signal("KILL");
        there
    };
    let ended = running.end()?;
    let command = target.arguments.split(' ').next().unwrap_or_default();
    let what = format!("{} < {}", command, kind_of(&name));
    if stopped && ended.ending == Ending::Signal(9) {
        return Ok(Verdict { what, outcome: "went on".to_owned(), wrong: None });
    }
    let outcome = match ended.ending {
        Ending::Code(code) => format!("exit {code}"),
        other => format!("{other:?}"),
    };
    let wrong = ended.wrong().or(half_written(&root)?).map(|wrong| format!("damaged {name}: {wrong}"));
    Ok(Verdict { what, outcome, wrong })
}

/// The file's name, where images and checkpoints are all alike.
fn kind_of(name: &str) -> String {
    let path = Path::new(name);
    let alike = |part: &str| part.ends_with(".png") || part.contains("-0");
    let parts = path.iter().map(|part| part.to_string_lossy());
    parts.map(|part| if alike(&part) { "*".into() } else { part }).collect::<Vec<_>>().join("/")
}

fn list(path: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if path.is_file() {
        found.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        list(&entry?.path(), found)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_checkpoints_are_counted_together() {
        for (name, kind) in [
            ("model/unet/config.json", "model/unet/config.json"),
            ("run/evaluation/prompts/subject/000-00.png", "run/evaluation/prompts/subject/*"),
            ("killed/checkpoints/unet-00002/state.json", "killed/checkpoints/*/state.json"),
        ] {
            assert_eq!(kind_of(name), kind);
        }
    }
}
