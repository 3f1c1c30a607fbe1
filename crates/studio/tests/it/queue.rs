//! The queue: one job at a time, trainings that give way, and a studio that ends in the middle.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::client::Client;
use crate::stand_in::{Place, photo, until};

fn photos(place: &Place, client: &Client) {
    assert_eq!(client.upload("set", &[("a.png", &photo(&place.path("a.png"), 1))]).status, 303);
}

fn start(client: &Client, name: &str) {
    let form = [("photos", "set"), ("category", "dog"), ("model", "some-model"), ("name", name)];
    let answer = client.post("/runs", &form);
    assert_eq!(answer.header("location"), Some(format!("/runs/{name}").as_str()), "{}", answer.text());
}

fn is(client: &Client, run: &str, word: &str) -> bool {
    client.get(&format!("/runs/{run}")).text().contains(&format!("badge {word}"))
}

/// Steps that the log tells, each once and in order.
fn whole(place: &Place, run: &str) -> bool {
    let log = place.read(&format!("runs/{run}/log.jsonl"));
    let steps = log.lines().enumerate().all(|(i, line)| line.starts_with(&format!("{{\"step\":{},", i + 1)));
    steps && log.lines().count() == 10
}

#[test]
fn runs_are_done_one_after_the_other() {
    let place = Place::new();
    let studio = place.open();
    let client = &studio.client;
    photos(&place, client);
    for name in ["a", "b"] {
        start(client, name);
    }
    // Two tabs that start at once.
    let form = [("photos", "set"), ("category", "dog"), ("model", "some-model"), ("name", "b")];
    assert_eq!(client.post("/runs", &form).status, 422);
    until("the first is on its way", || place.steps("a") > 2);
    assert_eq!(place.steps("b"), 0);
    let waiting = client.get("/runs/b");
    assert!(waiting.status == 200 && waiting.text().contains("badge waiting"), "it has a page before it begins");
    until("both are finished", || is(client, "a", "finished") && is(client, "b", "finished"));
    assert!(whole(&place, "a") && whole(&place, "b"));
}

#[test]
fn a_training_gives_way_to_an_image_and_goes_on() {
    let place = Place::new();
    let studio = place.open();
    let client = &studio.client;
    photos(&place, client);
    start(client, "a");
    until("it is on its way", || place.steps("a") > 2);
    let run = fs::canonicalize(place.path("runs/a")).unwrap();
    assert_eq!(client.post("/generate", &[("source", "run:a"), ("prompt", "a [V] dog")]).status, 303);
    until("it is finished", || is(client, "a", "finished"));
    let generated = place.read("generated");
    let steps: usize = generated.split(' ').next().unwrap().parse().unwrap();
    assert!(steps < 10 && generated.contains("0 processes"), "alone, and in the middle: {generated}");
    assert!(whole(&place, "a"));
    assert!(place.read("calls").contains(&format!("train --out {} --resume", run.display())));
}

#[test]
fn a_run_is_paused_resumed_and_stopped() {
    let place = Place::new();
    let studio = place.open();
    let client = &studio.client;
    photos(&place, client);
    for name in ["a", "b"] {
        start(client, name);
    }
    until("it is on its way", || place.steps("a") > 1);
    client.post("/runs/b/pause", &[]);
    client.post("/runs/a/pause", &[]);
    until("it is paused", || is(client, "a", "paused"));
    let steps = place.steps("a");
    thread::sleep(Duration::from_millis(400));
    assert_eq!((place.steps("a"), place.steps("b")), (steps, 0));
    client.post("/runs/a/resume", &[]);
    until("it goes on", || place.steps("a") > steps);
    client.post("/runs/a/stop", &[]);
    until("it is stopped", || is(client, "a", "interrupted"));
    assert!(!client.get("/").text().contains("Train a"), "it has left the queue");
    client.post("/runs/a/resume", &[]);
    until("it is finished", || is(client, "a", "finished"));
    assert!(whole(&place, "a"));
}

#[test]
fn a_studio_that_is_closed_goes_on_with_its_queue_when_it_is_opened() {
    let place = Place::new();
    {
        let studio = place.open();
        photos(&place, &studio.client);
        for name in ["a", "b"] {
            start(&studio.client, name);
        }
        until("it is on its way", || place.steps("a") > 2);
    }
    let steps = place.steps("a");
    assert!(steps < 10 && !place.path("runs/a/.lock").exists(), "its process has ended with a checkpoint");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(place.steps("a"), steps);
    let studio = place.open();
    until("both are finished", || is(&studio.client, "a", "finished") && is(&studio.client, "b", "finished"));
    assert!(whole(&place, "a") && whole(&place, "b"));
}

/// As after a studio that was killed: its process goes on, and there is nobody who reads what it says.
#[test]
fn a_process_that_has_outlived_its_studio_is_waited_for() {
    let place = Place::new();
    drop(place.open());
    let run = fs::canonicalize(place.path("runs")).unwrap().join("a");
    let mut orphan = Command::new(place.path("program"));
    let mut orphan = orphan
        .args(["--json", "train", &format!("--out={}", run.display())])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("it is on its way", || place.steps("a") > 1);
    let jobs = r#"{"last":1,"jobs":[{"id":1,"kind":"train","title":"Train a","run":"a","arguments":[],"state":"running","time":0.0}]}"#;
    fs::write(place.path("runs/.studio/jobs.json"), jobs).unwrap();
    let studio = place.open();
    assert!(is(&studio.client, "a", "training"));
    orphan.wait().unwrap();
    until("it is finished", || is(&studio.client, "a", "finished"));
    assert!(whole(&place, "a"), "no two processes were at it");
}

