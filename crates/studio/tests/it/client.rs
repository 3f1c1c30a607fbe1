//! A client that sends what it is told to, hostile headers too.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Whoever has the token of a studio.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) port: u16,
    pub(crate) token: String,
}

impl Client {
    pub(crate) fn new(url: &str) -> Self {
        let (address, token) = url.split_once("/?token=").unwrap();
        Self { port: address.rsplit(':').next().unwrap().parse().unwrap(), token: token.to_owned() }
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn cookie(&self) -> String {
        format!("studio-{}={}", self.port, self.token)
    }

    /// Sends a request with exactly these headers.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        // Who is refused may be told so before all was sent.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an answer");
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut body = answer[end + 4..].to_vec();
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            body = unchunked(&body);
        }
        Answer { status, head, body }
    }

    /// As the studio's own page asks.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[("Host", &self.host()), ("Cookie", &self.cookie())], b"")
    }

    /// As a form of the studio's own pages is sent.
    pub(crate) fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let pairs: Vec<String> =
            form.iter().map(|(key, value)| format!("{}={}", encoded(key), encoded(value))).collect();
        self.post_as(path, "application/x-www-form-urlencoded", pairs.join("&").as_bytes())
    }

    pub(crate) fn post_as(&self, path: &str, kind: &str, body: &[u8]) -> Answer {
        let (host, origin) = (self.host(), format!("http://{}", self.host()));
        let headers =
            [("Host", host.as_str()), ("Cookie", &self.cookie()), ("Origin", &origin), ("Content-Type", kind)];
        self.send("POST", path, &headers, body)
    }

    /// Uploads files as a set of photos.
    pub(crate) fn upload(&self, set: &str, files: &[(&str, &[u8])]) -> Answer {
        const EDGE: &str = "edge-of-a-part";
        let mut body =
            format!("--{EDGE}\r\nContent-Disposition: form-data; name=\"set\"\r\n\r\n{set}\r\n").into_bytes();
        for (name, bytes) in files {
            let head =
                format!("--{EDGE}\r\nContent-Disposition: form-data; name=\"photos\"; filename=\"{name}\"\r\n\r\n");
            body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
        }
        body.extend(format!("--{EDGE}--\r\n").into_bytes());
        self.post_as("/photos", &format!("multipart/form-data; boundary={EDGE}"), &body)
    }
}

fn unchunked(mut chunked: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = chunked.windows(2).position(|bytes| bytes == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&chunked[..end]).unwrap().trim(), 16).unwrap();
        if length == 0 || chunked.len() < end + 2 + length {
            break;
        }
        body.extend(&chunked[end + 2..end + 2 + length]);
        chunked = chunked.get(end + 4 + length..).unwrap_or_default();
    }
    body
}
