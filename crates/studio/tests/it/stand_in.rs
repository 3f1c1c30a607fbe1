//! A studio in this process, whose jobs are a script that behaves as the program does: runs have steps, SIGTERM makes a checkpoint.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use runs::{RunFolder, RunRecord, TrainConfig};

use crate::client::Client;

/// A run of ten steps, a tenth of a second each; it resumes where it has been stopped, and holds its folder's lock meanwhile.
const PROGRAM: &str = r#"#!/bin/bash
root="$(dirname "$0")"
echo "$@" >> "$root/calls"
for word in "$@"; do case "$word" in
  --out=*) out="${word#--out=}" ;;
  --run=*) run="${word#--run=}" ;;
esac; done
case "$2" in
train)
  [ "$3" = --out ] && out="$4"
  case "$*" in
  *--dry-run*) echo '{"event":"result","result":{"command":"plan","phases":[],"seconds":75,"peak_memory":1500000000,"disk":2}}'; exit 0 ;;
  esac
  if [ ! -e "$out/config.json" ]; then mkdir -p "$out"; cp "$root/config.json" "$out/"; fi
  echo $$ > "$out/.lock"
  trap 'rm "$out/.lock"; echo "{\"event\":\"interrupted\",\"text\":\"interrupted; resume it\",\"exit_code\":75}"; exit 75' TERM
  step=$(cat "$out/log.jsonl" 2>/dev/null | wc -l)
  echo '{"event":"phase","phase":"unet","number":1,"phases":1,"done":0,"steps":10}'
  while [ $step -lt 10 ]; do
    if [ -e "$root/full" ]; then rm "$out/.lock"; echo '{"event":"error","text":"error: the disk is full","exit_code":2}'; exit 2; fi
    step=$((step + 1))
    echo "{\"step\":$step,\"phase\":\"unet\",\"wall_time\":$step.0,\"loss\":0.$step}" >> "$out/log.jsonl"
    echo "{\"event\":\"step\",\"phase\":\"unet\",\"step\":$step,\"losses\":[],\"peak_memory\":null}"
    sleep 0.1
  done
  touch "$out/curves.png"
  rm "$out/.lock"
  echo '{"event":"result","result":{"command":"train"}}' ;;
generator)
  echo $$ > "$root/generator"
  while read -r line; do
    echo "$line" >> "$root/calls"
    run="$(echo "$line" | grep -o '"--run=[^"]*' | cut -d= -f2)"
    echo "$(cat "$run/log.jsonl" 2>/dev/null | wc -l) steps, $(cat "$run/.lock" 2>/dev/null | wc -l) processes" >> "$root/generated"
    case "$line" in
    *crash*) echo "no more memory" >&2; kill -9 $$ ;;
    *slow*) sleep 5 ;;
    *wrong*) echo '{"event":"error","text":"error: a wrong prompt","exit_code":2}'; continue ;;
    esac
    sleep 0.1
    echo '{"event":"result","result":{"command":"generate"}}'
  done ;;
*) echo "no such command" >&2; exit 1 ;;
esac
"#;

/// A folder with the stand-in, a model and runs.
pub(crate) struct Place {
    pub(crate) root: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let place = Self { root };
        fs::write(place.program(), PROGRAM).unwrap();
        fs::set_permissions(place.program(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(place.path("some-model")).unwrap();
        // A run's record, as the program writes it.
        let mut config = TrainConfig { category: "dog".into(), ..TrainConfig::paper() };
        config.phases.retain(|name, _| name == "unet");
        config.phases["unet"].steps = 10;
        let record = RunRecord { config, ..RunRecord::default() };
        RunFolder::create(&place.path("template")).unwrap().write_record(&record, "2.11.0", "Cpu").unwrap();
        fs::copy(place.path("template/config.json"), place.path("config.json")).unwrap();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn program(&self) -> PathBuf {
        self.path("program")
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Steps of a run.
    pub(crate) fn steps(&self, run: &str) -> usize {
        self.read(&format!("runs/{run}/log.jsonl")).lines().count()
    }

    pub(crate) fn open(&self) -> Studio {
        self.open_with_devices(1)
    }

    pub(crate) fn open_with_devices(&self, count: usize) -> Studio {
        let mut request = requests::Studio::new(self.path("runs"));
        request.port = 0;
        request.devices = vec![request.devices[0]; count];
        request.models = vec![self.path("some-model")];
        let server = studio::Server::open(&request, &self.program(), &[]).unwrap();
        let client = Client::new(server.url());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || server.run(&|| stopped.load(Ordering::Relaxed)).unwrap());
        Studio { client, stop, thread: Some(thread) }
    }
}

/// A studio that ends when it is dropped.
pub(crate) struct Studio {
    pub(crate) client: Client,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Studio {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A photo as a file.
pub(crate) fn photo(path: &Path, shade: u8) -> Vec<u8> {
    let photo = image::RgbImage::from_fn(60, 40, |x, y| [x as u8 * 4, y as u8 * 6, shade].into());
    photo.save(path).unwrap();
    fs::read(path).unwrap()
}
