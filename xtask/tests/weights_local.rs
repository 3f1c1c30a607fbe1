//! `xtask weights` and what is, or goes wrong, on this machine: folders, caches, disks and arguments.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;

use common::{CONFIG, Place, Server, WEIGHTS, assert_complete, at, good, refused, succeeded, weights};

#[test]
fn verify_sees_every_change() {
    let server = Server::start(good);
    let place = Place::new(&[at(&server)]);
    succeeded(&place.run(&["fetch", "tiny"]));
    fs::write(place.model("config.json"), "{\"layers\": 3}\n").unwrap();
    let said = refused(&place.run(&["verify", "tiny"]));
    assert!(said.contains("tiny/config.json") && !said.contains("safetensors"), "{said}");
    fs::write(place.model(WEIGHTS), &weights()[..1000]).unwrap();
    assert!(refused(&place.run(&["verify", "tiny"])).contains("tiny/unet/model.safetensors"));
    fs::remove_file(place.model(WEIGHTS)).unwrap();
    assert!(refused(&place.run(&["verify", "tiny"])).contains("tiny/unet/model.safetensors"));
    succeeded(&place.run(&["fetch", "tiny"]));
    assert_complete(&place);
    succeeded(&place.run(&["verify", "tiny"]));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let server = Server::start(good);
    let place = Place::new(&[at(&server)]);
    fs::write(place.path("models"), "a file where the folder should be").unwrap();
    let said = refused(&place.run(&["fetch", "tiny"]));
    assert!(said.contains("models/tiny cannot be created"), "{said}");
    assert_eq!(server.paths().len(), 0);
}

#[test]
fn a_full_disk_stops_the_fetch() {
    assert!(std::path::Path::new("/dev/full").exists(), "every Linux has a device that is always full");
    let second = Server::start(good);
    let server = Server::start(good);
    let place = Place::new(&[at(&server), at(&second)]);
    fs::create_dir_all(place.model("unet")).unwrap();
    std::os::unix::fs::symlink("/dev/full", place.model("unet/model.safetensors.partial")).unwrap();
    let said = refused(&place.run(&["fetch", "tiny", "--jobs", "1"]));
    assert!(said.contains("model.safetensors.partial cannot be written: No space left"), "{said}");
    assert!(!place.model(WEIGHTS).exists());
    assert_eq!(second.paths().len(), 0, "no source can help against a full disk");
}

#[test]
fn offline_nothing_is_asked_of_the_network() {
    let server = Server::start(good);
    let place = Place::new(&["hub:someone/tiny".to_owned()]);
    let offline = |place: &Place| {
        let mut command = place.command(&["fetch", "tiny"]);
        command.env("HF_ENDPOINT", &server.address).env("HF_HUB_OFFLINE", "1").output().unwrap()
    };
    let said = refused(&offline(&place));
    assert!(said.contains("HF_HUB_OFFLINE"), "{said}");
    // With the cache filled, as huggingface_hub lays it out, it works.
    let cache = place.path("hf/hub/models--someone--tiny");
    place.put(&cache.join("refs/main"), b"abc123");
    place.put(&cache.join("blobs/one"), &weights());
    place.put(&cache.join("snapshots/abc123/config.json"), CONFIG);
    fs::create_dir_all(cache.join("snapshots/abc123/unet")).unwrap();
    std::os::unix::fs::symlink("../../../blobs/one", cache.join("snapshots/abc123").join(WEIGHTS)).unwrap();
    succeeded(&offline(&place));
    assert_complete(&place);
    assert_eq!(server.paths().len(), 0);
    assert!(!fs::symlink_metadata(place.model(WEIGHTS)).unwrap().is_symlink(), "it must outlive the cache");
}

#[test]
fn the_cache_is_used_only_where_it_is_right() {
    let server = Server::start(good);
    let place = Place::new(&["hub:someone/tiny".to_owned()]);
    let cache = place.path("cache/models--someone--tiny");
    place.put(&cache.join("refs/main"), b"new");
    place.put(&cache.join("snapshots/new").join(WEIGHTS), &[0; 1_200_000]);
    // An older revision's weights have the right hash; its config, of unknown hash, is not trusted.
    place.put(&cache.join("snapshots/old").join(WEIGHTS), &weights());
    place.put(&cache.join("snapshots/old/config.json"), b"{\"layers\": 99}");
    let mut command = place.command(&["fetch", "tiny"]);
    succeeded(&command.env("HF_ENDPOINT", &server.address).env("HF_HUB_CACHE", place.path("cache")).output().unwrap());
    assert_complete(&place);
    assert_eq!(server.paths(), ["/someone/tiny/resolve/main/config.json"]);
}

#[test]
fn a_local_folder_is_used_where_it_is_right() {
    let server = Server::start(good);
    let place = Place::new(&[at(&server)]);
    place.put(&place.path("mine").join(WEIGHTS), &weights());
    let fetch = ["fetch", "tiny", "--from", "mine"];
    let said = succeeded(&place.run(&fetch));
    assert_complete(&place);
    assert_eq!(server.paths(), ["/config.json"], "{said}");
    fs::remove_dir_all(place.path("models")).unwrap();
    place.put(&place.path("mine").join(WEIGHTS), &[1; 1_200_000]);
    let said = succeeded(&place.run(&fetch));
    assert_complete(&place);
    assert!(said.contains("mine/unet/model.safetensors has sha256"), "{said}");
    assert!(refused(&place.run(&["fetch", "tiny", "--from", "nowhere"])).contains("nowhere, which is not a folder"));
}

#[test]
fn files_put_there_by_hand_are_checked_and_kept() {
    let server = Server::start(good);
    let place = Place::new(&[at(&server)]);
    place.put(&place.model(WEIGHTS), &weights());
    place.put(&place.model("config.json"), b"{\"my\": \"own\"}");
    succeeded(&place.run(&["fetch", "tiny"]));
    assert_eq!(server.paths().len(), 0);
    succeeded(&place.run(&["verify", "tiny"]));
}

#[test]
fn one_fetch_at_a_time_writes_a_file() {
    let server = Server::start(good);
    let place = Place::new(&[at(&server)]);
    let partial = place.model("unet/model.safetensors.partial");
    place.put(&partial, b"");
    let other = fs::File::open(&partial).unwrap();
    other.lock().unwrap();
    let said = refused(&place.run(&["fetch", "tiny", "--jobs", "1"]));
    assert!(said.contains("another download is writing"), "{said}");
    drop(other);
    succeeded(&place.run(&["fetch", "tiny"]));
}

#[test]
fn wrong_arguments_are_one_sentence() {
    let place = Place::new(&["hub:someone/tiny".to_owned()]);
    assert!(refused(&place.run(&["fetch", "huge"])).contains("there is no model \"huge\" (there are tiny, "));
    assert!(refused(&place.run(&["verify"])).contains("no model is in"));
    assert!(refused(&place.run(&["verify", "tiny"])).contains("download it first"));
    let mut command = place.command(&["fetch", "tiny"]);
    let said = refused(&command.env("HF_ENDPOINT", "hub.example").output().unwrap());
    assert!(said.contains("HF_ENDPOINT is \"hub.example\""), "{said}");
    place.put(&place.model("weights-lock.json"), b"{");
    assert!(refused(&place.run(&["fetch", "tiny"])).contains("weights-lock.json is damaged"));
    fs::write(place.path("manifest.json"), "{}").unwrap();
    assert!(refused(&place.run(&["list"])).contains("is not a list of models"));
}
