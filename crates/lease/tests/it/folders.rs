//! Leases as files.

use std::fs;
use std::time::Duration;

use lease::{Claim, Folder, Holder, Lease, Place};

fn holder(folder: &std::path::Path) -> Holder {
    Folder::new(folder).unwrap().last().unwrap().unwrap().holder
}

/// Somebody on another machine, as it would be read here.
fn elsewhere(folder: &std::path::Path, change: impl Fn(&mut Holder)) {
    let mut holder = holder(folder);
    (holder.host, holder.identity, holder.released) = ("elsewhere".to_owned(), None, false);
    change(&mut holder);
    Folder::new(folder).unwrap().replace(1, &holder).unwrap();
}

#[test]
fn a_lease_is_given_back_and_taken_over() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("cell");
    let claim = || Lease::of_folder(&folder, || panic!("lost")).unwrap();
    let ours = claim();
    assert!(matches!(&ours, Claim::Ours(_)));
    let Claim::Theirs { holder: told, alive: true } = claim() else { panic!() };
    assert_eq!((told.process, told.released), (std::process::id(), false));
    drop(ours);
    assert!(holder(&folder).released);

    // On another machine, it lives as long as it beats.
    elsewhere(&folder, |_| {});
    let Claim::Theirs { holder: told, alive: false } = claim() else { panic!() };
    assert!(told.to_string().ends_with("on elsewhere"));
    elsewhere(&folder, |holder| holder.every = 5);
    std::thread::sleep(Duration::from_millis(60));
    let ours = claim();
    assert!(matches!(&ours, Claim::Ours(_)));
    // The number goes up, and the lower one is gone.
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["lease-2.json"]);
}

#[test]
fn a_number_is_created_once() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("cell");
    drop(Lease::of_folder(&folder, || {}).unwrap());
    let place = Folder::new(&folder).unwrap();
    let holder = holder(&folder);
    assert!(!place.create(1, &holder).unwrap());
    assert!(place.create(2, &holder).unwrap() && !place.create(2, &holder).unwrap());
    assert_eq!(place.last().unwrap().unwrap().number, 2);
}

#[test]
fn what_is_no_lease_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("lease-1.json");
    fs::write(&file, "{}").unwrap();
    let error = format!("{:#}", Lease::of_folder(parent.path(), || {}).unwrap_err());
    assert!(error.contains("lease-1.json") && error.contains("lease"), "{error}");
    // One that is being written is somebody's.
    fs::write(&file, "").unwrap();
    assert!(matches!(Lease::of_folder(parent.path(), || {}).unwrap(), Claim::Theirs { alive: false, .. }));
    fs::remove_file(&file).unwrap();
    fs::write(parent.path().join("notes.txt"), "").unwrap();
    assert!(matches!(Lease::of_folder(parent.path(), || {}).unwrap(), Claim::Ours(_)));
}
