//! What a hostile page in another tab, or another machine, can do: nothing.

use std::fs;

use crate::client::Client;
use crate::stand_in::{Place, photo};

/// Everything that changes something, with a form that would do.
const CHANGES: [(&str, &str); 15] = [
    ("/runs", "photos=set&category=dog&model=some-model"),
    ("/plans", "photos=set&category=dog&model=some-model"),
    ("/plans/1/start", ""),
    ("/jobs/1/pause", ""),
    ("/jobs/1/stop", ""),
    ("/jobs/1/resume", ""),
    ("/jobs/1/advance", ""),
    ("/runs/dog/pause", ""),
    ("/runs/dog/resume", ""),
    ("/runs/dog/scores", ""),
    ("/runs/dog/exports/lora", ""),
    ("/runs/dog/attention", "prompt=x"),
    ("/generate", "source=model:some-model&prompt=x"),
    ("/delete", "target=photos:set"),
    ("/sdapi/v1/interrupt", ""),
];

#[test]
fn a_hostile_page_changes_nothing_and_reads_nothing() {
    let place = Place::new();
    let studio = place.open();
    let client = &studio.client;
    client.upload("set", &[("a.png", &photo(&place.path("a.png"), 0))]);
    let (host, cookie) = (client.host(), client.cookie());
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    for (path, body) in CHANGES {
        // A form or a fetch of another page: the browser may send the cookie, as another port is the same site.
        for origin in ["https://evil.example", "http://127.0.0.1:1", "http://localhost:1", "null", "file://"] {
            let headers = [("Host", host.as_str()), ("Cookie", &cookie), ("Origin", origin), form];
            assert_eq!(client.send("POST", path, &headers, body.as_bytes()).status, 403, "{path} from {origin}");
        }
        // DNS rebinding: the name of the hostile page leads here, and the page is of that name.
        let headers = [("Host", "evil.example:80"), ("Cookie", &cookie), ("Origin", "http://evil.example:80"), form];
        assert_eq!(client.send("POST", path, &headers, body.as_bytes()).status, 403, "{path} by another name");
        // The cookie without any origin, and an origin without the cookie.
        assert_eq!(
            client.send("POST", path, &[("Host", &host), ("Cookie", &cookie), form], body.as_bytes()).status,
            403,
            "{path}"
        );
        let origin = format!("http://{host}");
        assert_eq!(
            client.send("POST", path, &[("Host", &host), ("Origin", &origin), form], body.as_bytes()).status,
            401,
            "{path}"
        );
    }
    for path in ["/", "/gallery", "/events", "/teach", "/photos/set/first.jpg", "/sdapi/v1/options", "/openapi.json"] {
        assert_eq!(client.send("GET", path, &[("Host", &host)], b"").status, 401, "{path} without the token");
        let rebound = [("Host", "evil.example"), ("Cookie", cookie.as_str())];
        assert_eq!(client.send("GET", path, &rebound, b"").status, 403, "{path} by another name");
        if path != "/" {
            let embedded = [("Host", host.as_str()), ("Cookie", &cookie), ("Sec-Fetch-Site", "same-site")];
            assert_eq!(client.send("GET", path, &embedded, b"").status, 403, "{path} as an image of another port");
        }
    }
    assert_eq!(place.read("calls"), "", "nothing was started");
}

#[test]
fn the_address_with_the_token_gives_a_cookie_that_scripts_do_not_see() {
    let place = Place::new();
    let studio = place.open();
    let Client { token, .. } = studio.client.clone();
    let answer = studio.client.send("GET", &format!("/?token={token}"), &[("Host", &studio.client.host())], b"");
    let cookie = answer.header("set-cookie").unwrap();
    assert!(
        cookie.starts_with(&studio.client.cookie())
            && cookie.contains("HttpOnly")
            && cookie.contains("SameSite=Strict")
    );
    for (host, token) in [("evil.example", token.as_str()), (&studio.client.host(), "0"), (&studio.client.host(), "")] {
        let answer = studio.client.send("GET", &format!("/?token={token}"), &[("Host", host)], b"");
        assert!(answer.header("set-cookie").is_none() && answer.status >= 400, "{host} {token}");
    }
    // A restarted studio has the same.
    drop(studio);
    assert_eq!(place.open().client.token, token);
}

#[test]
fn pages_allow_no_script_within_and_no_other_place() {
    let place = Place::new();
    let studio = place.open();
    for path in ["/", "/teach", "/generate", "/gallery", "/compare", "/no-such-page"] {
        let answer = studio.client.get(path);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'") && policy.contains("form-action 'self'"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let text = answer.text();
        let inline = text.split("<script").skip(1).any(|script| !script.starts_with(" src=\"/assets/"));
        assert!(!inline && !text.contains(" style=") && !text.contains(" onclick="), "{path}");
    }
}

#[test]
fn no_path_of_the_file_system_is_taken() {
    let place = Place::new();
    let studio = place.open();
    fs::write(place.path("secret.png"), "secret").unwrap();
    fs::create_dir_all(place.path("runs/dog/attend")).unwrap();
    fs::copy(place.path("config.json"), place.path("runs/dog/config.json")).unwrap();
    std::os::unix::fs::symlink(place.path("secret.png"), place.path("runs/dog/attend/link.png")).unwrap();
    for path in [
        "/runs/..%2F..%2Fsecret",
        "/runs/dog/attention/link.png",
        "/runs/dog/attention/..%2F..%2Fsecret.png",
        "/runs/dog/samples/%2Fetc%2Fpasswd",
        "/runs/dog/exports/..%2F..%2Ftoken",
        "/runs/.studio/report",
        "/photos/..%2F..%2F/first.jpg",
        "/photos/..%2Ftoken/thumbnails/x",
        "/images/run%3Adog/..%2Fconfig.json",
        "/images/run%3A..%2F..%2Fx/a.png",
        "/images/file%3A%2Fetc/passwd",
        "/gallery?source=run%3A..%2F..",
        "/teach?photos=..%2F..",
        "/plans/0",
    ] {
        let answer = studio.client.get(path);
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.status);
        assert!(!answer.text().contains("secret\n") && !answer.text().contains("root:"), "{path}");
    }
    for (path, form) in [
        ("/runs", [("photos", "../../x"), ("category", "dog"), ("model", "some-model")]),
        ("/runs", [("photos", "/etc"), ("category", "dog"), ("model", "some-model")]),
        ("/runs", [("photos", "x"), ("category", "dog"), ("model", "/etc/passwd")]),
        ("/generate", [("source", "model:/etc/passwd"), ("prompt", "x"), ("seed", "1")]),
        ("/generate", [("source", "model:some-model"), ("prompt", "x"), ("lora", "/etc/passwd")]),
        ("/generate", [("source", "model:some-model"), ("prompt", "x"), ("scheduler", "--out=/tmp/x")]),
    ] {
        let answer = studio.client.post(path, &form);
        assert_eq!(answer.status, 422, "{form:?}: {}", answer.text());
    }
    let set = studio.client.upload("set", &[("a.png", &photo(&place.path("a.png"), 0))]);
    assert_eq!(set.status, 303);
    for value in ["concept=/etc", "model=/etc", "validation.results=/etc/passwd", "init_from=x", "phases.unet.steps"] {
        let form = [("photos", "set"), ("category", "dog"), ("model", "some-model"), ("set", value)];
        assert_eq!(studio.client.post("/runs", &form).status, 422, "{value}");
    }
    assert_eq!(place.read("calls"), "", "nothing was started");
}
