//! What speaks S3, by moto's server on the PATH or as MOTO_SERVER names it, behind a proxy that breaks things. Where there is none,
//! these tests are ignored, and with REQUIRE_MOTO=1 they fail.
#![allow(clippy::unwrap_used)]

mod moto;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use lease::{Claim, Lease};
use moto::{BUCKET, Fault, KEY, Moto, SECRET, Test};
use remote::{Bounds, Leases, Patience, Store, fetch};

const TESTS: [Test; 8] = [
    ("files_of_all_sizes_come_back_as_they_were", files_of_all_sizes_come_back_as_they_were),
    ("what_fails_for_the_moment_is_asked_again", what_fails_for_the_moment_is_asked_again),
    ("an_upload_that_is_given_up_leaves_nothing_there_and_all_here", an_upload_that_is_given_up_leaves_nothing_there),
    ("one_of_several_creates_a_file", one_of_several_creates_a_file),
    ("a_store_that_knows_no_condition_is_recognised", a_store_that_knows_no_condition_is_recognised),
    ("a_lease_is_one_workers_and_is_taken_over", a_lease_is_one_workers_and_is_taken_over),
    ("a_refusal_is_a_sentence_without_credentials", a_refusal_is_a_sentence_without_credentials),
    ("inputs_are_downloaded_once", inputs_are_downloaded_once),
];

/// Where the proxy of the process is that does the tests: it finds that in its environment, as programs find servers.
const PROXY: &str = "TEST_PROXY";