#[test]
fn a_full_disk_is_a_sentence_and_the_run_can_be_resumed() {
    let place = Place::new();
    let studio = place.open();
    let client = &studio.client;
    photos(&place, client);
    start(client, "a");
    until("it is on its way", || place.steps("a") > 2);
    fs::write(place.path("full"), "").unwrap();
    until("it has failed", || is(client, "a", "failed"));
    assert!(client.get("/runs/a").text().contains("The disk is full."));
    fs::remove_file(place.path("full")).unwrap();
    client.post("/runs/a/resume", &[]);
    until("it is finished", || is(client, "a", "finished"));
    assert!(whole(&place, "a"));
}

#[test]
fn runs_of_the_command_line_appear() {
    let place = Place::new();
    let studio = place.open();
    assert!(studio.client.get("/").text().contains("There is no run yet"));
    let out = fs::canonicalize(place.path("runs")).unwrap().join("by-hand");
    let program = Command::new(place.path("program"))
        .args(["--json", "train", &format!("--out={}", out.display())])
        .output()
        .unwrap();
    assert!(program.status.success());
    assert!(studio.client.get("/").text().contains("by-hand"));
    assert!(is(&studio.client, "by-hand", "finished"));
}

/// Generates an image, and waits for it.
fn generate(place: &Place, client: &Client, prompt: &str) {
    let before = place.read("generated").lines().count();
    assert_eq!(client.post("/generate", &[("source", "model:some-model"), ("prompt", prompt)]).status, 303);
    until("it is generated", || {
        place.read("generated").lines().count() > before && !client.get("/").text().contains("<h2>Queue</h2>")
    });
}

/// How many processes have generated images so far, and whether the last one is still there.
fn generators(place: &Place) -> (usize, bool) {
    let started = place.read("calls").lines().filter(|call| *call == "--json generator").count();
    (started, Path::new("/proc").join(place.read("generator").trim()).exists())
}

#[test]
fn a_process_with_its_model_is_kept_between_images_and_gives_way_to_a_training() {
    let place = Place::new();
    let studio = place.open();
    let client = &studio.client;
    photos(&place, client);
    for prompt in ["a cat", "a wrong cat", "a dog"] {
        generate(&place, client, prompt);
        assert_eq!(generators(&place), (1, true), "{prompt}");
    }
    assert!(client.get("/").text().contains("A wrong prompt."));
    start(client, "a");
    until("the training is on its way", || place.steps("a") > 0);
    assert_eq!(generators(&place), (1, false));
    until("it is finished", || is(client, "a", "finished"));
    generate(&place, client, "a cat");
    assert_eq!(generators(&place), (2, true));
    drop(studio);
    assert_eq!(generators(&place), (2, false), "nothing outlives a studio that ends");
}

#[test]
fn a_process_that_crashes_or_is_stopped_takes_nothing_along() {
    let place = Place::new();
    let studio = place.open();
    let client = &studio.client;
    generate(&place, client, "a cat");
    generate(&place, client, "a crash");
    let page = client.get("/").text();
    assert!(page.contains("Its process was ended by signal 9: no more memory."), "{page}");
    generate(&place, client, "a cat");
    assert_eq!(generators(&place), (2, true));
    // Ended by somebody while it had nothing to do: nobody need know.
    let id = place.read("generator");
    Command::new("kill").args(["-9", id.trim()]).status().unwrap();
    until("it has ended", || {
        !client.get("/").text().is_empty()
            && fs::read_to_string(format!("/proc/{}/stat", id.trim())).is_ok_and(|stat| stat.contains(" Z "))
    });
    generate(&place, client, "a cat");
    assert_eq!(generators(&place), (3, true));
    assert_eq!(client.get("/").text().matches("badge failed").count(), 1);
    client.post("/generate", &[("source", "model:some-model"), ("prompt", "a slow cat")]);
    until("it is asked", || place.read("calls").contains("slow"));
    let jobs = client.get("/api/jobs").text();
    let jobs: serde_json::Value = serde_json::from_str(&jobs).unwrap();
    let id = jobs.as_array().unwrap().last().unwrap()["id"].clone();
    client.post(&format!("/jobs/{id}/stop"), &[]);
    until("it has gone", || !client.get("/").text().contains("a slow cat"));
    generate(&place, client, "a cat");
    assert_eq!(generators(&place), (4, true));
}

#[test]
fn of_several_devices_the_one_that_keeps_a_model_is_given_the_next_image() {
    let place = Place::new();
    let studio = place.open_with_devices(3);
    for _ in 0..6 {
        generate(&place, &studio.client, "a cat");
    }
    assert_eq!(generators(&place), (1, true));
    // While that one is at work, another does the next.
    for prompt in ["a slow cat", "a dog"] {
        studio.client.post("/generate", &[("source", "model:some-model"), ("prompt", prompt)]);
    }
    until("there is another", || generators(&place).0 == 2);
}
