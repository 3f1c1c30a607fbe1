//! One file from one address, resuming what is there already.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use ureq::Agent;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};

use crate::progress::{Reporter, Stopped, size};

/// Why an address did not give the file.
pub(crate) enum Failure {
    /// The source's fault: another may do better.
    Source(String),
    /// This machine's fault, or the caller has stopped: no source can help.
    Here(anyhow::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Here(error.into())
    }
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        Self::Here(stopped.into())
    }
}

/// What to ask for.
pub(crate) struct Request<'a> {
    pub(crate) address: &'a str,
    pub(crate) token: Option<&'a str>,
    /// In bytes, where known.
    pub(crate) size: Option<u64>,
    /// The hash is known, so pieces from different sources may be joined: the sum will tell.
    pub(crate) hash_is_known: bool,
    /// The wait before the second try in a row; each next one is four times the last.
    pub(crate) wait: Duration,
}

/// An agent that trusts the system's certificates and gives up on silence, not on slowness.
pub(crate) fn agent() -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        // A hub sends its own addresses on to a storage service, which must not see the token.
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .user_agent(concat!("attndreambooth/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(15)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .build()
        .into()
}

/// A file on its way: `NAME.partial`, and `NAME.partial.etag` with the version it is of where no hash says so.
pub(crate) struct Partial {
    pub(crate) path: PathBuf,
    file: File,
}

impl Partial {
    /// Opens what an earlier download left, or a new one, for this process alone.
    pub(crate) fn open(target: &Path) -> Result<Self> {
        let path = target.with_added_extension("partial");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("{} cannot be written", path.display()))?;
        if file.try_lock().is_err() {
            return Err(anyhow!("another download is writing {}: wait for it", path.display()));
        }
        Ok(Self { path, file })
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Back to nothing.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.set_etag(None);
        // A device has no length to set.
        if self.len()? > 0 { self.file.set_len(0) } else { Ok(()) }
    }

    /// Gives the complete file its final name.
    pub(crate) fn finish(self, target: &Path) -> io::Result<()> {
        self.set_etag(None);
        self.file.sync_all()?;
        fs::rename(&self.path, target)
    }

    fn etag_path(&self) -> PathBuf {
        self.path.with_added_extension("etag")
    }

    fn etag(&self) -> Option<String> {
        fs::read_to_string(self.etag_path()).ok()
    }

    /// A lost mark costs a fresh start, no more.
    fn set_etag(&self, etag: Option<&str>) {
        let _ = match etag {
            Some(etag) => fs::write(self.etag_path(), etag),
            None => fs::remove_file(self.etag_path()),
        };
    }
}

/// Tries of a source in a row that bring next to nothing, after which it is given up.
const TRIES: u32 = 5;
/// A connection that brings less than this counts among those tries; so a source is asked a bounded number of times
/// whatever it answers, and a file of gigabytes may still come over a line that breaks every few seconds.
const WORTH: u64 = 1 << 20;
/// No file whose size is not known is larger: such are configurations.
const UNKNOWN_MOST: u64 = 64 << 20;
/// A source that asks for more patience has to wait for the next download.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Brings `partial` to its full length, over as many connections as it takes while they bring something.
pub(crate) fn transfer(
    agent: &Agent,
    request: &Request<'_>,
    partial: &mut Partial,
    reporter: &Reporter<'_>,
) -> Result<(), Failure> {
    let mut fruitless = 0;
    // What was here once and was thrown away since is nothing new when it comes again.
    let mut longest = partial.len()?;
    while request.size != Some(partial.len()?) {
        let (reason, asked) = match attempt(agent, request, partial, reporter) {
            Ok(()) => return Ok(()),
            Err(Interrupted::Again { reason, wait }) => (reason, wait),
            Err(Interrupted::Failed(failure)) => return Err(failure),
        };
        let after = partial.len()?;
        fruitless = if after >= longest + WORTH { 1 } else { fruitless + 1 };
        longest = longest.max(after);
        if fruitless == TRIES {
            return Err(Failure::Source(format!("{reason}, after {TRIES} tries")));
        }
        let wait = pause(request.wait, fruitless, asked);
        let next = if after > 0 { format!("resuming from {}", size(after)) } else { "trying again".to_owned() };
        reporter.say(format!("{reason}; {next} in {:.1} s", wait.as_secs_f64()));
        reporter.sleep(wait)?;
    }
    Ok(())
}

/// How long to wait after so many tries in a row, where the server may ask for more.
fn pause(first: Duration, tries: u32, asked: Option<Duration>) -> Duration {
    asked.unwrap_or_default().max(first * 4_u32.pow(tries.saturating_sub(1))).min(LONGEST_WAIT)
}