fn main() -> ExitCode {
    let program = moto::program();
    if let (Some(_), None) = (&program, env::var_os(PROXY)) {
        let address = moto::free();
        let mut tests = Command::new(env::current_exe().unwrap());
        tests.args(env::args_os().skip(1)).envs(Moto::environment(address)).env(PROXY, address.to_string());
        let status = tests.status().unwrap();
        return if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let address = env::var(PROXY).ok().map(|address| address.parse().unwrap());
    moto::run(program.map(|program| Moto::start(&program, address.unwrap())), &TESTS)
}

/// Gives up soon.
fn hasty(url: &str) -> Store {
    let patience = Patience { retries: 2, total: Duration::from_secs(5), answer: Duration::from_secs(5) };
    Store::open_with(url, patience).unwrap()
}

/// A file that goes in three parts.
fn large(folder: &Path) -> (PathBuf, Vec<u8>) {
    let bytes: Vec<u8> = (0..20_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let path = folder.join("large.safetensors");
    fs::write(&path, &bytes).unwrap();
    (path, bytes)
}

fn files_of_all_sizes_come_back_as_they_were(_: &Moto, url: &str, local: &Path) {
    let store = Store::open(url).unwrap();
    assert!(store.list().unwrap().is_empty());
    let (path, bytes) = large(local);
    store.upload(&path, "run/large.safetensors").unwrap();
    fs::write(local.join("empty"), "").unwrap();
    store.upload(&local.join("empty"), "real pictures/empty").unwrap();
    let names: Vec<(String, u64)> = store.list().unwrap().into_iter().map(|o| (o.name, o.size)).collect();
    assert_eq!(names, [("real pictures/empty".to_owned(), 0), ("run/large.safetensors".to_owned(), 20_000_000)]);
    store.download("run/large.safetensors", &local.join("back"), 20_000_000).unwrap();
    assert!(fs::read(local.join("back")).unwrap() == bytes);
    assert_eq!(store.read("real pictures/empty", 0).unwrap(), Some(Vec::new()));
    store.remove("real pictures/empty").unwrap();
    assert_eq!(store.look("real pictures/empty").unwrap(), None);
}

fn what_fails_for_the_moment_is_asked_again(server: &Moto, url: &str, local: &Path) {
    let store = Store::open(url).unwrap();
    let (path, bytes) = large(local);
    server.rule("POST", "uploads", Fault::Answer(503, "SlowDown"), 1);
    server.rule("PUT", "partNumber=2", Fault::CutRequest, 1);
    server.rule("PUT", "partNumber=3", Fault::Answer(503, "SlowDown"), 2);
    server.rule("POST", "uploadId", Fault::Answer(500, "InternalError"), 1);
    store.upload(&path, "large").unwrap();
    let lines = server.calm();
    let count = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
    assert_eq!((count("partNumber=1"), count("partNumber=2"), count("partNumber=3")), (1, 2, 3), "{lines:?}");
    // The second half comes from where the first has ended.
    server.rule("GET", "large", Fault::CutAnswer, 2);
    server.rule("GET", "large", Fault::Answer(503, "SlowDown"), 1);
    store.download("large", &local.join("back"), 1 << 30).unwrap();
    assert!(fs::read(local.join("back")).unwrap() == bytes);
    // The crate asks no more for a listing that has begun.
    server.rule("GET", "list-type", Fault::CutAnswer, 2);
    assert_eq!(store.list().unwrap().len(), 1);
    server.rule("HEAD", "large", Fault::LoseAnswer, 1);
    assert!(store.look("large").unwrap().is_some());
    server.rule("PUT", "small", Fault::LoseAnswer, 1);
    server.rule("PUT", "small", Fault::Answer(503, "SlowDown"), 3);
    store.replace("small", b"x").unwrap();
    assert_eq!(store.read("small", 9).unwrap().as_deref(), Some(&b"x"[..]));
}

fn an_upload_that_is_given_up_leaves_nothing_there(server: &Moto, url: &str, local: &Path) {
    let store = hasty(url);
    let (path, bytes) = large(local);
    for fault in [Fault::Answer(503, "SlowDown"), Fault::CutRequest, Fault::Answer(507, "XMinioStorageFull")] {
        server.rule("PUT", "partNumber=2", fault, usize::MAX);
        let error = format!("{:#}", store.upload(&path, "large").unwrap_err());
        server.calm();
        assert!(error.starts_with("cannot upload ") && error.contains(url) && !error.contains('\n'), "{error}");
        let said = match fault {
            Fault::Answer(503, _) => "HTTP 503, SlowDown",
            Fault::Answer(..) => "HTTP 507, XMinioStorageFull",
            _ => "the connection was cut",
        };
        assert!(error.ends_with(said), "{error}");
        assert_eq!(store.look("large").unwrap(), None);
        let open = server.raw("GET", &format!("/{BUCKET}?uploads"));
        assert!(open.contains("200 OK") && !open.contains("<UploadId>"), "{open}");
        assert!(fs::read(&path).unwrap() == bytes);
    }
}

fn one_of_several_creates_a_file(server: &Moto, url: &str, _: &Path) {
    let store = Store::open(url).unwrap();
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
    // It was done, but the answer was lost: whoever asks again has created it all the same.
    server.rule("PUT", "marker", Fault::LoseAnswer, 1);
    assert!(store.create("marker", b"ours").unwrap());
    assert!(!store.create("marker", b"theirs").unwrap());
    assert_eq!(store.read("marker", 9).unwrap().as_deref(), Some(&b"ours"[..]));
    // What tried it out is gone.
    let names: Vec<String> = store.list().unwrap().into_iter().map(|object| object.name).collect();
    assert_eq!(names, ["done", "marker"]);
}

fn a_store_that_knows_no_condition_is_recognised(server: &Moto, url: &str, _: &Path) {
    server.rule("PUT", "", Fault::DropCondition, usize::MAX);
    let store = Store::open(url).unwrap();
    assert!(!store.creates_conditionally().unwrap());
    assert!(store.create("done", b"1").unwrap() && !store.create("done", b"2").unwrap());
}

fn a_lease_is_one_workers_and_is_taken_over(server: &Moto, url: &str, _: &Path) {
    let (store, brief) = (Store::open(url).unwrap(), Leases::brief(url).unwrap());
    let place = || Box::new(Leases::new(&store, &brief, ".leases/rex").unwrap());
    let every = Duration::from_millis(500);
    let claim = || Lease::claim(place(), every, || {}).unwrap();
    let all: Vec<Claim> = thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(claim)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(all.iter().filter(|claim| matches!(claim, Claim::Ours(_))).count(), 1);
    // It lives longer than the silence after which it would be anybody's, through answers that fail.
    server.rule("PUT", "lease-", Fault::Answer(503, "SlowDown"), 2);
    thread::sleep(every * 8);
    assert!(matches!(claim(), Claim::Theirs { alive: true, .. }));
    drop(all);
    let Claim::Ours(ours) = claim() else { panic!("it was given back") };
    // Somebody on another machine who has died.
    let mut holder = lease::Place::last(&*place()).unwrap().unwrap().holder;
    drop(ours);
    (holder.host, holder.identity, holder.released) = ("elsewhere".to_owned(), None, false);
    holder.every = 500;
    let number = lease::Place::last(&*place()).unwrap().unwrap().number + 1;
    assert!(lease::Place::create(&*place(), number, &holder).unwrap());
    assert!(matches!(claim(), Claim::Theirs { alive: false, .. }));
    let until = Instant::now() + Duration::from_secs(30);
    while !matches!(claim(), Claim::Ours(_)) {
        assert!(Instant::now() < until, "it is never taken over");
        thread::sleep(Duration::from_millis(100));
    }
    // A worker that hears nothing from the server ends in time.
    let (lost, told) = std::sync::mpsc::channel();
    let Claim::Ours(_ours) = Lease::claim(place(), every, move || lost.send(()).unwrap()).unwrap() else {
        panic!("it was given back")
    };
    server.rule("", "lease-", Fault::Answer(503, "SlowDown"), usize::MAX);
    told.recv_timeout(Duration::from_secs(30)).unwrap();
}

fn a_refusal_is_a_sentence_without_credentials(server: &Moto, url: &str, local: &Path) {
    let store = Store::open(url).unwrap();
    let file = local.join("file");
    fs::write(&file, "x").unwrap();
    let says = |error: anyhow::Error, words: &str| {
        let error = format!("{error:#}");
        assert!(error.contains(words), "{error}");
        for hidden in [KEY, SECRET, "\n", "<"] {
            assert!(!error.contains(hidden), "{error}");
        }
    };
    server.rule("PUT", "file", Fault::Answer(403, "SignatureDoesNotMatch"), 1);
    let refused =
        "the server does not accept the credentials of the environment for it (HTTP 403, SignatureDoesNotMatch)";
    says(store.upload(&file, "file").unwrap_err(), refused);
    server.rule("PUT", "probe", Fault::Answer(403, "AccessDenied"), 1);
    says(store.create("file", b"").unwrap_err(), "(HTTP 403, AccessDenied)");
    server.rule("GET", "prefix", Fault::Answer(403, "AccessDenied"), 1);
    says(store.list().unwrap_err(), "cannot list s3://");
    let nowhere = Store::open("s3://no-such-bucket/x").unwrap();
    says(nowhere.upload(&file, "file").unwrap_err(), "there is no such bucket or file (HTTP 404, NoSuchBucket)");
    says(store.download("none", &local.join("none"), 9).unwrap_err(), "there is no such bucket or file");
    server.rule("PUT", "file", Fault::Answer(403, "QuotaExceeded"), 1);
    says(store.upload(&file, "file").unwrap_err(), "QuotaExceeded");
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

fn inputs_are_downloaded_once(server: &Moto, url: &str, local: &Path) {
    let store = Store::open(url).unwrap();
    for (name, text) in
        [("rex/1.png", "one"), ("rex/2.png", "two"), ("rex/notes.bin", "none"), ("one.safetensors", "w")]
    {
        store.replace(name, text.as_bytes()).unwrap();
    }
    let bounds = Bounds { files: 2, bytes: 100, endings: &["png", "safetensors"] };
    let get = |what: &str| fetch(&format!("{url}/{what}"), local, &bounds, &mut |_, _| {});
    let downloads = || server.calm().iter().filter(|line| line.starts_with("GET") && line.contains(".png")).count();
    let folder = get("rex").unwrap();
    assert_eq!((folder.file_name().unwrap().to_str(), downloads()), (Some("rex"), 2));
    assert_eq!(fs::read(folder.join("1.png")).unwrap(), b"one");
    assert!(!folder.join("notes.bin").exists());
    assert_eq!(get("rex").unwrap(), folder);
    assert_eq!(downloads(), 0);
    // One has changed to the same size, one has gone, and one is damaged here.
    store.replace("rex/1.png", b"eno").unwrap();
    store.remove("rex/2.png").unwrap();
    get("rex").unwrap();
    assert_eq!((fs::read(folder.join("1.png")).unwrap(), downloads()), (b"eno".to_vec(), 1));
    assert!(!folder.join("2.png").exists());
    let single = get("one.safetensors").unwrap();
    assert_eq!(
        (single.file_name().unwrap().to_str(), fs::read(&single).unwrap()),
        (Some("one.safetensors"), b"w".to_vec())
    );
    assert!(get("nothing").unwrap_err().to_string().starts_with("there is nothing at s3://"));
    store.replace("rex/3.png", &[0; 101]).unwrap();
    assert!(get("rex").unwrap_err().to_string().contains("has 2 files of 0 MiB, more than the 2 of 0 MiB"));
}
