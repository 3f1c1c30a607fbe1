//! `xtask setup` against a Python that is only pretended: what it finds, installs, verifies and survives.
#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::{refused, succeeded};

/// A folder with a `bin` of pretended programs, a wheel's content in `wheel`, and room for `.libtorch`.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.torch(&place.path("wheel/torch"), "2.11.0+cu130");
        let library = fs::read(env!("CARGO_BIN_EXE_xtask")).unwrap();
        for name in ["libtorch_cuda.so", "libtorch_python.so"] {
            fs::write(place.path("wheel/torch/lib").join(name), &library).unwrap();
        }
        place.record();
        place.program("c++", "exit 0");
        place.python("", "cp -r $WHEEL/. \"$target\"");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What setup looks at in a LibTorch; the libraries are any that the loader can read.
    fn torch(&self, root: &Path, version: &str) {
        for part in ["include/torch", "include/ATen", "lib"] {
            fs::create_dir_all(root.join(part)).unwrap();
        }
        for name in ["libtorch.so", "libtorch_cpu.so", "libc10.so"] {
            fs::copy(env!("CARGO_BIN_EXE_xtask"), root.join("lib").join(name)).unwrap();
        }
        fs::write(root.join("version.py"), format!("__version__ = '{version}'\n")).unwrap();
    }

    /// Writes the wheel's RECORD, with hashes by coreutils.
    fn record(&self) {
        let script = r#"cd "$1" && mkdir -p torch-2.11.0.dist-info && for file in $(find torch -type f); do
            hash=$(sha256sum $file | cut -c1-64 | tr a-f A-F | basenc -d --base16 | basenc --base64url | tr -d =)
            echo "$file,sha256=$hash,$(stat -c %s $file)"; done > RECORD && echo "torch-2.11.0.dist-info/RECORD,," >> RECORD
            echo "../../bin/torchrun,sha256=x,247" >> RECORD && mv RECORD torch-2.11.0.dist-info/"#;
        assert!(Command::new("sh").args(["-c", script, "sh"]).arg(self.path("wheel")).status().unwrap().success());
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A Python with torch in the folder `torch`, if any, whose `pip install` does `install`.
    fn python(&self, torch: &str, install: &str) {
        let script = format!(
            r#"case "$*" in
            *sys.prefix*) echo /prefix; echo "$0" ;;
            *find_spec*) echo "{torch}" ;;
            "-m pip --version") echo "pip 99" ;;
            "-m pip install"*)
                echo "$*" >> "$PLACE/pip.log"
                for word; do [ "$before" = --target ] && target="$word"; before="$word"; done
                {install} ;;
            *) exit 9 ;;
            esac"#
        );
        self.program("python3", &script);
        self.program("python", &script);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.arg("setup").arg("--dir").arg(self.path(".libtorch")).args(args);
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("PLACE", self.folder.path()).env("WHEEL", self.path("wheel"));
        command.env_remove("LIBTORCH").env_remove("VIRTUAL_ENV").env_remove("CXX");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn pip_runs(&self) -> usize {
        fs::read_to_string(self.path("pip.log")).map_or(0, |log| log.lines().count())
    }

    /// Links to everything, through which the loader finds all, and nothing unfinished.
    fn assert_ready(&self, root: &Path) {
        let dir = self.path(".libtorch");
        assert_eq!(dir.join("include").canonicalize().unwrap(), root.join("include").canonicalize().unwrap());
        for name in ["libtorch.so", "libtorch_cpu.so", "libc10.so"] {
            let target = dir.join("lib").join(name).canonicalize().unwrap();
            assert_eq!(target, root.join("lib").join(name).canonicalize().unwrap());
        }
        assert!(!dir.join("lib/libtorch_cuda.so").exists(), "CUDA is not linked but opened at run time");
        for entry in fs::read_dir(&dir).unwrap() {
            assert!(!entry.as_ref().unwrap().file_name().to_string_lossy().contains("partial"), "{entry:?}");
        }
    }
}

#[test]
fn pip_installs_what_is_not_there_once() {
    let place = Place::new();
    let said = succeeded(&place.run(&[]));
    assert!(said.contains("0.54 GB to download, 0.7 GB on disk"), "{said}");
    assert!(said.contains("2.11.0+cu130 (CPU only)"), "{said}");
    let site = place.path(".libtorch/site/torch");
    place.assert_ready(&site);
    assert!(!site.join("lib/libtorch_cuda.so").exists(), "what only CUDA and Python need is dropped");
    let log = fs::read_to_string(place.path("pip.log")).unwrap();
    for word in ["--no-deps", "torch==2.11.0", "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"] {
        assert!(log.contains(word), "{log}");
    }
    assert!(!log.contains("cublas"), "{log}");
    let said = succeeded(&place.run(&[]));
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(place.pip_runs(), 1);
}

