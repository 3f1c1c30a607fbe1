//! Who may ask: whoever has the token, from a page of this studio or from no page at all.
//!
//! Any page in the browser can send requests to this machine, and can have its own name resolve to it (DNS rebinding). Hence, in this
//! order:
//!
//! 1. `Host` is this machine's own address or `localhost`, or where the studio listens for others, any address: never another name.
//! 2. `Origin`, where there is one, is that very address, and `Sec-Fetch-Site` tells of no other page; only the start may be linked to.
//!    Another port of this machine is another page, although cookies are sent from there.
//! 3. The token comes as a cookie (`SameSite=Strict`, `HttpOnly`), or from programs as `Authorization`.
//! 4. What changes anything, and is allowed by the cookie, has an `Origin`: browsers always send it.

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{DOCTYPE, html};
use serde_json::json;
use sha2::{Digest, Sha256};

/// What a page may load: its own files, images of its own, and no other script.
const POLICY: &str = "default-src 'none'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The studio's token, and the address it is for.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    token: String,
    address: SocketAddr,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
struct Refusal(StatusCode, &'static str);

const FOREIGN_HOST: Refusal =
    Refusal(StatusCode::FORBIDDEN, "This studio answers to its address alone, such as 127.0.0.1 or localhost.");
const FOREIGN_PAGE: Refusal = Refusal(StatusCode::FORBIDDEN, "This was asked by a page that is not this studio's.");
const NO_TOKEN: Refusal = Refusal(
    StatusCode::UNAUTHORIZED,
    "Open the address that `attndreambooth studio` has printed: it has a token in it, which the browser then keeps.",
);

impl Access {
    /// The token in a file, which only its owner may read; made if missing, so that a restarted studio is still open in the browser.
    pub(crate) fn open(file: &Path, address: SocketAddr) -> Result<Self> {
        let found = fs::read_to_string(file).map(|text| text.trim().to_owned()).unwrap_or_default();
        if found.len() >= 32 {
            return Ok(Self { token: found, address });
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).context("the system gives no random numbers for a token")?;
        let token = hex::encode(random);
        // Nobody else may read it, not even for a moment; half of one, as after a power cut, is made anew.
        let write = || {
            if file.exists() {
                fs::remove_file(file)?;
            }
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(file)?;
            writeln!(file, "{token}")
        };
        write().with_context(|| format!("cannot write the token to {}", file.display()))?;
        Ok(Self { token, address })
    }

    /// The address to open.
    pub(crate) fn url(&self) -> String {
        let host = match self.address.ip() {
            ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        format!("http://{host}:{}/?token={}", self.address.port(), self.token)
    }

    /// The cookie's name: cookies know no ports, and there may be several studios.
    fn cookie(&self) -> String {
        format!("studio-{}", self.address.port())
    }

    fn is_token(&self, given: &str) -> bool {
        // Compared by their hashes, the time tells nothing of the token.
        Sha256::digest(given) == Sha256::digest(&self.token)
    }

    fn check(&self, request: &Request) -> Result<(), Refusal> {
        let headers = request.headers();
        let host = text(headers, &header::HOST).ok_or(FOREIGN_HOST)?;
        if !self.is_own(host) {
            return Err(FOREIGN_HOST);
        }
        let start = request.method() == Method::GET && request.uri().path() == "/";
        let origin = text(headers, &header::ORIGIN);
        if origin.is_some_and(|origin| origin != format!("http://{host}")) {
            return Err(FOREIGN_PAGE);
        }
        let from = text(headers, &HeaderName::from_static("sec-fetch-site"));
        if from.is_some_and(|site| !matches!(site, "same-origin" | "none")) && !start {
            return Err(FOREIGN_PAGE);
        }
        // What everybody may have.
        if request.uri().path().starts_with("/assets/") || request.uri().path() == "/favicon.ico" {
            return Ok(());
        }
        if authorized(headers).is_some_and(|token| self.is_token(&token)) {
            return Ok(());
        }
        let name = self.cookie();
        if !cookies(headers).any(|(key, value)| key == name && self.is_token(value)) {
            return Err(NO_TOKEN);
        }
        let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
        if changes && origin.is_none() { Err(FOREIGN_PAGE) } else { Ok(()) }
    }

    /// Whether `Host` names this machine by an address, or as localhost: nobody else can have those resolve to it.
    fn is_own(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        match name.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback() || !self.address.ip().is_loopback(),
            Err(_) => name == "localhost",
        }
    }

    /// The answer to the address with the token: the cookie, and a page that goes on to the start. A redirection would be without the
    /// cookie where the address was opened by a link.
    fn enter(&self) -> Response {
        let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age=31536000", self.cookie(), self.token);
        let page = html! { (DOCTYPE) html lang="en" { head {
            meta http-equiv="refresh" content="0;url=/";
            link rel="icon" href="data:,";
            title { "Studio" }
        } body { a href="/" { "Open the studio" } } } };
        ([(header::SET_COOKIE, cookie)], Html(page.into_string())).into_response()
    }
}

/// Lets a request through, or refuses it; gives all answers what browsers should know.
pub(crate) async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let enters = request.uri().path() == "/"
        && query(&request, "token").is_some_and(|token| access.is_token(token))
        && access.is_own(text(request.headers(), &header::HOST).unwrap_or_default());
    let for_programs = ["/sdapi/", "/api/"].iter().any(|start| request.uri().path().starts_with(start));
    let mut response = if enters && request.method() == Method::GET {
        access.enter()
    } else {
        match access.check(&request) {
            Ok(()) => next.run(request).await,
            Err(Refusal(status, why)) if for_programs => (status, Json(json!({ "detail": why }))).into_response(),
            Err(Refusal(status, why)) => (status, why).into_response(),
        }
    };
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // A form's Origin would be "null" with no-referrer.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn query<'a>(request: &'a Request, key: &str) -> Option<&'a str> {
    let pairs = request.uri().query()?.split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key).map(|(_, value)| value)
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

