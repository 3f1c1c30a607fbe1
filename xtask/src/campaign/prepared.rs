//! The folder that every case starts from, and what uninterrupted commands make of it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::child::{self, Running};
use crate::workspace;

/// A command of the program, with all that it needs in the case's folder, and `out` for what it makes.
pub(super) struct Work {
    pub(super) name: &'static str,
    arguments: &'static str,
    /// Whether a second call needs `--resume` where the first has begun.
    pub(super) resumes: bool,
}

const STEPS: &str = "--device cpu --category cat --batch-size 2 --resolution 64 --set phases.embedding.steps=3 --set \
                     phases.cross_attention.steps=3 --set phases.unet.steps=3 --set validation.steps=1 --checkpoint-every 1 \
                     --validate-every 2 --results none --model model --concept photos";

/// One method, one subject.
const PLAN: &str = r#"
name = "one"
model = "model"
judge = "clip"
prompts = "prompts.txt"
images = 1
steps = 1
reference = "TI"
subjects = [{ name = "cat", photos = "photos", category = "cat" }]
methods = [{ name = "TI", method = "textual-inversion", steps = 3, batch_size = 1, resolution = 64 }]
"#;

/// Those that take longest first.
pub(super) const WORKS: [Work; 12] = [
    Work { name: "train", arguments: "train --out out", resumes: true },
    Work {
        name: "generate",
        arguments: "generate --device cpu --model model --prompt cat --prompt dog --images 3 --batch-size 2 --steps 8 \
                    --height 64 --width 64 --out out",
        resumes: false,
    },
    Work {
        name: "evaluate",
        arguments: "evaluate --device cpu --run run --clip clip --prompts prompts.txt --images 3 --batch-size 1 --steps 3 \
                    --height 64 --width 64 --base --out out",
        resumes: false,
    },
    Work {
        name: "ablate",
        arguments: "ablate --subject photos=cat --variants full,without-stage1 --seeds 0 --steps 1 --prompts prompts.txt \
                    --clip clip --device cpu --out out -- --model model --batch-size 1 --resolution 64 --set \
                    phases.embedding.steps=1 --set phases.cross_attention.steps=1 --set phases.unet.steps=1",
        resumes: false,
    },
    Work { name: "table", arguments: "table run plan.toml --device cpu --keep everything --out out", resumes: false },
    Work {
        name: "attend",
        arguments: "attend --device cpu --run run --prompt [V] --steps 2 --out out",
        resumes: false,
    },
    Work {
        name: "inspect",
        arguments: "inspect --device cpu --run run --images 1 --steps 2 --out out",
        resumes: false,
    },
    Work { name: "export", arguments: "export --run run --out out", resumes: false },
    Work { name: "report", arguments: "report --run run --out out", resumes: false },
    Work { name: "compare", arguments: "compare run other --out out", resumes: false },
    Work {
        name: "probe",
        arguments: "probe --device cpu --model model --component vae-decoder --inputs latents.safetensors --outputs out",
        resumes: false,
    },
    Work {
        name: "bench",
        arguments: "bench text-encoder --device cpu --model model --batch-size 1 --iterations 3",
        resumes: false,
    },
];

/// The folder of a campaign: `template`, which is copied to `case` for each case so that paths are always the same, and
/// `results` of each command.
pub(super) struct Prepared {
    program: PathBuf,
    folder: PathBuf,
    /// Held as long as the campaign runs.
    _lock: File,
    /// How long each of [`WORKS`] takes.
    times: Vec<Duration>,
}