#[test]
fn cuda_is_added_on_request_and_kept() {
    let place = Place::new();
    succeeded(&place.run(&[]));
    assert!(succeeded(&place.run(&["--cuda"])).contains("2.11.0+cu130 (with CUDA)"));
    assert!(fs::read_to_string(place.path("pip.log")).unwrap().lines().last().unwrap().contains("nvidia-cublas=="));
    place.assert_ready(&place.path(".libtorch/site/torch"));
    assert!(place.path(".libtorch/site/torch/lib/libtorch_cuda.so").exists());
    succeeded(&place.run(&["--cuda"]));
    succeeded(&place.run(&[]));
    assert_eq!(place.pip_runs(), 2, "more than was asked for is enough");
}

#[test]
fn a_python_with_torch_is_linked_to() {
    let place = Place::new();
    let torch = place.path("packages/torch");
    place.torch(&torch, "2.11.0+cpu");
    place.python(torch.to_str().unwrap(), "exit 1");
    let said = succeeded(&place.run(&[]));
    assert!(said.contains("has LibTorch 2.11.0+cpu"), "{said}");
    place.assert_ready(&torch);
    // When that Python goes, another way is found.
    fs::remove_dir_all(place.path("packages")).unwrap();
    place.python("", "cp -r $WHEEL/. \"$target\"");
    succeeded(&place.run(&[]));
    place.assert_ready(&place.path(".libtorch/site/torch"));
}

#[test]
fn a_python_with_another_torch_is_passed_over() {
    let place = Place::new();
    let torch = place.path("packages/torch");
    place.torch(&torch, "2.5.1");
    place.python(torch.to_str().unwrap(), "cp -r $WHEEL/. \"$target\"");
    let said = succeeded(&place.run(&[]));
    assert!(said.contains("is version 2.5.1, not 2.11.0"), "{said}");
    place.assert_ready(&place.path(".libtorch/site/torch"));
}

#[test]
fn libtorch_of_the_environment_comes_first_and_must_be_right() {
    let place = Place::new();
    succeeded(&place.run(&[]));
    let mine = place.path("mine");
    place.torch(&mine, "2.11.0+cpu");
    let with = |path: &Path| place.command(&[]).env("LIBTORCH", path).output().unwrap();
    succeeded(&with(&mine));
    place.assert_ready(&mine);
    succeeded(&place.run(&[]));
    place.assert_ready(&mine);
    // A folder of links, such as setup itself makes, is as good as what they lead to.
    fs::create_dir(place.path("links")).unwrap();
    for part in ["include", "lib"] {
        symlink(place.path(".libtorch/site/torch").join(part), place.path("links").join(part)).unwrap();
    }
    succeeded(&with(&place.path("links")));
    place.assert_ready(&place.path(".libtorch/site/torch"));

    place.torch(&mine, "2.6.0");
    let said = refused(&with(&mine));
    assert!(said.contains("LIBTORCH is") && said.contains("version 2.6.0, not 2.11.0"), "{said}");
    let said = refused(&with(Path::new("/nowhere")));
    assert!(said.contains("LIBTORCH is /nowhere"), "{said}");
    assert_eq!(place.pip_runs(), 1);
    place.assert_ready(&place.path(".libtorch/site/torch"));
}

#[test]
fn a_killed_install_leaves_nothing_half_valid() {
    let place = Place::new();
    // pip is in the middle of it, and goes on for a while after setup is dead.
    place.python(
        "",
        "mkdir -p $target/torch/lib; echo half > $target/torch/lib/libtorch_cpu.so; sleep 1; mkdir -p $target/late",
    );
    let mut child = place.command(&[]).stderr(Stdio::null()).spawn().unwrap();
    let unfinished = || {
        fs::read_dir(place.path(".libtorch"))
            .is_ok_and(|entries| entries.flatten().any(|entry| entry.path().join("torch/lib/libtorch_cpu.so").exists()))
    };
    while !unfinished() {
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!place.path(".libtorch/site").exists() && !place.path(".libtorch/lib").exists());
    place.python("", "sleep 2; cp -r $WHEEL/. \"$target\"");
    let said = succeeded(&place.run(&[]));
    assert!(said.contains("of an interrupted setup"), "{said}");
    // The orphan may have written to its own folder since; it never touches the finished one.
    assert!(!place.path(".libtorch/site/late").exists());
    assert!(succeeded(&place.run(&[])).contains("is ready"));
}

