//! A process that is about to end gives back whatever it holds. A program of its own, for it would take the leases of other tests.
#![allow(clippy::unwrap_used)]

use lease::{Claim, Folder, Lease, Place, release_all};

#[test]
fn all_leases_of_a_process_are_given_back() {
    let parent = tempfile::tempdir().unwrap();
    let folders = ["one", "two"].map(|name| parent.path().join(name));
    let claim = |folder| Lease::of_folder(folder, || panic!("lost")).unwrap();
    let held = folders.each_ref().map(|folder| claim(folder));
    assert!(held.iter().all(|claim| matches!(claim, Claim::Ours(_))));
    release_all();
    for folder in &folders {
        assert!(Folder::new(folder).unwrap().last().unwrap().unwrap().holder.released);
        assert!(matches!(claim(folder), Claim::Ours(_)));
    }
    // What was given back is not given back again: somebody else may have it.
    let again = folders.each_ref().map(|folder| claim(folder));
    drop(held);
    assert!(folders.iter().all(|folder| !Folder::new(folder).unwrap().last().unwrap().unwrap().holder.released));
    drop(again);
}
