//! What is deleted from the page, and what is not.

use std::fs;

use crate::stand_in::{Place, photo, until};

/// The answer to a question that was affirmed.
fn delete(client: &crate::client::Client, target: &str) -> (u16, String) {
    let answer = client.post("/delete", &[("target", target)]);
    (answer.status, answer.text().replace("&quot;", "\""))
}

#[test]
fn what_is_in_use_stays_and_the_rest_goes() {
    let place = Place::new();
    let studio = place.open();
    let client = &studio.client;
    client.upload("set", &[("a.png", &photo(&place.path("a.png"), 1))]);
    let form = [("photos", "set"), ("category", "dog"), ("model", "some-model"), ("name", "a")];
    client.post("/runs", &form);
    until("it is on its way", || place.steps("a") > 1);
    for (target, words) in [("run:a", "is in the queue: stop it first"), ("photos:set", "the photos set")] {
        let (status, text) = delete(client, target);
        assert!(status == 422 && (text.contains(words) || text.contains("is in the queue")), "{target}: {text}");
    }
    client.post("/runs/a/pause", &[]);
    until("it is paused", || client.get("/runs/a").text().contains("badge paused"));
    assert_eq!(delete(client, "run:a").0, 422, "it is still in the queue");
    client.post("/runs/a/resume", &[]);
    until("it is finished", || client.get("/runs/a").text().contains("badge finished"));
    // Somebody on the command line is at it.
    fs::write(place.path("runs/a/.lock"), std::process::id().to_string()).unwrap();
    let (status, text) = delete(client, "run:a");
    assert!(status == 422 && text.contains("is being trained: stop it first"), "{text}");
    fs::remove_file(place.path("runs/a/.lock")).unwrap();

    // An exported file, alone and with its run.
    let exports = place.path("runs/.studio/exports/a");
    fs::create_dir_all(exports.join("a")).unwrap();
    for file in ["a-lora.safetensors", "a/file", "other.safetensors"] {
        fs::write(exports.join(file), "12345").unwrap();
    }
    let question = client.get("/delete?target=export%3Aa%2Fa-lora.safetensors").text();
    assert!(
        question.contains("Delete the file a-lora.safetensors?") && question.contains("0.0 kB are freed"),
        "{question}"
    );
    assert!(exports.join("a-lora.safetensors").exists(), "a question deletes nothing");
    for file in ["a-lora.safetensors", "a"] {
        assert_eq!(delete(client, &format!("export:a/{file}")).0, 303);
        assert!(!exports.join(file).exists());
    }
    assert_eq!(delete(client, "run:a").0, 303);
    assert!(!place.path("runs/a").exists() && !exports.exists());
    assert_eq!(client.get("/runs/a").status, 404);
    assert_eq!(delete(client, "photos:set").0, 303);
    assert!(!place.path("runs/.studio/photos/set").exists());
    assert_eq!(fs::read_dir(place.path("runs/.studio/deleted")).unwrap().count(), 0);
    for target in
        ["run:a", "photos:set", "export:a/x", "image:model:some-model/x.png", "run:../template", "photos:.", "nothing"]
    {
        assert_eq!(delete(client, target).0, 422, "{target}");
    }
    assert!(place.path("template/config.json").exists() && place.path("runs/.studio/token").exists());
}

#[test]
fn photos_of_a_run_that_is_not_finished_stay() {
    let place = Place::new();
    let studio = place.open();
    let client = &studio.client;
    client.upload("set", &[("a.png", &photo(&place.path("a.png"), 1))]);
    // A run that was interrupted, which needs them to be resumed.
    let photos = fs::canonicalize(place.path("runs/.studio/photos/set")).unwrap();
    let record = place.read("config.json");
    let mut record: serde_json::Value = serde_json::from_str(&record).unwrap();
    record["config"]["concept"] = photos.display().to_string().into();
    fs::create_dir(place.path("runs/b")).unwrap();
    fs::write(place.path("runs/b/config.json"), record.to_string()).unwrap();
    let (status, text) = delete(client, "photos:set");
    assert!(status == 422 && text.contains("he run b learns from the photos set and is not finished"), "{text}");
    assert_eq!(delete(client, "run:b").0, 303);
    assert_eq!(delete(client, "photos:set").0, 303);
}

#[test]
fn an_image_leaves_the_gallery_and_its_number_is_not_given_again() {
    let place = Place::new();
    let studio = place.open();
    let client = &studio.client;
    let mut folder = runs::ImageFolder::open(&place.path("runs/.studio/images/some-model")).unwrap();
    let mut add = |seed| {
        let entry = runs::ImageEntry { seed, prompt: "a cat".into(), ..runs::ImageEntry::default() };
        folder.add(&image::RgbImage::new(2, 2), "", entry).unwrap()
    };
    assert_eq!([add(1), add(2)], [0, 1]);
    let images = |client: &crate::client::Client| {
        let images: serde_json::Value = serde_json::from_str(&client.get("/api/images").text()).unwrap();
        images["images"].as_array().unwrap().iter().map(|image| image["seed"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(images(client), [2, 1]);
    let about = client.get("/images/model%3Asome-model/0001-seed2.png/about").text();
    assert!(about.contains("/delete?target=image%3Amodel%3Asome-model%2F0001-seed2.png"), "{about}");
    assert_eq!(delete(client, "image:model:some-model/0001-seed2.png").0, 303);
    assert_eq!(images(client), [1]);
    assert_eq!(client.get("/images/model%3Asome-model/0001-seed2.png").status, 404);
    assert_eq!(add(2), 2);
    assert_eq!(images(client), [2, 1]);
}
