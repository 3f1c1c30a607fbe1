//! One piece of work in a process of its own: ours or Python's, which print the same line.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::options::Bench;
use crate::{children, program, workspace};

/// What a process has measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Measured {
    /// Of each timed run.
    pub(super) seconds: Vec<f64>,
    /// A number that both sides must find.
    pub(super) check: f64,
    /// Peak memory.
    pub(super) peak_memory_bytes: u64,
    /// From the start of the process to the end of the first training step.
    pub(super) first_step_seconds: Option<f64>,
    /// Of the first run, where the model is compiled in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) compile_seconds: Option<f64>,
}

impl Measured {
    /// The fastest run: what disturbs a run only makes it slower.
    pub(super) fn best(&self) -> f64 {
        self.seconds.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// The program and the script, each with what all their calls have in common.
pub(super) struct Workers<'a> {
    bench: &'a Bench,
    threads: usize,
    model: String,
}

/// Random weights; see the crate `benchmarks`.
const PROCEDURAL: &str = "models/procedural";

impl<'a> Workers<'a> {
    /// Builds the program, and writes the model where it is missing.
    pub(super) fn new(bench: &'a Bench) -> anyhow::Result<Self> {
        program::build()?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers = Self { bench, threads: bench.threads.unwrap_or(cores), model: "fixtures/miniature".to_owned() };
        if !bench.full {
            return Ok(workers);
        }
        workers.make("sd21-base")?;
        Ok(Self { model: format!("{PROCEDURAL}/sd21-base"), ..workers })
    }

    /// Writes something to measure with, once; returns where it is.
    pub(super) fn make(&self, what: &str) -> anyhow::Result<String> {
        let path = format!("{PROCEDURAL}/{what}");
        if !workspace::root().join(&path).exists() {
            terminal::say!("writing {path}");
            workspace::run(self.ours().args(["--make", what, "--out", &path]))?;
        }
        Ok(path)
    }

    /// A folder with so many photos of 512 pixels, up to 768.
    pub(super) fn photos(&self, count: u64) -> anyhow::Result<String> {
        let all = workspace::root().join(self.make("images")?);
        let path = format!("{PROCEDURAL}/photos-{count}");
        let folder = workspace::root().join(&path);
        fs::create_dir_all(&folder)?;
        for number in 0..count {
            let name = format!("{number:05}.png");
            if !folder.join(&name).exists() {
                fs::hard_link(all.join(&name), folder.join(&name))?;
            }
        }
        Ok(path)
    }

    /// Plots the points in the JSON file `numbers` to the PNG file `out`.
    pub(super) fn plot(&self, numbers: &Path, out: &Path) -> anyhow::Result<()> {
        let absolute = |path: &Path| std::path::absolute(path);
        workspace::run(self.ours().arg("--plot").arg(absolute(numbers)?).arg("--out").arg(absolute(out)?))
    }

    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    pub(super) fn setting(&self) -> Setting {
        Setting {
            machine: Machine::this(),
            threads: self.threads,
            device: self.bench.device.clone(),
            dtype: self.bench.dtype.clone(),
            model: self.model.clone(),
        }
    }

    fn ours(&self) -> Command {
        let mut command = Command::new(program::path());
        command.arg("bench").current_dir(workspace::root());
        command
    }

    /// Our side of some work.
    pub(super) fn measure(&self, args: &[String]) -> anyhow::Result<Measured> {
        self.call(self.ours(), args)
    }

    /// Python's side.
    pub(super) fn measure_python(&self, args: &[String]) -> anyhow::Result<Measured> {
        let mut command = Command::new(&self.bench.python);
        command.arg("crates/benchmarks/python/work.py").current_dir(workspace::root());
        self.call(command, args)
    }

    fn call(&self, mut command: Command, args: &[String]) -> anyhow::Result<Measured> {
        let threads = self.threads.to_string();
        command
            .args(args)
            .env("OMP_NUM_THREADS", &threads)
            .env("RAYON_NUM_THREADS", &threads)
            .args(["--threads", &threads]);
        command.args(["--device", &self.bench.device, "--dtype", &self.bench.dtype]);
        if !args.iter().any(|arg| arg == "--model") {
            command.args(["--model", &self.model]);
        }
        let line = workspace::command_line(&command);
        let output = children::output(command.stderr(Stdio::piped()))
            .with_context(|| format!("`{line}` could not be started"))?;
        let says = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{line}` failed: {}", says.lines().last().unwrap_or("it does not say why"));
        let out = String::from_utf8_lossy(&output.stdout);
        let last = out.lines().last().unwrap_or_default();
        serde_json::from_str(last).with_context(|| format!("`{line}` printed {last:?} instead of its numbers"))
    }

    /// Whether Python has what it needs.
    pub(super) fn check_python(&self) -> anyhow::Result<()> {
        let python = &self.bench.python;
        let requirements = "crates/benchmarks/python/requirements.txt";
        let imports = "import torch, diffusers, transformers";
        let found = Command::new(python).args(["-c", imports]).stderr(Stdio::null()).status();
        ensure!(
            found.is_ok_and(|status| status.success()),
            "{} lacks torch, diffusers or transformers: make an environment, `pip install -r {requirements}` \
             in it, and give its Python with --python",
            python.display()
        );
        Ok(())
    }
}

/// What the numbers depend on.
#[derive(Serialize)]
pub(super) struct Setting {
    machine: Machine,
    threads: usize,
    device: String,
    dtype: String,
    model: String,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine: Machine { processor, cores, commit, date }, threads, device, dtype, model } = self;
        write!(f, "{model} on {processor} ({cores} cores), {threads} threads, {device} {dtype}, {date}, {commit}")
    }
}

#[derive(Serialize)]
struct Machine {
    processor: String,
    cores: usize,
    commit: String,
    date: String,
}

impl Machine {
    fn this() -> Self {
        let said = |program: &str, args: &[&str]| {
            let output = Command::new(program).args(args).current_dir(workspace::root()).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let info = fs::read_to_string(Path::new("/proc/cpuinfo")).unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            processor: model.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            commit: said("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_default(),
            date: said("date", &["+%Y-%m-%d"]).unwrap_or_default(),
        }
    }
}
