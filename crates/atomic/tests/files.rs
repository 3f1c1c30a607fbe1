//! Files and folders are complete or absent, and nothing else is written over.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use atomic::{append, ensure_new, ensure_ours, new_file, new_folder, replace_file, replace_folder, write};

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_folder_is_whole_or_absent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("above/new");
    let failed = new_folder(&path, |new| {
        fs::write(new.join("half"), "")?;
        anyhow::bail!("stopped")
    });
    assert_eq!(format!("{:#}", failed.unwrap_err()), "stopped");
    assert_eq!(count(&folder.path().join("above")), 0);
    new_folder(&path, |new| write(&new.join("file"), "whole")).unwrap();
    assert_eq!(fs::read(path.join("file")).unwrap(), b"whole");
    let taken = new_folder(&path, |_| panic!("nothing is begun")).unwrap_err();
    assert!(format!("{taken:#}").starts_with(&format!("cannot write {}", path.display())));
    assert_eq!(fs::read(path.join("file")).unwrap(), b"whole");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    new_folder(&empty, |new| write(&new.join("file"), "whole")).unwrap();
    assert_eq!(count(&empty), 1);
}

#[test]
fn a_folder_is_replaced_at_one_stroke() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("above/folder");
    replace_folder(&path, |new| write(&new.join("1"), "old")).unwrap();
    let failed = replace_folder(&path, |new| {
        write(&new.join("2"), "new")?;
        anyhow::bail!("stopped")
    });
    assert_eq!(format!("{:#}", failed.unwrap_err()), "stopped");
    assert!(path.join("1").exists() && !path.join("2").exists());
    replace_folder(&path, |new| {
        assert!(path.join("1").exists(), "until the new one is complete");
        write(&new.join("2"), "new")
    })
    .unwrap();
    assert!(!path.join("1").exists() && path.join("2").exists());
    assert_eq!(count(&folder.path().join("above")), 1);
    replace_folder(&path.join("2"), |_| panic!("nothing is begun")).unwrap_err();
    assert_eq!(fs::read(path.join("2")).unwrap(), b"new");
}

#[test]
fn a_failure_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    write(&path, "old").unwrap();
    let failed = replace_file(&path, |file, _| {
        file.write_all(b"half of the ne")?;
        anyhow::bail!("stopped")
    });
    assert_eq!(format!("{:#}", failed.unwrap_err()), format!("cannot write {}: stopped", path.display()));
    assert_eq!(fs::read(&path).unwrap(), b"old");
    write(&path, "new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(count(folder.path()), 1);
}

#[test]
fn a_missing_folder_is_named() {
    let error = write(Path::new("/no/such/folder/file"), "").unwrap_err();
    assert!(format!("{error:#}").contains("/no/such/folder/file"));
}

#[test]
fn only_regular_files_are_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(&at("file"), "precious").unwrap();
    symlink("file", at("link")).unwrap();
    symlink("nothing", at("dangling")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    for (path, what) in [
        (at("link"), "a symbolic link"),
        (at("dangling"), "a symbolic link"),
        (at("folder"), "a folder"),
        (at("pipe"), "a named pipe"),
        (at("socket"), "a socket"),
        ("/dev/null".into(), "a device"),
    ] {
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        let says = format!("cannot write {}: it is {what}, ", path.display());
        for refused in [write(&path, ""), append(&path).map(drop), ensure_ours(&path, "", |_| panic!("not read"))] {
            assert!(format!("{:#}", refused.unwrap_err()).starts_with(&says), "{says}");
        }
        assert!(ensure_new(&path).is_err() && new_file(&path, |_, _| panic!("nothing is begun")).is_err());
        assert_eq!(fs::symlink_metadata(&path).unwrap().file_type(), kind);
    }
    assert_eq!(fs::read(at("file")).unwrap(), b"precious");
    assert!(!at("nothing").exists());
}

#[test]
fn a_new_file_replaces_nothing_not_even_what_comes_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let late = new_file(&path, |file, _| {
        fs::write(&path, "of another process")?;
        Ok(file.write_all(b"ours")?)
    });
    assert!(format!("{:#}", late.unwrap_err()).starts_with(&format!("cannot write {}", path.display())));
    let taken = new_file(&path, |_, _| panic!("nothing is begun")).unwrap_err();
    assert!(taken.to_string().ends_with("it exists already; remove it, or name another file"), "{taken}");
    assert_eq!(fs::read(&path).unwrap(), b"of another process");
    assert_eq!(count(folder.path()), 1);
    fs::remove_file(&path).unwrap();
    new_file(&path, |file, _| Ok(file.write_all(b"ours")?)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"ours");
}

#[test]
fn ours_is_replaced_and_others_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    let check = || ensure_ours(&path, "a page of ours", |path| fs::read(path).unwrap().starts_with(b"ours"));
    check().unwrap();
    write(&path, "ours, the first").unwrap();
    check().unwrap();
    write(&path, "another's").unwrap();
    let error = check().unwrap_err().to_string();
    assert!(
        error.ends_with("page.html: it exists and is not a page of ours; remove it, or name another file"),
        "{error}"
    );
}

#[test]
fn what_is_added_goes_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    for line in ["one\n", "two\n"] {
        append(&path).unwrap().write_all(line.as_bytes()).unwrap();
    }
    assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
}
