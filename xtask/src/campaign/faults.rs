//! System calls on files that fail, or at which the program is killed.
//!
//! strace does it, since not all calls go through the C library; of the main thread alone, which writes all files. Short
//! writes, which strace cannot make without losing bytes, come from a small library in C.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use super::case::{Case, half_written};
use super::child::Ending;
use super::prepared::{WORKS, Work};
use super::tally::Verdict;

/// The calls that write files, and those that give them their names.
const CALLS: &str = "write,pwrite64,openat,rename,renameat,renameat2,fsync,fdatasync,ftruncate,mkdir,unlink,unlinkat";
/// The last one writes no file.
const WRITING: usize = WORKS.len() - 1;
const ERRORS: [&str; 4] = ["ENOSPC", "EIO", "EINTR", "EACCES"];

/// Whether this machine has what is needed.
pub(super) fn tools() -> anyhow::Result<()> {
    for tool in ["strace", "cc"] {
        let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        ensure!(found.is_ok_and(|status| status.success()), "{tool} is not here: install it");
    }
    Ok(())
}

pub(super) fn run(case: &Case<'_>) -> anyhow::Result<Verdict> {
    // Reports and images are written in the same ways; training has most files of its own.
    let work = case.chance(|chance| &WORKS[if chance.below(2) == 0 { 0 } else { chance.below(WRITING) }]);
    if case.chance(|chance| chance.below(8)) == 0 {
        return short_writes(case, work);
    }
    let calls = calls_of(case, work)?;
    let Some((call, places)) = case.chance(|chance| calls.iter().nth(chance.below(calls.len()))) else {
        bail!("{} makes no call on a file that could fail", work.name);
    };
    let place = case.chance(|chance| *chance.pick(places));
    let kill = case.chance(|chance| chance.below(3)) == 0;
    let fault = match kill {
        true => "signal=KILL".to_owned(),
        // Some calls fail once, some from then on: a full disk stays full.
        false => format!("error={}", case.chance(|chance| *chance.pick(&ERRORS))),
    };
    // For ever interrupted is no fault that there is; writes that fail for ever take the message along.
    let lasts = !kill && !fault.ends_with("EINTR") && call != "write" && case.chance(|chance| chance.below(2)) == 0;
    let on = if lasts { "+" } else { "" };
    let inject = format!("inject={call}:{fault}:when={place}{on}");
    let trace = case.folder().join("strace.txt");
    let its = ["-qq", "-e", &format!("trace={call}"), "-e", &inject, "-o", &trace.display().to_string()];
    let arguments = case.prepared.arguments(work, false);
    let ended = case.run(case.prepared.wrapped("strace", &its.map(str::to_owned), &arguments))?;

    let what = format!("{} {call}", work.name);
    let (outcome, wrong) = match ended.ending {
        Ending::Signal(9) if kill => ("killed".to_owned(), None),
        // Before the program's own first line.
        Ending::Code(127) if ended.said.contains("error while loading shared libraries") => {
            ("not loaded".to_owned(), None)
        }
        Ending::Code(code) => (format!("exit {code}"), ended.wrong()),
        other => (format!("{other:?}"), ended.wrong()),
    };
    let wrong = match wrong {
        Some(wrong) => Some(format!("{inject}: {wrong}")),
        None => case.again(work)?.map(|wrong| format!("{inject}: {wrong}")),
    };
    Ok(Verdict { what, outcome, wrong })
}

/// The calls of `work` on its own files, by name: their places among all calls of that name, from 1.
fn calls_of(case: &Case<'_>, work: &Work) -> anyhow::Result<BTreeMap<String, Vec<usize>>> {
    let known = case.prepared.folder().join("results").join(format!("{}.calls", work.name));
    if !known.exists() {
        let trace = case.folder().join("calls.txt");
        let options = ["-qq", "-y", "-s", "0", "-e", &format!("trace={CALLS}"), "-o", &trace.display().to_string()];
        let arguments = case.prepared.arguments(work, false);
        let ended = case.run(case.prepared.wrapped("strace", &options.map(str::to_owned), &arguments))?;
        ensure!(ended.ending == Ending::Code(0), "strace cannot follow the program: {}", ended.said);
        fs::create_dir_all(case.prepared.folder().join("results"))?;
        fs::copy(&trace, &known)?;
        // The output of the trace is no part of the case.
        super::prepared::remove(&case.folder().join("out"))?;
    }
    let text = fs::read_to_string(&known).with_context(|| format!("cannot read {}", known.display()))?;
    Ok(places(&text, &case.folder().join("out")))
}

