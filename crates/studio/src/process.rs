//! A process of the program: what it tells, and how it ends.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

/// Characters of what a process has said at last.
const LAST_WORDS: usize = 2000;

/// What is called for each job.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// Options of all its commands.
    pub(crate) options: &'static [&'static str],
}

impl Program {
    /// A call that tells events.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--json").args(self.options);
        command
    }

    /// Whether a process is one of this program.
    pub(crate) fn is_of(&self, process: u32) -> bool {
        let of = fs::read_link(format!("/proc/{process}/exe"));
        fs::canonicalize(&self.path).is_ok_and(|program| of.is_ok_and(|of| of == program))
    }
}

/// How a command has ended.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    /// What was wrong.
    pub(crate) said: String,
    pub(crate) result: Option<Value>,
}

/// A process that was started here.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Signals go by this: by the time, its number may be another's.
    handle: OwnedFd,
    stdin: Option<ChildStdin>,
    events: BufReader<ChildStdout>,
    last_words: Option<JoinHandle<String>>,
}

impl Process {
    /// Starts a command without input.
    ///
    /// # Errors
    /// When the system does not start it.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        Self::spawn(command.stdin(Stdio::null()))
    }

    /// Starts a command that is told lines.
    ///
    /// # Errors
    /// When the system does not start it.
    pub(crate) fn start_listening(command: &mut Command) -> Result<Self> {
        Self::spawn(command.stdin(Stdio::piped()))
    }

    fn spawn(command: &mut Command) -> Result<Self> {
        // A Ctrl-C at the terminal is for the studio, which then tells its processes.
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = command.spawn();
        let mut child = started.with_context(|| format!("{} cannot be started", command.get_program().display()))?;
        let handle = handle(child.id())?;
        let last_words = child.stderr.take().map(|stderr| thread::spawn(move || tail(stderr)));
        let events = BufReader::new(child.stdout.take().context("a process has no output")?);
        Ok(Self { stdin: child.stdin.take(), child, handle, events, last_words })
    }

    /// What signals go by.
    ///
    /// # Errors
    /// When the system allows no more open files.
    pub(crate) fn handle(&self) -> Result<OwnedFd> {
        self.handle.try_clone().context("a process cannot be followed")
    }

    /// Tells it a line.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn tell(&mut self, line: &str) -> io::Result<()> {
        // A process that another thread is starting may hold the pipe open for a moment.
        if self.child.try_wait()?.is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        stdin.write_all(format!("{line}\n").as_bytes())
    }

    /// Reads its events until one is the end of a command, and shows the others; none where the process has ended before.
    pub(crate) fn follow(&mut self, show: &mut dyn FnMut(&Value)) -> Option<Ended> {
        let mut line = Vec::new();
        loop {
            line.clear();
            if !matches!(self.events.read_until(b'\n', &mut line), Ok(1..)) {
                return None;
            }
            let Ok(mut event) = serde_json::from_slice::<Value>(&line) else { continue };
            match event["event"].as_str() {
                Some("result") => return Some(Ended { result: Some(event["result"].take()), ..Ended::default() }),
                Some("error" | "interrupted") => {
                    let code = event["exit_code"].as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or(2);
                    let said = event["text"].as_str().unwrap_or_default().trim_start_matches("error: ").to_owned();
                    return Some(Ended { code, said, result: None });
                }
                _ => show(&event),
            }
        }
    }

    /// Waits for its end. What it has told of that holds, unless there is nothing.
    ///
    /// # Errors
    /// When the system does not let it be waited for.
    pub(crate) fn wait(mut self, told: Option<Ended>) -> Result<Ended> {
        self.stdin = None;
        // Nothing keeps it from writing.
        let _ = io::copy(&mut self.events, &mut io::sink());
        let status = self.child.wait().context("a process cannot be waited for")?;
        let last_words = self.last_words.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        let mut ended = Ended { code, ..told.unwrap_or_default() };
        if ended.said.is_empty() && code != 0 {
            let last = last_words.lines().rfind(|line| !line.trim().is_empty());
            let last = last.map_or(String::new(), |line| format!(": {}", line.trim()));
            ended.said = match status.signal() {
                Some(signal) => format!("its process was ended by signal {signal}{last}"),
                None => format!("its process ended with code {code}{last}"),
            };
        }
        Ok(ended)
    }

    /// Ends it at once, when it does nothing.
    pub(crate) fn kill(mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What signals to a process go by.
///
/// # Errors
/// When there is no such process.
pub(crate) fn handle(process: u32) -> Result<OwnedFd> {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).context("a process has no number")?;
    pidfd_open(process, PidfdFlags::empty()).context("a process cannot be followed")
}

/// The end of what a process writes, however much that is.
fn tail(mut from: impl Read) -> String {
    let (mut last, mut read) = (Vec::new(), [0; 4096]);
    while let Ok(bytes @ 1..) = from.read(&mut read) {
        last.extend_from_slice(&read[..bytes]);
        let more = last.len().saturating_sub(LAST_WORDS);
        last.drain(..more);
    }
    String::from_utf8_lossy(&last).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_command_ends_with_its_result_or_with_what_was_wrong() {
        let ended = |script: &str| {
            let mut process = Process::start(&mut shell(script)).unwrap();
            let mut shown = Vec::new();
            let told = process.follow(&mut |event| shown.push(event.to_string()));
            let Ended { code, said, result } = process.wait(told).unwrap();
            (code, said, result.is_some(), shown.len())
        };
        let result = r#"echo '{"event":"step"}'; echo other; echo '{"event":"result","result":{}}'"#;
        assert_eq!(ended(result), (0, String::new(), true, 1));
        let error = r#"echo '{"event":"error","text":"error: no disk","exit_code":2}'; exit 2"#;
        assert_eq!(ended(error), (2, "no disk".to_owned(), false, 0));
        let last = "echo first >&2; echo last >&2; exit 1";
        assert_eq!(ended(last), (1, "its process ended with code 1: last".to_owned(), false, 0));
        assert_eq!(ended("kill -9 $$"), (137, "its process was ended by signal 9".to_owned(), false, 0));
    }

    #[test]
    fn a_process_is_told_lines_until_it_has_ended() {
        let script = r#"while read line; do echo "{\"event\":\"result\",\"result\":\"$line\"}"; done"#;
        let mut process = Process::start_listening(&mut shell(script)).unwrap();
        for line in ["a", "b"] {
            process.tell(line).unwrap();
            assert_eq!(process.follow(&mut |_| {}).unwrap().result, Some(line.into()));
        }
        process.kill();
        let mut process = Process::start_listening(&mut shell("exit 3")).unwrap();
        assert!(process.follow(&mut |_| {}).is_none());
        while process.tell("a").is_ok() {
            thread::yield_now();
        }
        assert_eq!(process.wait(None).unwrap().code, 3);
    }
}