#[test]
fn missing_links_are_made_again_without_an_install() {
    let place = Place::new();
    succeeded(&place.run(&[]));
    for broken in ["lib", "include", "lib/libc10.so"] {
        let path = place.path(".libtorch").join(broken);
        assert!(Command::new("rm").arg("-r").arg(path).status().unwrap().success());
        succeeded(&place.run(&[]));
        place.assert_ready(&place.path(".libtorch/site/torch"));
    }
    assert_eq!(place.pip_runs(), 1);
}

#[test]
fn what_pip_got_wrong_is_not_kept() {
    for (damage, complaint) in [
        ("truncate -s 1000 $target/torch/lib/libc10.so", "has 1000 bytes, not"),
        ("printf X | dd of=$target/torch/lib/libc10.so bs=1 seek=5000 conv=notrunc 2>/dev/null", "has another hash"),
        ("rm $target/torch/version.py", "version.py is missing"),
    ] {
        let place = Place::new();
        place.python("", &format!("cp -r $WHEEL/. \"$target\"; {damage}"));
        let said = refused(&place.run(&[]));
        assert!(said.contains("is damaged") && said.contains(complaint), "{said}");
        assert!(!place.path(".libtorch/site").exists());
        place.python("", "cp -r $WHEEL/. \"$target\"");
        succeeded(&place.run(&[]));
    }
}

#[test]
fn whatever_is_lacking_is_named_in_one_sentence() {
    let place = Place::new();
    place.python("", "echo 'ERROR: No matching distribution found for torch==2.11.0' >&2; exit 1");
    let said = refused(&place.run(&[]));
    assert!(said.contains("No matching distribution") && said.contains("set LIBTORCH"), "{said}");

    place.python("", "echo \"WARNING: Retrying after connection broken by 'NewConnectionError'\" >&2; exit 1");
    let said = refused(&place.run(&[]));
    assert!(said.contains("could not reach the package index: check the network"), "{said}");

    place.program("df", "echo Filesystem; echo '/dev/x 100 90 10240 90% /'");
    let said = refused(&place.run(&[]));
    assert!(said.contains("needs 2.0 GB free") && said.contains("has 0.0 GB"), "{said}");

    place.program("python3", "case \"$*\" in *sys.prefix*) echo /p; echo \"$0\" ;; *find_spec*) ;; *) exit 1 ;; esac");
    place.program("python", "exit 127");
    let said = refused(&place.run(&[]));
    assert!(said.contains("has no pip") && said.contains("python3-pip"), "{said}");

    place.program("python3", "exit 127");
    let said = refused(&place.run(&[]));
    assert!(said.contains("no Python was found") && said.contains("set LIBTORCH"), "{said}");

    place.program("c++", "exit 1");
    let said = refused(&place.run(&[]));
    assert!(said.contains("no C++ compiler answers as `c++`") && said.contains("apt install g++"), "{said}");
    let said = refused(&place.command(&[]).env("CXX", "no-such-compiler").output().unwrap());
    assert!(said.contains("`no-such-compiler`"), "{said}");
    assert_eq!(place.pip_runs(), 2);
}

#[test]
fn two_setups_at_once_install_once() {
    let place = Place::new();
    place.python("", "sleep 1; cp -r $WHEEL/. \"$target\"");
    let first = place.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let second = place.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    for mut child in [first, second] {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(place.pip_runs(), 1);
    place.assert_ready(&place.path(".libtorch/site/torch"));
}

#[test]
fn a_signal_reaches_what_was_started() {
    let place = Place::new();
    place.python(
        "",
        "echo $$ > $PLACE/pid; trap 'echo ended > $PLACE/ended; exit 7' TERM; while :; do sleep 0.05; done",
    );
    let mut setup = place.command(&[]).stderr(Stdio::null()).spawn().unwrap();
    while !place.path("pid").exists() {
        assert!(setup.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    Command::new("kill").args(["-TERM", &setup.id().to_string()]).status().unwrap();
    assert!(!setup.wait().unwrap().success());
    assert!(place.path("ended").exists());
    let pid = fs::read_to_string(place.path("pid")).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "pip was left behind");
}