/// The lines of a trace that are about a file below `folder`.
fn places(trace: &str, folder: &Path) -> BTreeMap<String, Vec<usize>> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut found: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    // Absolute where strace tells a descriptor's file, relative in the program's arguments.
    let own = [
        format!("{}", folder.display()),
        format!("\"{name}"),
        format!("{}/.partial-", folder.parent().unwrap_or(folder).display()),
    ];
    for line in trace.lines() {
        let Some((call, rest)) = line.split_once('(') else { continue };
        let count = counts.entry(call).or_default();
        *count += 1;
        if own.iter().any(|own| rest.contains(own.as_str())) {
            found.entry(call.to_owned()).or_default().push(*count);
        }
    }
    found
}

/// Writes that take half of what they are given, or are interrupted: nothing that a program may notice.
fn short_writes(case: &Case<'_>, work: &Work) -> anyhow::Result<Verdict> {
    let library = library(&case.prepared.folder().join("short-writes.so"))?;
    let mut command = case.prepared.command(&case.prepared.arguments(work, false));
    command.env("LD_PRELOAD", &library);
    let ended = case.run(command)?;
    let wrong = match ended.ending {
        Ending::Code(0) => case.compared(work)?.or(half_written(&case.folder())?),
        _ => Some(ended.wrong().unwrap_or_else(|| format!("it ended with {:?}: {}", ended.ending, ended.said))),
    };
    let what = format!("{} short writes", work.name);
    Ok(Verdict { what, outcome: if wrong.is_none() { "exit 0" } else { "failed" }.to_owned(), wrong })
}

/// Compiled once.
fn library(path: &Path) -> anyhow::Result<PathBuf> {
    if !path.exists() {
        let source = path.with_extension("c");
        fs::write(&source, include_str!("short_writes.c"))?;
        let status = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(path).arg(&source).status();
        ensure!(status.is_ok_and(|status| status.success()), "cc cannot compile {}", source.display());
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_on_own_files_are_chosen_and_all_are_counted() {
        let trace = "openat(AT_FDCWD</w/case>, \"/lib/libc.so.6\", O_RDONLY|O_CLOEXEC) = 3</lib/libc.so.6>\n\
                     openat(AT_FDCWD</w/case>, \"out/log.jsonl\", O_WRONLY|O_CREAT) = 4</w/case/out/log.jsonl>\n\
                     write(2</dev/pts/1>, \"\"..., 5) = 5\n\
                     write(4</w/case/out/log.jsonl>, \"\"..., 5) = 5\n\
                     rename(\"/w/case/.partial-a\", \"/w/case/out\") = 0\n";
        let places = places(trace, Path::new("/w/case/out"));
        let expected = [("openat", vec![2]), ("rename", vec![1]), ("write", vec![2])];
        assert_eq!(places, expected.map(|(call, places)| (call.to_owned(), places)).into());
    }

    #[test]
    fn short_writes_lose_nothing() {
        tools().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let library = library(&folder.path().join("short.so")).unwrap();
        let text = "x".repeat(1001);
        let file = folder.path().join("file");
        // Python's raw writes show what the library does, its buffered ones that nothing is lost.
        let script = format!(
            "import os, sys; f = open({file:?}, 'wb', 0); print(f.write(b'{text}')); open({file:?}, 'w').write('{text}')"
        );
        let output = Command::new("python3").args(["-c", &script]).env("LD_PRELOAD", &library).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "500", "{output:?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
}
