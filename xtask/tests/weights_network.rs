//! `xtask weights fetch` from real HTTP servers on loopback, good and bad.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::{
    CONFIG, Place, Response, Server, WEIGHTS, assert_complete, at, good, is_weights, refused, succeeded, weights,
};

#[test]
fn a_model_is_fetched_once_and_verified() {
    let server = Server::start(good);
    let place = Place::new(&["hub:someone/tiny@refs/pr/1".to_owned()]);
    let fetch = || place.command(&["fetch", "tiny"]).env("HF_ENDPOINT", &server.address).output().unwrap();
    let said = succeeded(&fetch());
    assert!(said.contains("MIT (http://127.0.0.1/licence)"), "{said}");
    assert!(said.contains("sha256 ") && said.contains(" recorded"), "{said}");
    assert_complete(&place);
    let mut paths = server.paths();
    paths.sort();
    let base = "/someone/tiny/resolve/refs%2Fpr%2F1";
    assert_eq!(paths, [format!("{base}/config.json"), format!("{base}/unet/model.safetensors")]);
    assert_eq!(server.header("authorization"), [None, None]);

    succeeded(&fetch());
    assert_eq!(server.paths().len(), 2, "nothing is asked for twice");
    let said = succeeded(&place.run(&["verify"]));
    assert!(said.contains("model.safetensors: right, as published"), "{said}");
    assert!(said.contains("config.json: unchanged since it was downloaded"), "{said}");
    let said = succeeded(&place.run(&["list"]));
    assert!(said.contains("tiny") && said.contains("1.2 MB") && said.contains("MIT"), "{said}");
}

#[test]
fn a_cut_connection_is_resumed() {
    let server = Server::start(|request| match request.number {
        // Twice, so that the second continuation starts where the first ended.
        0 | 1 if is_weights(request) => good(request).cut(500_000),
        _ => good(request),
    });
    let place = Place::new(&[at(&server)]);
    succeeded(&place.run(&["fetch", "tiny", "--jobs", "1"]));
    assert_complete(&place);
    let ranges = server.header("range");
    assert_eq!(ranges[..3], [None, Some("bytes=500000-".to_owned()), Some("bytes=1000000-".to_owned())]);
}

