//! What pages take, and what they say of what they do not take.

use std::fs;

use crate::stand_in::{Place, photo, until};

/// The sentence of an error's page.
fn said(text: &str) -> String {
    let (_, rest) = text.split_once("role=\"alert\">").unwrap_or_else(|| panic!("{text}"));
    rest.split('<').next().unwrap().to_owned()
}

/// Files by their names.
type Files<'a> = &'a [(&'a str, &'a [u8])];

#[test]
fn photos_are_taken_as_a_whole_or_not_at_all() {
    let place = Place::new();
    let studio = place.open();
    let client = &studio.client;
    let good = photo(&place.path("good.png"), 1);
    let large = vec![0; 51 << 20];
    let many: Vec<(&str, &[u8])> = (0..51).map(|_| ("a.png", good.as_slice())).collect();
    let refused: [(&str, Files<'_>, u16, &str); 7] = [
        ("none", &[], 422, "There are no photos in the upload"),
        ("text", &[("a.png", b"text")], 422, "a.png"),
        ("half", &[("good.png", &good), ("half.png", &good[..good.len() / 2])], 422, "half.png is damaged"),
        ("large", &[("large.jpg", &large)], 413, "\"large.jpg\" is larger than 50 MB"),
        ("many", &many, 413, "more than 50 photos"),
        ("../up", &[("a.png", &good)], 422, "cannot be a name"),
        ("", &[("a.png", &good)], 422, "A name is missing"),
    ];
    for (set, files, status, words) in refused {
        let answer = client.upload(set, files);
        let text = answer.text().replace("&quot;", "\"");
        assert!(answer.status == status && said(&text).contains(words), "{set}: {} {}", answer.status, said(&text));
        assert!(!text.contains(place.root.path().to_str().unwrap()), "no path is shown: {text}");
    }
    assert_eq!(fs::read_dir(place.path("runs/.studio/photos")).unwrap().count(), 0, "nothing is left of them");
    assert_eq!(
        client.upload("my-dog", &[("../../a.png", &good), ("a.png", &good)]).header("location"),
        Some("/teach?photos=my-dog")
    );
    assert!(said(&client.upload("my-dog", &[("a.png", &good)]).text()).contains("already: choose another name"));
    let page = client.get("/teach?photos=my-dog").text();
    assert!(page.contains("01-a.png") && page.contains("02-a.png") && page.contains("Class noun"), "{page}");
    let thumbnail = client.get("/photos/my-dog/thumbnails/01-a.png");
    assert_eq!((thumbnail.status, thumbnail.header("content-type")), (200, Some("image/jpeg")));
}

#[test]
fn a_check_shows_what_a_run_takes_and_starts_it() {
    let place = Place::new();
    let studio = place.open();
    let client = &studio.client;
    client.upload("rex", &[("a.png", &photo(&place.path("a.png"), 1))]);
    let form =
        [("photos", "rex"), ("category", "dog"), ("model", "some-model"), ("method", "attndreambooth"), ("steps", "7")];
    let answer = client.post("/plans", &form);
    let plan = answer.header("location").unwrap_or_else(|| panic!("{}", answer.text())).to_owned();
    until("the check is done", || client.get(&plan).text().contains("1 min 15 s"));
    assert!(client.get(&plan).text().contains("1.5 GB"));
    let run = client.post(&format!("{plan}/start"), &[]);
    assert_eq!(run.header("location"), Some("/runs/rex"));
    until("the run is finished", || client.get("/runs/rex").text().contains("badge finished"));
    let calls = place.read("calls");
    let call = calls.lines().find(|call| !call.contains("--dry-run")).unwrap();
    let runs = fs::canonicalize(place.path("runs")).unwrap();
    let expected = format!("--out={0}/rex --concept={0}/.studio/photos/rex", runs.display());
    assert!(
        call.contains(&expected) && call.contains("--category=dog --method=attndreambooth --steps=7 --device auto"),
        "{call}"
    );
    // Another tab that starts the same.
    let again = client.post(&format!("{plan}/start"), &[]);
    assert!(said(&again.text()).contains("choose another name"), "{}", again.text());
}

#[test]
fn what_is_wrong_with_a_request_is_a_sentence() {
    let place = Place::new();
    let studio = place.open();
    let long = "x".repeat(20_001);
    for (form, words) in [
        (vec![("source", ""), ("prompt", "x")], "Choose a run or a model"),
        (vec![("source", "run:none"), ("prompt", "x")], "There is no run \"none\""),
        (vec![("source", "model:some-model"), ("prompt", "x"), ("images", "0")], "it must be from 1 to 10000"),
        (vec![("source", "model:some-model"), ("prompt", "x"), ("steps", "many")], "invalid digit"),
        (vec![("source", "model:some-model"), ("prompt", &long)], "20001 characters"),
    ] {
        let answer = studio.client.post("/generate", &form);
        let text = answer.text().replace("&quot;", "\"");
        assert!(answer.status == 422 && said(&text).contains(words), "{form:?}: {}", said(&text));
    }
    // Ten thousand characters are long, but a prompt.
    let long = "x ".repeat(5_000);
    assert_eq!(studio.client.post("/generate", &[("source", "model:some-model"), ("prompt", &long)]).status, 303);
    let text = studio.client.get("/no-such-page").text();
    assert_eq!(said(&text), "There is no such page.");
}

#[test]
fn captions_and_masks_come_with_their_photos() {
    let place = Place::new();
    let studio = place.open();
    let client = &studio.client;
    let good = photo(&place.path("good.png"), 1);
    let alone = client.upload("alone", &[("a.png", &good), ("b.txt", b"a [V] dog")]);
    assert!(alone.status == 422 && said(&alone.text()).contains("b.txt"), "{}", said(&alone.text()));
    let files: [(&str, &[u8]); 5] = [
        ("b.txt", b"a [V] dog on a <sofa>"),
        ("a.png", &good),
        ("b.png", &good),
        ("a-masklabel.png", &good),
        ("a.txt", b"a [V] dog"),
    ];
    assert_eq!(client.upload("rex", &files).status, 303);
    let page = client.get("/teach?photos=rex").text();
    for words in ["a [V] dog on a &lt;sofa&gt;", "name=\"captions\"", "under the masks (1 of 2 photos)"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains("are not used"), "{page}");
    let form = [
        ("photos", "rex"),
        ("category", "dog"),
        ("model", "some-model"),
        ("captions", "1"),
        ("masks", "1"),
        ("attention", "1"),
    ];
    assert_eq!(client.post("/runs", &form).status, 303);
    until("it is started", || !place.read("calls").is_empty());
    assert!(
        place.read("calls").contains("--captions --masks --set=validation.attention=true"),
        "{}",
        place.read("calls")
    );
    // Where one photo has none, captions cannot be used, and it is said why.
    client.upload("half", &[("a.png", &good), ("b.png", &good), ("a.txt", b"a [V] dog")]);
    let page = client.get("/teach?photos=half").text();
    assert!(!page.contains("name=\"captions\"") && page.contains("02-b.png"), "{page}");
}