impl Prepared {
    pub(super) fn new(program: &Path) -> anyhow::Result<Self> {
        let folder = workspace::root().join("target/campaign");
        fs::create_dir_all(&folder)?;
        let lock = File::create(folder.join("lock"))?;
        ensure!(lock.try_lock().is_ok(), "another campaign is under way in {}", folder.display());
        let mut prepared = Self { program: program.to_owned(), folder, _lock: lock, times: Vec::new() };
        terminal::say!("preparing a run and the results of every command...");
        prepared.prepare().context("the campaign's folder cannot be prepared")?;
        Ok(prepared)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the case is done.
    pub(super) fn place(&self) -> PathBuf {
        self.folder.join("case")
    }

    pub(super) fn template(&self) -> PathBuf {
        self.folder.join("template")
    }

    /// Where the folders of cases go that went wrong.
    pub(super) fn failures(&self) -> PathBuf {
        self.folder.join("failures")
    }

    /// What `work` makes when nothing disturbs it.
    pub(super) fn result(&self, work: &Work) -> PathBuf {
        self.folder.join("results").join(work.name)
    }

    /// How long it takes.
    pub(super) fn time(&self, work: &Work) -> Duration {
        let place = WORKS.iter().position(|other| other.name == work.name);
        place.and_then(|place| self.times.get(place)).copied().unwrap_or(Duration::from_secs(1))
    }

    /// The program with `arguments`, which are separated by white space, in the case's folder.
    pub(super) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.program);
        self.set(&mut command, arguments);
        command
    }

    /// `wrapper` with its own arguments, which runs the program with `arguments`.
    pub(super) fn wrapped(&self, wrapper: &str, its: &[String], arguments: &str) -> Command {
        let mut command = Command::new(wrapper);
        command.args(its).arg(&self.program);
        self.set(&mut command, arguments);
        command
    }

    fn set(&self, command: &mut Command, arguments: &str) {
        // One thread, so that results repeat to the last bit.
        command.args(arguments.split_whitespace()).current_dir(self.place()).env("OMP_NUM_THREADS", "1");
    }

    /// The arguments of `work`, the second time with what makes it resume.
    pub(super) fn arguments(&self, work: &Work, again: bool) -> String {
        let resume = again && work.resumes && self.place().join("out/config.json").exists();
        let steps = if work.name == "train" { STEPS } else { "" };
        format!("{} {steps}{}", work.arguments, if resume { " --resume" } else { "" })
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        let (place, template) = (self.place(), self.template());
        for old in [&place, &template, &self.folder.join("results")] {
            remove(old)?;
        }
        let fixtures = workspace::root().join("fixtures");
        fs::create_dir_all(place.join("photos"))?;
        copy(&fixtures.join("tiny-sd21"), &place.join("model"))?;
        copy(&fixtures.join("tiny-clip"), &place.join("clip"))?;
        for name in ["evaluation/photos/front.png", "photos/exif/6.jpg", "photos/exif/3.webp", "photos/exif/8.tiff"] {
            let from = fixtures.join(name);
            fs::copy(&from, place.join("photos").join(from.file_name().unwrap_or_default()))
                .with_context(|| from.display().to_string())?;
        }
        fs::write(place.join("prompts.txt"), "a {} on the beach\na red {}\n")?;
        fs::write(
            place.join("prompts.json"),
            r#"{"name": "two", "prompts": [{"text": "a {}", "kind": "photo"}, {"text": "a red {}"}]}"#,
        )?;
        fs::write(place.join("plan.toml"), PLAN)?;
        fs::write(place.join("latents.safetensors"), zeros("latents", [1, 4, 8, 8])?)?;
        fs::write(place.join("config.json"), r#"{"unet": {"steps": 0}, "seed": 5, "ema": {"decay": 0.9}}"#)?;
        self.succeed(&format!("train --out run {STEPS}"))?;
        self.succeed("evaluate --device cpu --run run --clip clip --prompts prompts.txt --images 1 --steps 1 --height 64 --width 64")?;
        copy(&place.join("run"), &place.join("other"))?;
        self.killed()?;
        fs::rename(&place, &template)?;
        for work in &WORKS {
            copy(&template, &place)?;
            let arguments = self.arguments(work, false);
            self.times.push(self.succeed(&arguments)?);
            if place.join("out").exists() {
                let result = self.result(work);
                fs::create_dir_all(self.folder.join("results"))?;
                fs::rename(place.join("out"), result)?;
            }
            remove(&place)?;
        }
        Ok(())
    }

    /// A run that was killed after its first checkpoint.
    fn killed(&self) -> anyhow::Result<()> {
        let place = self.place();
        let mut command = self.command(&format!("train --out killed {STEPS} --set phases.unet.steps=10000"));
        let mut running = Running::start(&mut command, &self.folder.join("said"))?;
        while running.wait(Duration::from_millis(5))? {
            if place.join("killed/checkpoints/unet-00002").exists() {
                running.signal("KILL");
            }
        }
        let ended = running.end()?;
        ensure!(ended.ending == child::Ending::Signal(9), "a run could not be killed half-way: {}", ended.said);
        Ok(())
    }

    fn succeed(&self, arguments: &str) -> anyhow::Result<Duration> {
        let ended = child::run(&mut self.command(arguments), &self.folder.join("said"))?;
        if ended.ending != child::Ending::Code(0) {
            bail!("`{arguments}` ended with {:?}: {}", ended.ending, ended.said);
        }
        Ok(ended.time)
    }
}

/// A safetensors file of one tensor of zeros.
fn zeros(name: &str, shape: [usize; 4]) -> anyhow::Result<Vec<u8>> {
    let data = vec![0_u8; 4 * shape.iter().product::<usize>()];
    let header = serde_json::json!({ name: { "dtype": "F32", "shape": shape, "data_offsets": [0, data.len()] } });
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = Vec::new();
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    file.write_all(&data)?;
    Ok(file)
}

/// Removes a file or folder, if it is there.
pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    let gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match gone {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Copies a folder with all that is in it.
pub(super) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_understands_every_command() {
        for work in WORKS {
            let steps = if work.name == "train" { STEPS } else { "" };
            let words = format!("attndreambooth {} {steps}", work.arguments);
            requests::parse(words.split_whitespace()).unwrap_or_else(|error| panic!("{}: {error}", work.name));
        }
    }
}