/// What a program gives as its token: a bearer's, or the password of HTTP Basic, whatever the user.
fn authorized(headers: &HeaderMap) -> Option<String> {
    let (scheme, given) = text(headers, &header::AUTHORIZATION)?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(given.trim().to_owned());
    }
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(given.trim()).ok())??;
    let (_, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(password.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use axum::body::Body;

    use super::*;

    fn access(address: &str) -> (tempfile::TempDir, Access) {
        let folder = tempfile::tempdir().unwrap();
        let access = Access::open(&folder.path().join("token"), address.parse().unwrap()).unwrap();
        (folder, access)
    }

    #[test]
    fn a_token_is_kept_and_nobody_elses() {
        let (folder, access) = access("127.0.0.1:1");
        let file = folder.path().join("token");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Access::open(&file, access.address).unwrap().token, access.token);
        fs::remove_file(&file).unwrap();
        assert_ne!(Access::open(&file, access.address).unwrap().token, access.token);
    }

    /// Asks with the cookie, unless another authorization is given.
    fn asked(access: &Access, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| matches!(*name, "Authorization" | "Cookie")) {
            request = request.header("Cookie", format!("other=1; {}={}", access.cookie(), access.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        access.check(&request.body(Body::empty()).unwrap())
    }

    #[test]
    fn only_its_own_pages_and_programs_with_the_token_are_let_in() {
        let (_folder, access) = access("127.0.0.1:7860");
        let host = ("Host", "127.0.0.1:7860");
        let own = ("Origin", "http://127.0.0.1:7860");
        let allowed = |method: &str, headers: &[(&str, &str)]| asked(&access, method, "/runs", headers);
        assert_eq!(allowed("GET", &[host]), Ok(()));
        assert_eq!(allowed("POST", &[host, own]), Ok(()));
        assert_eq!(allowed("POST", &[host, own, ("Sec-Fetch-Site", "same-origin")]), Ok(()));
        for name in ["localhost:7860", "[::1]:7860", "127.0.0.1"] {
            assert_eq!(allowed("GET", &[("Host", name)]), Ok(()), "{name}");
        }
        // DNS rebinding: the browser thinks that it talks to the hostile page's own host.
        for name in [
            "evil.example",
            "evil.example:7860",
            "127.0.0.1.evil.example:7860",
            "localhost.evil.example",
            "",
            "10.0.0.1",
        ] {
            let origin = format!("http://{name}");
            assert_eq!(allowed("GET", &[("Host", name)]), Err(FOREIGN_HOST), "{name}");
            assert_eq!(allowed("POST", &[("Host", name), ("Origin", &origin)]), Err(FOREIGN_HOST), "{name}");
        }
        // A page of another site, of another port, of a file, and one whose address only begins alike.
        let origins = [
            "https://evil.example",
            "http://127.0.0.1:9999",
            "http://localhost:7860",
            "null",
            "http://127.0.0.1:78601",
        ];
        for origin in origins {
            assert_eq!(allowed("POST", &[host, ("Origin", origin)]), Err(FOREIGN_PAGE), "{origin}");
            assert_eq!(allowed("GET", &[host, ("Origin", origin)]), Err(FOREIGN_PAGE), "{origin}");
        }
        for site in ["cross-site", "same-site"] {
            assert_eq!(
                allowed("GET", &[host, ("Sec-Fetch-Site", site)]),
                Err(FOREIGN_PAGE),
                "an image in a page of a {site}"
            );
        }
        assert_eq!(asked(&access, "GET", "/", &[host, ("Sec-Fetch-Site", "cross-site")]), Ok(()), "a link");
        assert_eq!(allowed("POST", &[host]), Err(FOREIGN_PAGE), "the cookie alone changes nothing");
    }

    #[test]
    fn a_token_is_a_cookie_or_a_password() {
        let (_folder, access) = access("127.0.0.1:7860");
        let host = ("Host", "127.0.0.1:7860");
        let wrong = "0".repeat(32);
        for cookie in ["", "studio-7860=", &format!("studio-7860={wrong}"), &format!("studio-1={}", access.token)] {
            assert_eq!(asked(&access, "GET", "/", &[host, ("Cookie", cookie)]), Err(NO_TOKEN), "{cookie}");
        }
        let basic = |token: &str| format!("Basic {}", BASE64_STANDARD.encode(format!("any:{token}")));
        for (given, result) in [
            (basic(&access.token), Ok(())),
            (format!("Bearer {}", access.token), Ok(())),
            (basic(&wrong), Err(NO_TOKEN)),
            (basic(""), Err(NO_TOKEN)),
            (format!("Bearer {wrong}"), Err(NO_TOKEN)),
            ("Basic ?".to_owned(), Err(NO_TOKEN)),
        ] {
            assert_eq!(
                asked(&access, "POST", "/sdapi/v1/txt2img", &[host, ("Authorization", &given)]),
                result,
                "{given}"
            );
            let hostile = [host, ("Authorization", given.as_str()), ("Origin", "https://evil.example")];
            assert_eq!(
                asked(&access, "POST", "/sdapi/v1/txt2img", &hostile),
                Err(FOREIGN_PAGE),
                "a browser knows the password"
            );
        }
        assert_eq!(asked(&access, "GET", "/assets/style.css", &[host, ("Cookie", "")]), Ok(()));
    }

    #[test]
    fn others_are_let_in_by_an_address_and_never_by_a_name() {
        let (_folder, access) = access("0.0.0.0:7860");
        assert_eq!(asked(&access, "GET", "/", &[("Host", "192.168.1.7:7860")]), Ok(()));
        assert_eq!(asked(&access, "GET", "/", &[("Host", "evil.example:7860")]), Err(FOREIGN_HOST));
        assert!(access.url().starts_with("http://127.0.0.1:7860/?token="));
    }
}
