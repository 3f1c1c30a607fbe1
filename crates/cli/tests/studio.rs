//! The studio in a real browser, without a window, with the real program: chromium, where it is installed or named by the variable
//! CHROMIUM. Without one this test is ignored, and with REQUIRE_BROWSER=1 it fails.
#![allow(clippy::unwrap_used)]

mod browser;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use browser::{Browser, Screen};
use libtest_mimic::{Arguments, Completion, Trial};
use serde_json::{Value, json};

const NO_BROWSER: &str = "there is no chromium on this machine (apt-get install chromium)";

/// Not the usual harness, which cannot ignore a test for what is found out when it runs.
fn main() -> ExitCode {
    let required = std::env::var_os("REQUIRE_BROWSER").is_some_and(|value| !value.is_empty());
    let trial = Trial::ignorable_test("a_subject_is_taught_and_used", move || match browser::chromium() {
        Some(chromium) => {
            a_subject_is_taught_and_used(&chromium);
            Ok(Completion::Completed)
        }
        None if required => Err(format!("REQUIRE_BROWSER is set, but {NO_BROWSER}").into()),
        None => Ok(Completion::ignored_with(NO_BROWSER)),
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

/// A studio's process.
struct Studio {
    process: Child,
    url: String,
}

impl Studio {
    fn start(runs: &Path, port: u16) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
            .args(["--json", "studio", "--device", "cpu", "--port", &port.to_string(), "--runs"])
            .arg(runs)
            .arg("--model")
            .arg(repository().join("fixtures/miniature"))
            .env("OMP_NUM_THREADS", "1")
            .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        Self { process, url: line["url"].as_str().unwrap().to_owned() }
    }

    fn port(&self) -> u16 {
        self.url.split(':').nth(2).unwrap().split('/').next().unwrap().parse().unwrap()
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Ends it as Ctrl-C does.
    fn end(mut self) -> i32 {
        Command::new("kill").args(["-INT", &self.process.id().to_string()]).status().unwrap();
        self.process.wait().unwrap().code().unwrap()
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// What holds for every page: it fits, images have loaded and have a text, and fields have labels.
const SOUND: &str = r"
    const images = [...document.images].filter((image) => image.loading !== 'lazy' || image.complete);
    const fields = [...document.querySelectorAll('input:not([type=hidden]), select, textarea')];
    return {
        fits: document.documentElement.scrollWidth <= innerWidth,
        loaded: images.every((image) => image.hidden || image.complete && image.naturalWidth > 0),
        described: images.every((image) => image.alt !== ''),
        labelled: fields.every((field) => field.labels.length > 0 || field.getAttribute('aria-label')),
        titled: document.querySelectorAll('h1').length === 1,
    };";

/// Looks at the page on a laptop, light and dark, and on a phone; its screenshots are kept to be looked at.
fn sound(browser: &mut Browser, name: &str) {
    for screen in [Screen::Laptop, Screen::Dark, Screen::Phone] {
        browser.set_screen(screen);
        let found = browser.run(SOUND);
        let expected = json!({ "fits": true, "loaded": true, "described": true, "labelled": true, "titled": true });
        assert_eq!(found, expected, "{name} on a {screen:?}");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("studio");
        fs::create_dir_all(&folder).unwrap();
        browser.screenshot(&folder.join(format!("{name}-{screen:?}.png").to_lowercase()));
    }
    browser.set_screen(Screen::Laptop);
}

fn a_subject_is_taught_and_used(chromium: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let studio = Studio::start(&runs, 0);
    let port = studio.port();
    let mut browser = Browser::start(chromium, folder.path());
    browser.open(&studio.url);
    browser.wait(
        "the page has opened",
        "return document.title === 'Runs – Studio' && !location.search.includes('token');",
    );
    sound(&mut browser, "empty");

    // Photos.
    browser.click("a.button.main");
    browser.wait("the form is there", "return !!document.getElementById('upload');");
    sound(&mut browser, "upload");
    browser.run("document.getElementById('set').value = 'penguin';");
    let photos: Vec<PathBuf> =
        (0..5).map(|n| repository().join(format!("fixtures/subjects/penguin/0{n}.jpg"))).collect();
    browser.choose_files("#files", &photos);
    browser.wait("they are shown before", "return document.querySelectorAll('#chosen-photos img').length === 5;");
    browser.click("#upload button.main");
    browser.wait("they are uploaded", "return location.search === '?photos=penguin';");
    assert_eq!(browser.run("return document.querySelectorAll('.tiles img').length;"), 5);

    // A configuration, and what it takes.
    browser.run(
        r"document.getElementById('category').value = 'bird';
        document.querySelector('#teaching details').open = true;
        document.getElementById('batch_size').value = '2';
        document.getElementById('validate_every').value = '8';
        document.getElementById('attention').checked = true;
        document.getElementById('set').value = `phases.embedding.steps=3
            phases.cross_attention.steps=3
            phases.unet.steps=60
            validation.steps=2
            validation.results=none`;",
    );
    sound(&mut browser, "teach");
    browser.click("#teaching button.main");
    browser.wait("the check is done", "return !!document.getElementById('start');");
    sound(&mut browser, "check");
    browser.click("#start");
    browser.wait("the run's page is there", "return location.pathname === '/runs/penguin';");

    // It is watched; the studio is killed in the middle, and another goes on.
    browser.wait("a loss has arrived", "return document.querySelectorAll('#losses svg').length > 0;");
    browser.wait(
        "an image has arrived, and where [V] acts in it",
        "return [...document.querySelectorAll('#samples img')].some((image) => image.alt.startsWith('Where [V] acts'));",
    );
    sound(&mut browser, "training");
    assert_eq!(browser.errors(), [""; 0]);
    studio.kill();
    let studio = Studio::start(&runs, port);
    browser.wait(
        "the page goes on by itself",
        "return document.querySelector('#state .badge').textContent === 'finished';",
    );
    // While nobody was there, the browser has said so.
    browser.errors();
    let log = fs::read_to_string(runs.join("penguin/log.jsonl")).unwrap();
    let steps: Vec<u64> =
        log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=66).collect::<Vec<_>>(), "no step is lost, and none is done twice");
    sound(&mut browser, "finished");

    // Images.
    browser.click("#use a.main");
    browser.wait("the form is there", "return document.getElementById('source')?.value === 'run:penguin';");
    browser.run(
        r"document.getElementById('prompt').value = 'a [V] bird on the beach';
        document.getElementById('steps').value = '4';
        document.getElementById('images').value = '2';
        document.getElementById('base').checked = true;",
    );
    browser.click("#generating button.main");
    browser.wait("images have arrived", "return document.querySelectorAll('#newest img').length === 4;");
    browser.wait("nothing more is to be done", "return document.querySelectorAll('#jobs .job').length === 0;");
    sound(&mut browser, "generate");
    browser.click("#newest a");
    browser.wait(
        "its parameters are there",
        "return document.querySelector('.facts')?.textContent.includes('a [V] bird on the beach');",
    );
    sound(&mut browser, "image");
    browser.click(".about button.main");
    browser.wait("another has arrived", "return document.querySelectorAll('#newest img').length === 5;");
    browser.open(&format!("http://127.0.0.1:{port}/gallery"));
    browser.run("[...document.querySelectorAll('.choosable input')].slice(0, 2).forEach((box) => box.click());");
    sound(&mut browser, "gallery");
    browser.click("section .buttons button");
    browser.wait("they are side by side", "return document.querySelectorAll('.beside img').length === 2;");
    sound(&mut browser, "beside");

    // Attention.
    browser.open(&format!("http://127.0.0.1:{port}/runs/penguin/attention"));
    browser.run("document.getElementById('steps').value = '3';");
    browser.click("main form button.main");
    browser.wait("the maps are there", "return document.querySelectorAll('.words button').length > 3;");
    let shown = "return [...document.querySelectorAll('.attention img')].filter((image) => !image.hidden).map((image) => image.alt);";
    assert_eq!(browser.run(shown), json!(["a [V] bird on the beach, after phase 3"]));
    browser.run("[...document.querySelectorAll('.words button')].find((word) => word.textContent === '[V]').focus();");
    assert_eq!(browser.run(shown), json!(["Where [V] acts, after phase 3"]));
    sound(&mut browser, "attention");

    // A file for other programs.
    browser.open(&format!("http://127.0.0.1:{port}/runs/penguin"));
    browser.run(
        "[...document.querySelectorAll('#use button')].find((button) => button.textContent === 'Embedding').click();",
    );
    browser.wait("it can be downloaded", "return !!document.querySelector('a[download]');");
    let bytes = browser
        .run("return (await (await fetch(document.querySelector('a[download]').href)).arrayBuffer()).byteLength;");
    assert!(bytes.as_u64().unwrap() > 500, "{bytes}");

    // A1111's API, asked as its client webuiapi asks: the same image as the command line's.
    let asked = json!({
        "prompt": "a fox in the snow", "negative_prompt": "blurry", "seed": 7, "steps": 3, "cfg_scale": 3.0, "width": 128, "height": 128,
        "batch_size": 1, "n_iter": 1, "sampler_name": "DDIM", "sampler_index": "DDIM", "enable_hr": false, "styles": [], "subseed": -1,
        "restore_faces": false, "tiling": false, "override_settings": { "sd_model_checkpoint": "model:miniature" },
        "script_name": null, "script_args": [], "send_images": true, "save_images": false, "alwayson_scripts": {},
    });
    let image = browser.run(&format!(
        "const headers = {{ 'Content-Type': 'application/json' }};
         const answer = await fetch('/sdapi/v1/txt2img', {{ method: 'POST', headers, body: JSON.stringify({asked}) }});
         return (await answer.json()).images[0];"
    ));
    let direct = folder.path().join("direct");
    let generated = Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
        .args([
            "generate",
            "--device",
            "cpu",
            "--prompt",
            "a fox in the snow",
            "--negative-prompt",
            "blurry",
            "--seed",
            "7",
            "--steps",
        ])
        .args(["3", "--guidance-scale", "3", "--width", "128", "--height", "128", "--scheduler", "ddim", "--model"])
        .arg(repository().join("fixtures/miniature"))
        .arg("--out")
        .arg(&direct)
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap();
    assert!(generated.status.success());
    let bytes = BASE64_STANDARD.decode(image.as_str().unwrap()).unwrap();
    assert!(bytes == fs::read(direct.join("0000-seed7.png")).unwrap(), "byte by byte");

    // What is deleted has gone, after a question.
    browser.open(&format!("http://127.0.0.1:{port}/gallery"));
    let count = "return document.querySelectorAll('.choosable').length;";
    let images = browser.run(count).as_u64().unwrap();
    browser.click(".choosable figure a");
    browser.wait("it is open", "return !!document.querySelector('a.delete');");
    browser.click("a.delete");
    browser.wait("it is asked", "return !!document.getElementById('delete');");
    sound(&mut browser, "delete");
    browser.click("#delete");
    browser.wait("the gallery is there", "return location.pathname === '/gallery';");
    assert_eq!(browser.run(count), images - 1);

    // The report is alone with itself.
    browser.open(&format!("http://127.0.0.1:{port}/runs/penguin/report"));
    browser.wait("it is there", "return !!document.getElementById('curves');");
    assert_eq!(browser.run("return origin;"), "null");
    browser.open(&format!("http://127.0.0.1:{port}/"));
    browser.wait("the run is there", "return document.querySelectorAll('.card').length === 1;");
    sound(&mut browser, "runs");
    assert_eq!(browser.errors(), [""; 0]);
    assert_eq!(studio.end(), 0);
}
