//! One file from one address, going on from what is there already.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use ureq::Agent;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};

use super::progress::{FileProgress, size};

/// Why an address did not give the file.
pub(super) enum Failure {
    /// The source's fault: another may do better.
    Source(String),
    /// This machine's fault: no source can help.
    Here(anyhow::Error),
}

/// What to ask for.
pub(super) struct Request<'a> {
    pub(super) address: &'a str,
    pub(super) token: Option<&'a str>,
    /// In bytes, where known.
    pub(super) size: Option<u64>,
    /// The hash is known, so pieces from different sources may be joined: the sum will tell.
    pub(super) hash_is_known: bool,
}

/// An agent that trusts the system's certificates and gives up on silence, not on slowness.
pub(super) fn agent() -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        // A hub sends its own addresses on to a storage service, which must not see the token.
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .user_agent(concat!("attndreambooth-xtask/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(15)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .build()
        .into()
}

/// A file on its way: `NAME.partial`, and `NAME.partial.etag` with the version it is of where no hash says so.
pub(super) struct Partial {
    pub(super) path: PathBuf,
    file: File,
}

impl Partial {
    /// Opens what an earlier fetch left, or a new one, for this process alone.
    pub(super) fn open(target: &Path) -> anyhow::Result<Self> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let path = target.with_file_name(name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("{} cannot be written", path.display()))?;
        if file.try_lock().is_err() {
            return Err(anyhow!("another fetch is writing {}: wait for it", path.display()));
        }
        Ok(Self { path, file })
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Back to nothing.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.set_etag(None);
        if self.len()? > 0 { self.file.set_len(0) } else { Ok(()) }
    }

    /// Gives the complete file its final name.
    pub(super) fn finish(mut self, target: &Path) -> io::Result<()> {
        self.set_etag(None);
        self.file.flush()?;
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
/// A source that asks for more patience has to wait for the next fetch.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Brings `partial` to its full length, over as many connections as it takes while they bring something. The first
/// `wait` is the one before the second try in a row, and each is four times the last.
pub(super) fn download(
    agent: &Agent,
    request: &Request<'_>,
    partial: &mut Partial,
    progress: &FileProgress<'_>,
    wait: Duration,
) -> Result<(), Failure> {
    let mut fruitless = 0;
    // What was had once and was thrown away since is nothing new when it comes again.
    let mut longest = partial.len()?;
    loop {
        if request.size == Some(partial.len()?) {
            return Ok(());
        }
        let Err(failure) = attempt(agent, request, partial, progress) else { return Ok(()) };
        let (reason, asked) = match failure {
            Interrupted::Again { reason, wait } => (reason, wait),
            Interrupted::Failed(failure) => return Err(failure),
        };
        let after = partial.len()?;
        fruitless = if after >= longest + WORTH { 1 } else { fruitless + 1 };
        longest = longest.max(after);
        if fruitless == TRIES {
            return Err(Failure::Source(format!("{reason}, after {TRIES} tries")));
        }
        let wait = pause(wait, fruitless, asked);
        let next = if after > 0 { format!("going on from {}", size(after)) } else { "trying again".to_owned() };
        progress.say(&format!("{reason}; {next} in {:.1} s", wait.as_secs_f64()));
        thread::sleep(wait);
    }
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

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Here(error.into())
    }
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
    progress: &FileProgress<'_>,
) -> Result<(), Interrupted> {
    let etag = partial.etag();
    if !request.hash_is_known && etag.is_none() {
        partial.clear()?;
    }
    let mut have = partial.len()?;
    let mut call = agent.get(request.address).header(header::ACCEPT_ENCODING, "identity");
    if have > 0 {
        call = call.header(header::RANGE, format!("bytes={have}-"));
        if let Some(etag) = etag.filter(|_| !request.hash_is_known) {
            // Where the file has changed since, the answer is all of the new one.
            call = call.header(header::IF_RANGE, etag);
        }
    }
    if let Some(token) = request.token {
        call = call.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let mut response = call.call().map_err(|error| match error {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => Interrupted::Failed(Failure::Source(error.to_string())),
        error => again(error.to_string()),
    })?;
    let total = match response.status() {
        StatusCode::PARTIAL_CONTENT => match range_of(&response) {
            Some((start, total)) if start == have => total,
            _ => {
                partial.clear()?;
                return Err(again("the server answered with another part than was asked for"));
            }
        },
        StatusCode::OK => {
            // A server that cannot continue, or a file that has changed: from the start.
            partial.clear()?;
            have = 0;
            length_of(&response)
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            partial.clear()?;
            return Err(again("the server has no more of the file than was there"));
        }
        // Too busy, or broken for the moment.
        status if status.is_server_error() || [408, 425, 429].contains(&status.as_u16()) => {
            let wait = seconds_of(&response, header::RETRY_AFTER).map(Duration::from_secs);
            return Err(Interrupted::Again { reason: refusal(status, request.token.is_some()), wait });
        }
        status => return Err(Failure::Source(refusal(status, request.token.is_some())).into()),
    };
    if let (Some(expected), Some(offered)) = (request.size, total)
        && expected != offered
    {
        return Err(Failure::Source(format!("offers a file of {offered} bytes, not {expected}")).into());
    }
    if !request.hash_is_known {
        let etag = response.headers().get(header::ETAG).and_then(|value| value.to_str().ok());
        // A weak mark promises no equal bytes.
        partial.set_etag(etag.filter(|etag| !etag.starts_with("W/")));
    }
    let total = total.or(request.size);
    let most = request.size.unwrap_or(UNKNOWN_MOST);
    if total.is_some_and(|total| total > most) {
        return Err(Failure::Source(too_much(most)).into());
    }
    if let Some(total) = total {
        progress.set_total(total);
    }
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 17];
    loop {
        progress.at(have);
        let read = match body.read(&mut buffer) {
            Ok(0) if total.is_some_and(|total| have < total) => {
                return Err(again("the connection was closed early"));
            }
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) => return Err(again(format!("the connection broke ({error})"))),
        };
        have += read as u64;
        if have > most {
            partial.clear()?;
            return Err(Failure::Source(too_much(most)).into());
        }
        partial.file.write_all(&buffer[..read]).map_err(|error| {
            Failure::Here(anyhow::Error::from(error).context(format!("{} cannot be written", partial.path.display())))
        })?;
    }
}

fn refusal(status: StatusCode, with_token: bool) -> String {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if with_token => {
            format!("HTTP {}: your HF_TOKEN gives no access to this model", status.as_u16())
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            format!("HTTP {}: the model is gone or needs a login, for which set HF_TOKEN", status.as_u16())
        }
        status => format!("HTTP {status}"),
    }
}

fn too_much(most: u64) -> String {
    format!("sends more than the {} that the file may have", size(most))
}

/// A header that is a number of seconds; the other form, a date, is left to the growing waits.
fn seconds_of<B>(response: &Response<B>, name: header::HeaderName) -> Option<u64> {
    response.headers().get(name)?.to_str().ok()?.trim().parse().ok()
}

fn length_of<B>(response: &Response<B>) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Start and total of `Content-Range: bytes 4000-9999/10000`.
fn range_of<B>(response: &Response<B>) -> Option<(u64, Option<u64>)> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
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
