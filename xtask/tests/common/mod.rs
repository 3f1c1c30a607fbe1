//! A small HTTP server on loopback, and a manifest and an environment to run `xtask weights` in.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by the test files; a broken set-up should stop the test")]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    /// How many requests came before this one.
    pub(crate) number: usize,
}

impl Request {
    /// `4000` of `Range: bytes=4000-`.
    pub(crate) fn start(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// Announce another length than the body's; 0 for none at all, and then the body is repeated without an end.
    pub(crate) announced: Option<u64>,
}

impl Response {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: b"no such luck".to_vec(), cut: None, announced: None }
    }

    pub(crate) fn whole(body: &[u8]) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.to_vec(), cut: None, announced: None }
    }

    /// What a good server says: a part where one is asked for.
    pub(crate) fn part(request: &Request, body: &[u8]) -> Self {
        let Some(start) = request.start() else { return Self::whole(body) };
        if start >= body.len() {
            return Self::status(416);
        }
        let range = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
        let headers = vec![("Content-Range", range)];
        Self { status: 206, headers, body: body[start..].to_vec(), cut: None, announced: None }
    }

    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    pub(crate) fn announcing(mut self, length: u64) -> Self {
        self.announced = Some(length);
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

pub(crate) struct Server {
    pub(crate) address: String,
    seen: Arc<Log>,
}

/// Path and headers of each request.
type Log = Mutex<Vec<(String, HashMap<String, String>)>>;

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1", answer)
    }

    /// Where `ip` is another loopback address, this is another host to the client.
    pub(crate) fn start_at(ip: &str, answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                // A client that goes away in the middle is part of the tests.
                std::thread::spawn(move || drop(serve(stream, &log, &*answer)));
            }
        });
        Self { address, seen }
    }

    /// The paths asked for so far.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    }

    /// One header of all requests so far.
    pub(crate) fn header(&self, name: &str) -> Vec<Option<String>> {
        self.seen.lock().unwrap().iter().map(|(_, headers)| headers.get(name).cloned()).collect()
    }
}

fn serve(mut stream: TcpStream, log: &Log, answer: &dyn Fn(&Request) -> Response) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let number = {
        let mut log = log.lock().unwrap();
        log.push((path.clone(), headers.clone()));
        log.len() - 1
    };
    let response = answer(&Request { path, headers, number });
    write!(stream, "HTTP/1.1 {} Whatever\r\nConnection: close\r\n", response.status)?;
    let endless = response.announced == Some(0);
    if !endless {
        write!(stream, "Content-Length: {}\r\n", response.announced.unwrap_or(response.body.len() as u64))?;
    }
    for (name, value) in &response.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    if endless {
        loop {
            stream.write_all(&response.body)?;
        }
    }
    stream.write_all(&response.body[..response.cut.unwrap_or(response.body.len())])
}

/// A folder with a manifest of one model, `tiny`, and room for its files.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
}

/// The weights of `tiny`; long enough to be cut.
pub(crate) fn weights() -> Vec<u8> {
    (0..300_000u32).flat_map(u32::to_le_bytes).collect()
}

pub(crate) const WEIGHTS: &str = "unet/model.safetensors";
/// Of [`weights`], by Python's hashlib.
pub(crate) const WEIGHTS_SHA256: &str = "552a438886f75fd5e70ff6ad0671698758af0a126388ab130f4eb85c0cf6c725";
pub(crate) const CONFIG: &[u8] = b"{\"layers\": 2}\n";

impl Place {
    /// `sources` in the manifest's own notation.
    pub(crate) fn new(sources: &[String]) -> Self {
        Self::with_files(
            sources,
            &format!(
                r#"{{"path": "{WEIGHTS}", "size": 1200000, "sha256": "{WEIGHTS_SHA256}"}}, {{"path": "config.json"}}"#
            ),
        )
    }

    pub(crate) fn with_files(sources: &[String], files: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let manifest = format!(
            r#"{{"about": [], "models": [{{
                "name": "tiny", "title": "A tiny model", "licence": {{"name": "MIT", "url": "http://127.0.0.1/licence"}},
                "sources": {sources:?}, "files": [{files}] }}]}}"#
        );
        fs::write(folder.path().join("manifest.json"), manifest).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of the model.
    pub(crate) fn model(&self, name: &str) -> PathBuf {
        self.path("models/tiny").join(name)
    }

    /// Puts a file down, with the folders it needs.
    pub(crate) fn put(&self, path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// `xtask weights` with nothing of the caller's Hugging Face environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.arg("weights").args(args).current_dir(self.folder.path());
        command.arg("--manifest").arg(self.path("manifest.json")).arg("--dir").arg(self.path("models"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_lowercase();
            if text.starts_with("hf_") || text.starts_with("huggingface") || text.ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command.env("HF_HOME", self.path("hf"));
        if args.first() == Some(&"fetch") {
            command.args(["--retry-wait", "1"]);
        }
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// No half-made file of any kind is left.
    pub(crate) fn assert_nothing_unfinished(&self) {
        for folder in ["models/tiny", "models/tiny/unet"] {
            for entry in fs::read_dir(self.path(folder)).into_iter().flatten().flatten() {
                assert!(!entry.file_name().to_string_lossy().contains("partial"), "{:?}", entry.path());
            }
        }
    }
}

/// Success, with what was said on both outputs.
pub(crate) fn succeeded(output: &Output) -> String {
    let said = said(output);
    assert!(output.status.success(), "{said}");
    said
}

/// A user's error: exit code 2 and one sentence last, which is returned.
pub(crate) fn refused(output: &Output) -> String {
    let said = said(output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let last = String::from_utf8(output.stderr.clone()).unwrap().lines().last().unwrap().to_owned();
    assert!(last.starts_with("error: "), "{said}");
    last
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The two files of `tiny`, as a good hub serves them.
pub(crate) fn good(request: &Request) -> Response {
    if request.path.ends_with("model.safetensors") {
        Response::part(request, &weights())
    } else if request.path.ends_with("config.json") {
        Response::part(request, CONFIG).header("ETag", "\"one\"")
    } else {
        Response::status(404)
    }
}

pub(crate) fn is_weights(request: &Request) -> bool {
    request.path.ends_with("model.safetensors")
}

pub(crate) fn at(server: &Server) -> String {
    format!("{}/{{path}}", server.address)
}

pub(crate) fn assert_complete(place: &Place) {
    assert_eq!(fs::read(place.model(WEIGHTS)).unwrap(), weights());
    assert_eq!(fs::read(place.model("config.json")).unwrap(), CONFIG);
    place.assert_nothing_unfinished();
}
