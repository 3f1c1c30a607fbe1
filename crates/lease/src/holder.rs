//! Who has a lease.

use std::fmt::{self, Display};
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Time between two heartbeats.
pub const EVERY: Duration = Duration::from_secs(10);

/// A worker that has, or had, a piece of work: what its lease says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The name of its machine.
    pub host: String,
    /// The number of its process there.
    pub process: u32,
    /// What tells that process from all others, where the system says it.
    pub identity: Option<Identity>,
    /// Milliseconds between two heartbeats.
    pub every: u64,
    /// How often it has shown that it is alive.
    pub beats: u64,
    /// It has given the work back.
    pub released: bool,
}

/// A process among all of all machines, for its number alone is given again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The start of the machine.
    boot: String,
    /// The namespace of its number: containers number processes for themselves.
    namespace: String,
    /// When it was started, in ticks since the machine was.
    started: u64,
}

impl Holder {
    /// This process, with heartbeats after `every`.
    pub(crate) fn this(every: Duration) -> Self {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        let process = std::process::id();
        Self { host, process, identity: Identity::of_this(), every: millis(every), beats: 0, released: false }
    }

    /// Somebody whose lease does not say anything yet.
    pub(crate) fn unknown(every: Duration) -> Self {
        let host = "a machine that has not said its name".to_owned();
        Self { host, process: 0, identity: None, every: millis(every), beats: 0, released: false }
    }

    /// Whether it is alive, if that can be told from here: only of processes that this one could see.
    pub(crate) fn is_alive(&self) -> Option<bool> {
        let theirs = self.identity.as_ref()?;
        let ours = Identity::of_this()?;
        let visible = theirs.boot == ours.boot && theirs.namespace == ours.namespace;
        visible.then(|| started(&self.process.to_string()) == Some(theirs.started))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Identity {
    fn of_this() -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned();
        Some(Self { boot, namespace, started: started("self")? })
    }
}

/// When a process was started: the 22nd value of its `stat`, counted from behind its name, which may have anything in it.
fn started(process: &str) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(process).join("stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut values = after_name.split_whitespace();
    // One that has ended and is not yet waited for does nothing any more.
    let ended = matches!(values.next()?, "Z" | "X");
    values.nth(18)?.parse().ok().filter(|_| !ended)
}

impl Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.process, self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_the_next_one_of_its_number() {
        let this = Holder::this(EVERY);
        assert_eq!(this.is_alive(), Some(true));
        let mut earlier = this.clone();
        earlier.identity.as_mut().unwrap().started -= 1;
        assert_eq!(earlier.is_alive(), Some(false));
        let mut elsewhere = this.clone();
        elsewhere.identity.as_mut().unwrap().namespace.clear();
        assert_eq!(elsewhere.is_alive(), None);
        assert_eq!(Holder { identity: None, ..this }.is_alive(), None);
        let mut child = std::process::Command::new("sleep").arg("9").spawn().unwrap();
        let id = child.id().to_string();
        assert!(started(&id) >= started("self"));
        child.kill().unwrap();
        // Until it is waited for, its entry stays.
        while started(&id).is_some() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}
