//! Stores that are folders, as every machine has them. What speaks S3: tests/s3.rs.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::thread;

use lease::{Claim, Lease};
use remote::{Bounds, Leases, Store, fetch};

fn url(folder: &Path) -> String {
    format!("file://{}", folder.display())
}

#[test]
fn a_file_url_is_the_folder() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("of results");
    let store = Store::open(&url(&folder).replace(' ', "%20")).unwrap();
    assert_eq!(
        (store.list().unwrap(), store.look("x").unwrap(), store.read("x", 9).unwrap()),
        (Vec::new(), None, None)
    );
    let local = parent.path().join("local");
    // One that goes in parts, and one that does not.
    for (name, bytes) in [("a/real pictures/1.png", vec![7; 20]), ("b", (0..20_000_000_u32).map(|i| i as u8).collect())]
    {
        fs::write(&local, &bytes).unwrap();
        store.upload(&local, name).unwrap();
        assert!(fs::read(folder.join(name)).unwrap() == bytes);
        let back = parent.path().join("back");
        store.download(name, &back, 20_000_000).unwrap();
        assert!(fs::read(&back).unwrap() == bytes);
    }
    let names: Vec<(String, u64)> = store.list().unwrap().into_iter().map(|o| (o.name, o.size)).collect();
    assert_eq!(names, [("a/real pictures/1.png".to_owned(), 20), ("b".to_owned(), 20_000_000)]);
    assert_eq!(store.within("a").unwrap().list().unwrap()[0].name, "real pictures/1.png");
    assert!(store.read("b", 9).unwrap_err().chain().any(|error| error.to_string().contains("has 20000000 bytes")));
    assert!(store.download("b", &local, 9).is_err());
    for name in ["../x", "a/../../x", "a//b", "."] {
        assert!(store.replace(name, b"").is_err(), "{name}");
    }
    store.remove("b").unwrap();
    store.remove("b").unwrap();
    assert!(!folder.join("b").exists());
}

#[test]
fn one_of_several_creates_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&url(folder.path())).unwrap();
    assert!(store.creates_conditionally().unwrap());
    let created: usize = thread::scope(|scope| {
        let create = |i: u8| {
            let store = store.clone();
            scope.spawn(move || store.create("done", &[i]).unwrap())
        };
        let all: Vec<_> = (0..8).map(create).collect();
        all.into_iter().map(|one| usize::from(one.join().unwrap())).sum()
    });
    assert_eq!(created, 1);
    // Whose answer was lost may ask again.
    let there = fs::read(folder.path().join("done")).unwrap();
    assert!(store.create("done", &there).unwrap() && !store.create("done", b"longer").unwrap());
    // Nothing of having tried it out stays.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn leases_are_those_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (store, brief) = (Store::open(&url(folder.path())).unwrap(), Leases::brief(&url(folder.path())).unwrap());
    let claim = || {
        let place = Leases::new(&store, &brief, ".leases/rex").unwrap();
        Lease::claim(Box::new(place), lease::EVERY, || {}).unwrap()
    };
    let ours = claim();
    assert!(matches!(&ours, Claim::Ours(_)));
    let in_folder = || Lease::of_folder(&folder.path().join(".leases/rex"), || {}).unwrap();
    assert!(matches!(claim(), Claim::Theirs { alive: true, .. }));
    assert!(matches!(in_folder(), Claim::Theirs { alive: true, .. }));
    drop(ours);
    let ours = in_folder();
    assert!(matches!(&ours, Claim::Ours(_)) && matches!(claim(), Claim::Theirs { .. }));
}

#[test]
fn a_full_or_closed_folder_is_named_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let store = Store::open(&url(&file)).unwrap();
    let error = format!("{:#}", store.upload(&file, "x").unwrap_err());
    assert!(error.starts_with("cannot upload ") && !error.contains('\n'), "{error}");
    let bounds = Bounds { files: 1, bytes: 1, endings: &[] };
    assert_eq!(fetch(&url(&file), folder.path(), &bounds, &mut |_, _| {}).unwrap(), file);
}

/// A server as there are everywhere: it gives one file, and no listing.
fn web_server(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let read = client.read(&mut head).unwrap_or(0);
            let line = String::from_utf8_lossy(&head[..read]).lines().next().unwrap_or_default().to_owned();
            let found = line.contains("/models/a.safetensors ");
            let (status, length) = if found { ("200 OK", bytes.len()) } else { ("404 Not Found", 0) };
            let _ = write!(client, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            if line.starts_with("GET") && found {
                let _ = client.write_all(bytes);
            }
        }
    });
    format!("http://{address}/models")
}

#[test]
fn a_plain_web_server_gives_single_files() {
    let cache = tempfile::tempdir().unwrap();
    let url = web_server(b"weights");
    let bounds = Bounds { files: 9, bytes: 7, endings: &["safetensors"] };
    let mut told = Vec::new();
    let mut get = |name: &str, bounds: &Bounds| {
        fetch(&format!("{url}/{name}"), cache.path(), bounds, &mut |files, bytes| told.push((files, bytes)))
    };
    let file = get("a.safetensors", &bounds).unwrap();
    assert_eq!(
        (file.file_name().unwrap().to_str(), fs::read(&file).unwrap()),
        (Some("a.safetensors"), b"weights".to_vec())
    );
    assert!(get("a.safetensors", &Bounds { bytes: 6, ..bounds }).unwrap_err().to_string().contains("more than the"));
    let error = format!("{:#}", get("folder", &bounds).unwrap_err());
    assert!(error.contains("folder") && !error.contains('\n'), "{error}");
    assert_eq!(told, [(1, 7)]);
}