enum Interrupted {
    /// Worth another try, after the wait that the server asks for.
    Again {
        reason: String,
        wait: Option<Duration>,
    },
    Failed(Failure),
}

fn again(reason: impl Into<String>) -> Interrupted {
    Interrupted::Again { reason: reason.into(), wait: None }
}

fn refuse(reason: impl Into<String>) -> Interrupted {
    Interrupted::Failed(Failure::Source(reason.into()))
}

impl<F: Into<Failure>> From<F> for Interrupted {
    fn from(failure: F) -> Self {
        Self::Failed(failure.into())
    }
}

fn attempt(
    agent: &Agent,
    request: &Request<'_>,
    partial: &mut Partial,
    reporter: &Reporter<'_>,
) -> Result<(), Interrupted> {
    let etag = partial.etag().filter(|_| !request.hash_is_known);
    if !request.hash_is_known && etag.is_none() {
        partial.clear()?;
    }
    let mut here = partial.len()?;
    let mut call = agent.get(request.address).header(header::ACCEPT_ENCODING, "identity");
    if here > 0 {
        call = call.header(header::RANGE, format!("bytes={here}-"));
        if let Some(etag) = etag {
            // Where the file has changed since, the answer is all of the new one.
            call = call.header(header::IF_RANGE, etag);
        }
    }
    if let Some(token) = request.token {
        call = call.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let mut response = call.call().map_err(|error| match error {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => refuse(error.to_string()),
        error => again(error.to_string()),
    })?;
    let headers = response.headers();
    let total = match response.status() {
        StatusCode::PARTIAL_CONTENT => match range(headers) {
            Some((start, total)) if start == here => total,
            _ => {
                partial.clear()?;
                return Err(again("the server answered with another part than was asked for"));
            }
        },
        StatusCode::OK => {
            // A server that cannot resume, or a file that has changed: from the start.
            partial.clear()?;
            here = 0;
            number(headers, header::CONTENT_LENGTH)
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            partial.clear()?;
            return Err(again("the server has no more of the file than was there"));
        }
        // Too busy, or broken for the moment. A date to wait for, the header's other form, is left to the growing waits.
        status if status.is_server_error() || [408, 425, 429].contains(&status.as_u16()) => {
            let wait = number(headers, header::RETRY_AFTER).map(Duration::from_secs);
            return Err(Interrupted::Again { reason: refusal(status, request.token.is_some()), wait });
        }
        status => return Err(refuse(refusal(status, request.token.is_some()))),
    };
    if let (Some(expected), Some(offered)) = (request.size, total)
        && expected != offered
    {
        return Err(refuse(format!("offers a file of {offered} bytes, not {expected}")));
    }
    if !request.hash_is_known {
        let etag = headers.get(header::ETAG).and_then(|value| value.to_str().ok());
        // A weak mark promises no equal bytes.
        partial.set_etag(etag.filter(|etag| !etag.starts_with("W/")));
    }
    let total = total.or(request.size);
    let most = request.size.unwrap_or(UNKNOWN_MOST);
    let too_much = || refuse(format!("sends more than the {} that the file may have", size(most)));
    if total.is_some_and(|total| total > most) {
        return Err(too_much());
    }
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 17];
    loop {
        reporter.at(here, total);
        reporter.check()?;
        let read = match body.read(&mut buffer) {
            Ok(0) if total.is_some_and(|total| here < total) => return Err(again("the connection was closed early")),
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) => return Err(again(format!("the connection broke ({error})"))),
        };
        here += read as u64;
        if here > most {
            partial.clear()?;
            return Err(too_much());
        }
        partial.file.write_all(&buffer[..read]).map_err(|error| {
            Failure::Here(anyhow::Error::from(error).context(format!("{} cannot be written", partial.path.display())))
        })?;
    }
}

fn refusal(status: StatusCode, with_token: bool) -> String {
    let why = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if with_token => {
            ": your HF_TOKEN gives no access to this model"
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            ": the model is gone or needs a login, for which set HF_TOKEN"
        }
        _ => "",
    };
    format!("HTTP {}{why}", status.as_u16())
}

fn number(headers: &HeaderMap, name: header::HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// Start and total of `Content-Range: bytes 4000-9999/10000`.
fn range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (part, total) = range.split_once('/')?;
    Some((part.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let first = Duration::from_millis(500);
        let waits = [1, 2, 3, 4].map(|tries| pause(first, tries, None).as_secs_f64());
        assert_eq!(waits, [0.5, 2.0, 8.0, 32.0]);
        assert_eq!(pause(first, 1, Some(Duration::from_secs(5))).as_secs(), 5);
        assert_eq!(pause(first, 4, Some(Duration::from_secs(5))).as_secs(), 32);
        assert_eq!(pause(first, 1, Some(Duration::from_secs(u64::MAX))), LONGEST_WAIT);
    }
}
