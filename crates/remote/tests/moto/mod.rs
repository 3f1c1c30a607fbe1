//! moto's server (`pip install 'moto[server]'`), which speaks S3, and a proxy before it that does what networks and busy servers do.
#![allow(dead_code, reason = "each test uses some of it")]

use std::env;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Trial};

const NO_MOTO: &str = "there is no moto_server on this machine (pip install 'moto[server]')";
/// What the proxy takes for the right key.
pub(crate) const KEY: &str = "AKIATESTS";
pub(crate) const SECRET: &str = "a-secret-that-nobody-may-show";
pub(crate) const BUCKET: &str = "results";

/// An address that is free now.
pub(crate) fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(crate) fn program() -> Option<PathBuf> {
    if let Some(named) = env::var_os("MOTO_SERVER").filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("moto_server")).find(|file| file.is_file())
}

fn is_required() -> bool {
    env::var_os("REQUIRE_MOTO").is_some_and(|value| !value.is_empty())
}

/// A test's name, and what it does with the server, its URL of its own and a folder here.
pub(crate) type Test = (&'static str, fn(&Moto, &str, &Path));

/// Runs tests one by one on a server; where there is none they are ignored, or fail where it is required.
pub(crate) fn run(server: Option<Moto>, tests: &[Test]) -> ExitCode {
    let server = server.map(|server| Arc::new(Mutex::new(server)));
    let trial = |&(name, test): &Test| {
        let server = server.clone();
        Trial::ignorable_test(name, move || match server {
            Some(server) => {
                let server = server.lock().unwrap_or_else(PoisonError::into_inner);
                server.calm();
                let local = tempfile::tempdir().unwrap();
                test(&server, &format!("s3://{BUCKET}/{name}"), local.path());
                Ok(Completion::Completed)
            }
            None if is_required() => Err(format!("REQUIRE_MOTO is set, but {NO_MOTO}").into()),
            None => Ok(Completion::ignored_with(NO_MOTO)),
        })
    };
    libtest_mimic::run(&Arguments::from_args(), tests.iter().map(trial).collect()).exit_code()
}

/// What befalls a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is answered with this status and code, and not passed on.
    Answer(u16, &'static str),
    /// The connection is cut while it is sent.
    CutRequest,
    /// It is done, and the connection is cut before the answer.
    LoseAnswer,
    /// The connection is cut in the middle of the answer.
    CutAnswer,
    /// Its condition is left out, as servers do that know none.
    DropCondition,
    /// Nothing.
    None,
}

/// The next `times` requests whose first line has both words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) method: &'static str,
    pub(crate) contains: &'static str,
    pub(crate) fault: Fault,
    pub(crate) times: usize,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    lines: Vec<String>,
}

/// The server with its proxy, on ports of their own.
pub(crate) struct Moto {
    server: Child,
    pub(crate) address: SocketAddr,
    direct: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Moto {
    /// `address` is the proxy's; port 0 is any.
    pub(crate) fn start(program: &std::path::Path, address: SocketAddr) -> Self {
        // A free one: the server says too late which it has chosen.
        let direct = free();
        let server = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &direct.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(client, direct, &state));
            }
        });
        let moto = Self { server, address, direct, state };
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(direct).is_err() {
            assert!(Instant::now() < until, "moto does not start");
            thread::sleep(Duration::from_millis(50));
        }
        assert!(moto.raw("PUT", &format!("/{BUCKET}")).starts_with("HTTP/1.1 200"));
        moto
    }

    /// What the program finds in its environment.
    pub(crate) fn environment(address: SocketAddr) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL", format!("http://{address}")),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
            ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
        ]
    }

    /// A request past the proxy, without a body; returns the whole answer.
    pub(crate) fn raw(&self, method: &str, target: &str) -> String {
        self.request(method, target, &[])
    }

    /// Puts a file there.
    pub(crate) fn put(&self, target: &str, bytes: &[u8]) {
        let answer = self.request("PUT", target, bytes);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    fn request(&self, method: &str, target: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.direct).unwrap();
        let authorization = format!("AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/s3/aws4_request");
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nAuthorization: {authorization}\r\nConnection: close\r\n\r\n",
            self.direct,
            body.len()
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) fn rule(&self, method: &'static str, contains: &'static str, fault: Fault, times: usize) {
        self.state.lock().unwrap().rules.push(Rule { method, contains, fault, times });
    }

    /// Forgets all rules and requests; returns the first lines of those since the last time.
    pub(crate) fn calm(&self) -> Vec<String> {
        std::mem::take(&mut *self.state.lock().unwrap()).lines
    }
}

/// One request of a connection, which is closed after it.
fn serve(mut client: TcpStream, direct: SocketAddr, state: &Mutex<State>) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        (client.read(&mut byte).ok()? == 1).then_some(())?;
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).ok()?;
    let line = text.lines().next()?.to_owned();
    let header = |name: &str| {
        let found = text.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
        found.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
    };
    let length: usize = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let fault = {
        let mut state = state.lock().unwrap();
        state.lines.push(line.clone());
        let rule = state
            .rules
            .iter_mut()
            .find(|rule| rule.times > 0 && line.starts_with(rule.method) && line.contains(rule.contains));
        rule.map_or(Fault::None, |rule| {
            rule.times -= 1;
            rule.fault
        })
    };
    let known = header("authorization").is_some_and(|value| value.contains(&format!("Credential={KEY}/")));
    let fault = if known { fault } else { Fault::Answer(403, "InvalidAccessKeyId") };
    if fault == Fault::CutRequest {
        let mut part = vec![0; length / 2];
        client.read_exact(&mut part).ok()?;
        return None;
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body).ok()?;
    if let Fault::Answer(status, code) = fault {
        let said = format!("<Error><Code>{code}</Code><AWSAccessKeyId>{KEY}</AWSAccessKeyId></Error>");
        let length = said.len();
        write!(client, "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{said}").ok()?;
        return None;
    }
    let mut lines: Vec<&str> = text.trim_end().lines().collect();
    lines.retain(|line| {
        let line = line.to_ascii_lowercase();
        !line.starts_with("connection:") && (fault != Fault::DropCondition || !line.starts_with("if-none-match:"))
    });
    let mut server = TcpStream::connect(direct).ok()?;
    server.write_all((lines.join("\r\n") + "\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    server.write_all(&body).ok()?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).ok()?;
    let sent = match fault {
        Fault::LoseAnswer => 0,
        Fault::CutAnswer => answer.len() / 2,
        _ => answer.len(),
    };
    client.write_all(&answer[..sent]).ok()
}