#[test]
fn a_killed_fetch_is_resumed_by_the_next() {
    let pause = Arc::new((Mutex::new(false), Condvar::new()));
    let server = Server::start({
        let pause = Arc::clone(&pause);
        move |request| {
            if is_weights(request) && request.number == 0 {
                return good(request).cut(700_000);
            }
            if is_weights(request) && request.number == 1 {
                // The client waits here when it is killed.
                let (killed, told) = &*pause;
                drop(told.wait_while(killed.lock().unwrap(), |killed| !*killed).unwrap());
            }
            good(request)
        }
    });
    let place = Place::new(&[at(&server)]);
    let mut child = place.command(&["fetch", "tiny", "--jobs", "1"]).stderr(Stdio::null()).spawn().unwrap();
    while server.paths().len() < 2 {
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    *pause.0.lock().unwrap() = true;
    pause.1.notify_all();
    assert!(!place.model(WEIGHTS).exists());
    succeeded(&place.run(&["fetch", "tiny", "--jobs", "1"]));
    assert_complete(&place);
    assert_eq!(server.header("range")[2], Some("bytes=700000-".to_owned()));
}

#[test]
fn a_server_without_ranges_is_read_from_the_start() {
    let server = Server::start(|request| {
        let whole = if is_weights(request) { Response::whole(&weights()) } else { Response::whole(CONFIG) };
        if request.number == 0 { whole.cut(400_000) } else { whole }
    });
    let place = Place::new(&[at(&server)]);
    succeeded(&place.run(&["fetch", "tiny", "--jobs", "1"]));
    assert_complete(&place);
}

#[test]
fn a_redirected_request_keeps_its_range_and_loses_its_token() {
    let storage = Server::start_at("127.0.0.2", good);
    let hub = Server::start({
        let storage = storage.address.clone();
        move |request| Response::status(302).header("Location", format!("{storage}{}", request.path))
    });
    let place = Place::new(&["hub:someone/tiny".to_owned()]);
    place.put(&place.model("unet/model.safetensors.partial"), &weights()[..123_456]);
    let mut command = place.command(&["fetch", "tiny", "--jobs", "1"]);
    succeeded(&command.env("HF_ENDPOINT", &hub.address).env("HF_TOKEN", "secret").output().unwrap());
    assert_complete(&place);
    assert_eq!(hub.header("authorization")[0].as_deref(), Some("Bearer secret"));
    assert_eq!(storage.header("range")[0].as_deref(), Some("bytes=123456-"));
    assert_eq!(storage.header("authorization"), [None, None]);
}

#[test]
fn a_wrong_hash_never_gets_the_name() {
    let mut other = weights();
    other[1_100_000] ^= 1;
    let bad = Server::start(move |request| if is_weights(request) { Response::whole(&other) } else { good(request) });
    let place = Place::new(&[at(&bad)]);
    let said = refused(&place.run(&["fetch", "tiny"]));
    assert!(said.contains(WEIGHTS) && said.contains("sha256") && said.contains(&bad.address), "{said}");
    assert!(!place.model(WEIGHTS).exists());
    place.assert_nothing_unfinished();

    let right = Server::start(good);
    let place = Place::new(&[at(&bad), at(&right)]);
    let said = succeeded(&place.run(&["fetch", "tiny"]));
    assert_complete(&place);
    assert!(said.contains("note: ") && said.contains(&bad.address), "{said}");
}

#[test]
fn a_damaged_part_is_not_blamed_on_the_source() {
    let server = Server::start(good);
    let place = Place::new(&[at(&server)]);
    place.put(&place.model("unet/model.safetensors.partial"), &[7; 5000]);
    succeeded(&place.run(&["fetch", "tiny", "--jobs", "1"]));
    assert_complete(&place);
    assert_eq!(server.header("range")[..2], [Some("bytes=5000-".to_owned()), None]);
    // One that is longer than the file, too.
    let place = Place::new(&[at(&server)]);
    place.put(&place.model("unet/model.safetensors.partial"), &[7; 2_000_000]);
    succeeded(&place.run(&["fetch", "tiny"]));
    assert_complete(&place);
}

#[test]
fn the_next_source_is_asked_after_404_500_and_silence() {
    let missing = Server::start(|_| Response::status(404));
    let broken = Server::start(|_| Response::status(503));
    let deaf = "http://127.0.0.1:9/{path}".to_owned();
    let server = Server::start(good);
    let place = Place::new(&[at(&missing), at(&broken), deaf.clone(), at(&server)]);
    let said = succeeded(&place.run(&["fetch", "tiny"]));
    assert_complete(&place);
    let note = said.lines().find(|line| line.starts_with("note: ")).unwrap();
    assert!(
        note.contains(WEIGHTS) && note.contains("config.json"),
        "files with the same failures are told together: {note}"
    );
    assert!(note.contains("HTTP 404") && note.contains("HTTP 503") && note.contains("127.0.0.1:9"), "{note}");

    let place = Place::new(&[at(&missing), at(&broken), deaf]);
    let said = refused(&place.run(&["fetch", "tiny"]));
    assert!(said.contains("2 of 2 files of tiny could not be downloaded") && said.contains("HTTP 404"), "{said}");
    place.assert_nothing_unfinished();
}

/// Whatever a source answers, it is asked a few times and no more.
#[test]
fn a_source_that_never_gives_the_file_is_left() {
    let asked = |files: &str, answer: fn(&common::Request) -> Response| {
        let server = Server::start(answer);
        let place = Place::with_files(&[at(&server)], files);
        let said = refused(&place.run(&["fetch", "tiny"]));
        (server.paths().len(), said)
    };
    let config = r#"{"path": "config.json"}"#;
    // Announces more than it sends, and has no more when it is asked for the rest.
    let (times, said) = asked(config, |request| match request.start() {
        None => Response::whole(CONFIG).header("ETag", "\"one\"").announcing(1000),
        Some(_) => Response::status(416),
    });
    assert!(times == 5 && said.contains("after 5 tries"), "{times}: {said}");
    // Another part than was asked for.
    let (times, said) = asked(config, |request| match request.start() {
        None => Response::whole(CONFIG).header("ETag", "\"one\"").announcing(1000),
        Some(_) => Response { status: 206, ..Response::whole(CONFIG) }.header("Content-Range", "bytes 0-13/14"),
    });
    assert!(times == 5 && said.contains("after 5 tries"), "{times}: {said}");
    // Busy or broken, which may pass; and gone, which does not.
    for (status, expected) in [(408, 5), (429, 5), (500, 5), (503, 5), (404, 1), (400, 1), (410, 1), (401, 1)] {
        let server = Server::start(move |_| Response::status(status));
        let place = Place::with_files(&[at(&server)], config);
        let said = refused(&place.run(&["fetch", "tiny"]));
        assert!(said.contains(&format!("HTTP {status}")), "{said}");
        assert_eq!(server.paths().len(), expected, "{status}");
    }
    // A byte at a time.
    let weights_only = format!(r#"{{"path": "{WEIGHTS}", "size": 1200000, "sha256": "{}"}}"#, common::WEIGHTS_SHA256);
    let server = Server::start(|request| good(request).cut(1));
    let place = Place::with_files(&[at(&server)], &weights_only);
    let said = refused(&place.run(&["fetch", "tiny"]));
    assert!(server.paths().len() == 5 && said.contains("after 5 tries"), "{said}");
    assert_eq!(fs::read(place.model("unet/model.safetensors.partial")).unwrap(), weights()[..5], "what came is kept");
}

#[test]
fn a_source_that_sends_without_an_end_is_stopped() {
    let endless = Server::start(|_| Response::whole(&vec![b' '; 1 << 20]).announcing(0));
    let place = Place::with_files(&[at(&endless)], r#"{"path": "config.json"}"#);
    let said = refused(&place.run(&["fetch", "tiny"]));
    assert!(said.contains("sends more than the 67.1 MB that the file may have"), "{said}");
    place.assert_nothing_unfinished();
    assert_eq!(endless.paths().len(), 1);
    let place = Place::new(&[at(&endless)]);
    let said = refused(&place.run(&["fetch", "tiny"]));
    assert!(said.contains("sends more than the 1.2 MB that the file may have"), "{said}");
    // Announced, it is not even begun.
    let large = Server::start(|_| Response::whole(CONFIG).announcing(1 << 40));
    let place = Place::with_files(&[at(&large)], r#"{"path": "config.json"}"#);
    assert!(refused(&place.run(&["fetch", "tiny"])).contains("sends more than the 67.1 MB"));
    assert_eq!(large.paths().len(), 1);
}

#[test]
fn a_busy_source_is_asked_again_and_gives_the_file() {
    let server = Server::start(|request| match request.number {
        0 => Response::status(503).header("Retry-After", "0"),
        1 => Response::status(429),
        _ => good(request),
    });
    let place = Place::new(&[at(&server)]);
    succeeded(&place.run(&["fetch", "tiny", "--jobs", "1"]));
    assert_complete(&place);
}

#[test]
fn a_source_that_wants_a_login_is_told_of_hf_token() {
    let strict = Server::start(|request| {
        let right = request.headers.get("authorization").is_some_and(|given| given == "Bearer right");
        if right { good(request) } else { Response::status(401) }
    });
    let other = Server::start(|_| Response::status(404));
    let sources = ["hub:someone/tiny".to_owned(), at(&other)];
    let with_token = |place: &Place, token: &str| {
        let mut command = place.command(&["fetch", "tiny"]);
        command.env("HF_ENDPOINT", &strict.address).env("HF_TOKEN", token).output().unwrap()
    };
    let place = Place::new(&sources);
    let said = refused(&with_token(&place, ""));
    assert!(said.contains("HTTP 401") && said.contains("set HF_TOKEN"), "{said}");
    let said = refused(&with_token(&place, "wrong"));
    assert!(said.contains("your HF_TOKEN gives no access"), "{said}");
    assert!(!said.contains("wrong"), "a token is never shown: {said}");
    assert!(other.header("authorization").iter().all(Option::is_none), "the token is for the hub alone");
    succeeded(&with_token(&place, "right"));
    assert_complete(&place);
}

#[test]
fn another_size_is_refused_before_it_is_fetched() {
    let server = Server::start(|request| if is_weights(request) { Response::whole(&[0; 77]) } else { good(request) });
    let place = Place::new(&[at(&server)]);
    let said = refused(&place.run(&["fetch", "tiny"]));
    assert!(said.contains("offers a file of 77 bytes, not 1200000"), "{said}");
    place.assert_nothing_unfinished();
}

#[test]
fn a_page_under_the_name_of_a_config_is_refused() {
    let server =
        Server::start(
            |request| {
                if is_weights(request) { good(request) } else { Response::whole(b"<html>Please log in</html>") }
            },
        );
    let place = Place::new(&[at(&server)]);
    let said = refused(&place.run(&["fetch", "tiny"]));
    assert!(said.contains("config.json") && said.contains("is not JSON"), "{said}");
    assert!(!place.model("config.json").exists());
    assert!(place.model(WEIGHTS).exists(), "what came is kept");
}

#[test]
fn without_a_hash_only_the_same_version_is_continued() {
    let old = vec![b'1'; 400_000];
    let new = vec![b'2'; 400_000];
    let server = Server::start({
        let (old, new) = (old.clone(), new.clone());
        move |request| match request.number {
            0 => Response::whole(&old).header("ETag", "\"old\"").cut(150_000),
            // Changed meanwhile: If-Range does not hold, so all of the new file is sent.
            1 => Response::whole(&new).header("ETag", "\"new\"").cut(100_000),
            _ => Response::part(request, &new).header("ETag", "\"new\""),
        }
    });
    let place = Place::with_files(&[at(&server)], r#"{"path": "merges.txt"}"#);
    succeeded(&place.run(&["fetch", "tiny"]));
    assert_eq!(fs::read(place.model("merges.txt")).unwrap(), new);
    assert_eq!(server.header("if-range"), [None, Some("\"old\"".to_owned()), Some("\"new\"".to_owned())]);
    place.assert_nothing_unfinished();
    // A part of unknown version is not continued at all.
    let place = Place::with_files(&[at(&server)], r#"{"path": "merges.txt"}"#);
    place.put(&place.model("merges.txt.partial"), &old[..1000]);
    succeeded(&place.run(&["fetch", "tiny"]));
    assert_eq!(fs::read(place.model("merges.txt")).unwrap(), new);
    assert_eq!(server.header("range").last().unwrap(), &None);
}

#[test]
fn several_files_are_fetched_at_a_time() {
    let both = Arc::new((Mutex::new(0), Condvar::new()));
    let server = Server::start(move |request| {
        let (arrived, told) = &*both;
        let mut count = arrived.lock().unwrap();
        *count += 1;
        told.notify_all();
        let (_count, late) = told.wait_timeout_while(count, Duration::from_secs(30), |count| *count < 2).unwrap();
        if late.timed_out() { Response::status(500) } else { good(request) }
    });
    let place = Place::new(&[at(&server)]);
    succeeded(&place.run(&["fetch", "tiny", "--jobs", "2"]));
    assert_complete(&place);
}

/// A repository as the hub's API lists it.
#[test]
fn a_repository_of_the_hub_is_fetched_by_its_commit_and_hashes() {
    let sha256 = common::WEIGHTS_SHA256;
    let listing = format!(
        r#"{{"sha": "c0ffee", "cardData": {{"license": "mit"}}, "siblings": [
            {{"rfilename": "README.md", "size": 10}}, {{"rfilename": "config.json", "size": {}}},
            {{"rfilename": "model.safetensors", "size": 1200000, "lfs": {{"sha256": "{sha256}"}}}},
            {{"rfilename": "pytorch_model.bin", "size": 10, "lfs": {{"sha256": "{sha256}"}}}}]}}"#,
        CONFIG.len()
    );
    let server = Server::start(move |request| match request.path.starts_with("/api/") {
        true => Response::whole(listing.as_bytes()),
        false => good(request),
    });
    let place = Place::new(&["hub:someone/tiny".to_owned()]);
    let run = |args: &[&str]| place.command(args).env("HF_ENDPOINT", &server.address).output().unwrap();
    let said = succeeded(&run(&["fetch", "someone/other@v1", "--jobs", "1"]));
    assert!(said.contains("someone/other: mit (http"), "{said}");
    let folder = place.path("models/someone--other@v1");
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), weights());
    assert_eq!(fs::read(folder.join("config.json")).unwrap(), CONFIG);
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors", "weights-lock.json"]);
    let base = "/someone/other/resolve/c0ffee";
    let listed = "/api/models/someone/other/revision/v1?blobs=true".to_owned();
    assert_eq!(server.paths(), [listed, format!("{base}/model.safetensors"), format!("{base}/config.json")]);
    succeeded(&place.run(&["verify", "someone/other@v1"]));
    let said = refused(&place.command(&["fetch", "a/b"]).env("HF_HUB_OFFLINE", "1").output().unwrap());
    assert!(said.contains("a/b is not on this machine, and HF_HUB_OFFLINE forbids the network"), "{said}");
    let gone = Server::start(|_| Response::status(401));
    let said = refused(&place.command(&["fetch", "a/b"]).env("HF_ENDPOINT", &gone.address).output().unwrap());
    assert!(said.contains("does not give a/b: HTTP 401") && said.contains("set HF_TOKEN"), "{said}");
}
