//! Pages in a real browser, without a window: chromium, where it is installed or named by the variable CHROMIUM. Without
//! one these tests are ignored, and with REQUIRE_BROWSER=1 they fail.
#![allow(clippy::unwrap_used)]

mod common;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::{HOSTILE, full_run};
use libtest_mimic::{Arguments, Completion, Trial};
use report::{Comparison, Preference, StudyOptions, run_page, table_page, tally};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Runs in the page before anything else of it; `check` is what a test asks, and its result ends up in an element.
const HARNESS: &str = r"
const errors = [];
addEventListener('error', (event) => errors.push(event.message ?? `${event.target.tagName} did not load`), true);
addEventListener('securitypolicyviolation', (event) => errors.push(`${event.violatedDirective} ${event.blockedURI}`));
addEventListener('load', async () => {
  let result = null;
  try { result = await check(); } catch (error) { errors.push(String(error)); }
  const pre = document.createElement('pre');
  pre.id = 'harness';
  pre.textContent = JSON.stringify({ errors, result });
  document.body.append(pre);
  parent.postMessage(pre.textContent, '*');
});
const press = (key, on = document) => on.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
const images = () => [...document.images].map((image) => image.complete && image.naturalWidth > 0 && image.alt !== '');
";

/// Windows are 500 pixels wide at least, but a frame may be as narrow as a phone. It tells what the harness has found.
const PHONE: &str = r#"<body><iframe src="page.html" width="375" height="740"></iframe><script>
addEventListener('message', (event) => {
  if (event.source !== frames[0] || document.getElementById('harness')) return;
  const pre = document.createElement('pre');
  pre.id = 'harness';
  pre.textContent = event.data;
  document.body.append(pre);
});
</script>"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Screen {
    Laptop,
    Phone,
}

/// The browser, if there is one.
fn chromium() -> Option<PathBuf> {
    if let Some(named) = env::var_os("CHROMIUM").filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file())
}

/// Not the usual harness, which cannot ignore a test for what is found out when it runs.
fn main() -> ExitCode {
    let browser = chromium();
    let required = env::var_os("REQUIRE_BROWSER").is_some_and(|value| !value.is_empty());
    let trial = |name: &str, test: fn(&Path)| {
        let browser = browser.clone();
        Trial::ignorable_test(name, move || match browser {
            Some(browser) => {
                test(&browser);
                Ok(Completion::Completed)
            }
            None if required => Err(format!("REQUIRE_BROWSER is set, but {NO_BROWSER}").into()),
            None => Ok(Completion::ignored_with(NO_BROWSER)),
        })
    };
    let trials = vec![
        trial("faults_are_noticed", faults_are_noticed),
        trial("a_runs_page_works_on_a_laptop_and_a_phone", a_runs_page_works_on_a_laptop_and_a_phone),
        trial("a_comparison_loads", a_comparison_loads),
        trial("a_table_fits_a_laptop_and_a_phone", a_table_fits_a_laptop_and_a_phone),
        trial(
            "a_study_takes_keys_and_clicks_survives_a_reload_and_its_answers_are_counted",
            a_study_takes_keys_and_clicks_survives_a_reload_and_its_answers_are_counted,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

const NO_BROWSER: &str = "there is no chromium on this machine (apt-get install chromium)";

/// Opens the page, and gives what `check` returns and what went wrong: errors of scripts,
/// images that do not load, breaches of the policy, whatever is said on the console.
fn visit(browser: &Path, page: &str, check: &str, screen: Screen) -> (Value, Vec<String>) {
    visit_from(tempfile::tempdir().unwrap().path(), browser, page, check, screen)
}

/// The same with a folder for what the browser remembers from visit to visit.
fn visit_from(folder: &Path, browser: &Path, page: &str, check: &str, screen: Screen) -> (Value, Vec<String>) {
    let script = format!("{HARNESS}\nasync function check() {{ {check} }}");
    let hash = BASE64_STANDARD.encode(Sha256::digest(&script));
    // The page's own policy allows no script but its own.
    let page = page.replacen("script-src ", &format!("script-src &#39;sha256-{hash}&#39; "), 1);
    let page = page.replacen("<style>", &format!("<script>{script}</script><style>"), 1);
    fs::write(folder.join("page.html"), page).unwrap();
    fs::write(folder.join("phone.html"), PHONE).unwrap();
    let file = folder.join(if screen == Screen::Phone { "phone.html" } else { "page.html" });
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"])
        .args(["--virtual-time-budget=10000", "--dump-dom", "--window-size=1280,800"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("file://{}", file.display()))
        .env("HOME", folder)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let dom = String::from_utf8(output.stdout).unwrap();
    let Some((_, result)) = dom.split_once(r#"<pre id="harness">"#) else {
        panic!("{} has not run the page: {stderr}", browser.display());
    };
    let result = result.split("</pre>").next().unwrap();
    let result = result.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let mut result: Value = serde_json::from_str(&result).unwrap();
    let mut errors: Vec<String> = serde_json::from_value(result["errors"].take()).unwrap();
    errors.extend(stderr.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned));
    (result["result"].take(), errors)
}

fn faults_are_noticed(browser: &Path) {
    let page = r#"<html><head><meta http-equiv="Content-Security-Policy" content="default-src data:; script-src "><style></style>
        </head><body><img src="data:image/png;base64,bm9uZQ=="><img src="https://example.invalid/a.png"></body></html>"#;
    let (_, errors) = visit(browser, page, "console.error('said'); throw new Error('thrown');", Screen::Laptop);
    for fault in ["IMG did not load", "img-src https://example.invalid", "said", "thrown"] {
        assert!(errors.iter().any(|error| error.contains(fault)), "{fault}: {errors:?}");
    }
}

fn a_runs_page_works_on_a_laptop_and_a_phone(browser: &Path) {
    let parent = tempfile::tempdir().unwrap();
    let page = run_page(&full_run(parent.path(), "run", 1e-5, 1)).unwrap();
    let check = r"
        const loaded = images();
        const shown = () => {
          const frames = [...document.querySelectorAll('#attention .frame')].filter((frame) => frame.offsetHeight > 0);
          return frames.map((frame) => [frame.dataset.name, frame.querySelector('img').src]);
        };
        const slider = document.getElementById('attention-1');
        const views = [shown()];
        for (const value of [0, 1]) {
          slider.value = value;
          slider.dispatchEvent(new Event('input', { bubbles: true }));
          views.push(shown());
        }
        const said = slider.getAttribute('aria-valuetext');
        document.querySelector('#attention .all input').click();
        const all = shown().length;
        const svg = [...document.querySelectorAll('.plot svg')].find((svg) => svg.getBoundingClientRect().width > 0);
        const reading = svg.closest('.plot').querySelector('.reading');
        const box = svg.getBoundingClientRect();
        svg.dispatchEvent(new PointerEvent('pointermove', { clientX: box.right - 5, clientY: box.top + 50 }));
        const readings = [reading.textContent];
        press('ArrowLeft', svg);
        readings.push(reading.textContent);
        document.querySelector('.zoom').click();
        const large = document.getElementById('large');
        const opened = large.open && large.querySelector('img').naturalWidth > 0;
        large.click();
        const tables = [...document.querySelectorAll('table')].filter((table) => table.rows.length > 0).length;
        return {
          width: innerWidth, loaded, views, said, all, readings, tables, opened, closed: !large.open,
          fits: document.documentElement.scrollWidth <= innerWidth,
          labelled: [...document.querySelectorAll('input[type=range]')].every((input) => input.labels.length > 0),
          text: document.body.textContent,
        };";
    for (screen, width) in [(Screen::Laptop, 1280), (Screen::Phone, 375)] {
        let (result, errors) = visit(browser, &page, check, screen);
        assert_eq!(errors, [""; 0]);
        let loaded = result["loaded"].as_array().unwrap();
        // Sheet, 3 samples, 2 of the comparison, 3 x 2 of the evaluation, 3 x 3 of attention, 2 of the embedding.
        assert_eq!((loaded.len(), loaded.iter().all(|loaded| *loaded == true)), (23, true));
        let views: Vec<Vec<[String; 2]>> = serde_json::from_value(result["views"].clone()).unwrap();
        let names: Vec<&str> = views.iter().map(|view| view[0][0].as_str()).collect();
        assert_eq!(names, ["after stage 2", "base model", "after stage 1"]);
        assert!(views.iter().all(|view| view.len() == 1), "one stage at a time");
        assert!(views[0][0][1] != views[1][0][1] && views[1][0][1] != views[2][0][1], "the images change");
        assert_eq!((&result["said"], &result["all"]), (&json!("after stage 1"), &json!(3)));
        assert_eq!(result["readings"][0], "unet, step 30: 0.001111 (smoothed 0.001111)");
        assert_eq!(result["readings"][1], "unet, step 29: 0.001189 (smoothed 0.001189)");
        assert_eq!(result["width"], width);
        for holds in ["opened", "closed", "fits", "labelled"] {
            assert_eq!(result[holds], true, "{holds} on a {screen:?}");
        }
        assert!(result["text"].as_str().unwrap().contains(HOSTILE), "prompts are shown as they are");
    }
}

fn a_comparison_loads(browser: &Path) {
    let parent = tempfile::tempdir().unwrap();
    let runs = [full_run(parent.path(), "a", 1e-5, 1), full_run(parent.path(), "b", 2e-6, 2)];
    let page = Comparison::open(&runs).unwrap().page(4).unwrap();
    let check = "return { loaded: images(), fits: document.documentElement.scrollWidth <= innerWidth };";
    for screen in [Screen::Laptop, Screen::Phone] {
        let (result, errors) = visit(browser, &page, check, screen);
        assert_eq!(errors, [""; 0]);
        let loaded = result["loaded"].as_array().unwrap();
        assert_eq!((loaded.len(), loaded.iter().all(|loaded| *loaded == true)), (14, true));
        assert_eq!(result["fits"], true);
    }
}

fn a_table_fits_a_laptop_and_a_phone(browser: &Path) {
    let parent = tempfile::tempdir().unwrap();
    let (table, plan) = common::table(parent.path());
    let page = table_page(&table, &plan, parent.path(), None).unwrap();
    let check = r"
        const names = [...document.querySelectorAll('svg text')].map((text) => text.textContent);
        return {
          loaded: images(), names, text: document.body.textContent,
          fits: document.documentElement.scrollWidth <= innerWidth,
        };";
    for screen in [Screen::Laptop, Screen::Phone] {
        let (result, errors) = visit(browser, &page, check, screen);
        assert_eq!(errors, [""; 0]);
        // Of the base model and two methods: two prompts, the attention and the embedding.
        let loaded = result["loaded"].as_array().unwrap();
        assert_eq!((loaded.len(), loaded.iter().all(|loaded| *loaded == true)), (12, true));
        assert_eq!(result["fits"], true, "on a {screen:?}");
        let hostile = &plan.methods[1].name;
        let names = result["names"].as_array().unwrap();
        assert!(names.iter().any(|name| name == hostile.as_str()), "{names:?}");
        let text = result["text"].as_str().unwrap();
        for said in [hostile.as_str(), "better: does not hold", "better: holds", "Not collected", "0.5000"] {
            assert!(text.contains(said), "{said}");
        }
    }
}

fn a_study_takes_keys_and_clicks_survives_a_reload_and_its_answers_are_counted(browser: &Path) {
    let parent = tempfile::tempdir().unwrap();
    let runs = [full_run(parent.path(), "ours", 1e-5, 1), full_run(parent.path(), "theirs", 2e-6, 2)];
    let options = StudyOptions { questions: 6, seed: 4, reference: None };
    let page = Comparison::open(&runs).unwrap().study(&options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let visit = |check: &str| {
        let question = "[...document.querySelectorAll('.question')].findIndex((question) => question.offsetHeight > 0)";
        let check = format!("const where = () => {question};\n{check}");
        let (result, errors) = visit_from(folder.path(), browser, &page, &check, Screen::Laptop);
        assert_eq!(errors, [""; 0]);
        result
    };
    let begun = visit(
        r"
        const places = [where()];
        document.getElementById('start').click();
        places.push(where());
        for (const key of ['1', '2', 'x', 'Backspace', 'ArrowLeft']) { press(key); places.push(where()); }
        return { loaded: images(), places };",
    );
    let loaded = begun["loaded"].as_array().unwrap();
    assert_eq!((loaded.len(), loaded.iter().all(|loaded| *loaded == true)), (13, true));
    assert_eq!(begun["places"], json!([-1, 0, 1, 2, 2, 1, 2]), "start, 1, 2, another key, back, left");

    let fits = "document.getElementById('start').click(); return document.documentElement.scrollWidth <= innerWidth;";
    let (fits, errors) = self::visit(browser, &page, fits, Screen::Phone);
    assert_eq!((fits, errors), (json!(true), Vec::new()));

    let result = visit(
        r"
        const after = where();
        press('ArrowRight');
        press('1');
        document.querySelectorAll('.question')[4].querySelectorAll('button')[1].click();
        press('ArrowLeft');
        const ended = document.getElementById('end').offsetHeight > 0;
        press('2');
        let blob, name;
        URL.createObjectURL = (given) => { blob = given; return 'about:blank'; };
        HTMLAnchorElement.prototype.click = function () { name = this.download; };
        document.getElementById('save').click();
        return { after, ended, name, file: await blob.text() };",
    );
    assert_eq!(result["after"], 2, "another visit goes on where the first one ended");
    assert_eq!(result["ended"], true);
    assert!(result["name"].as_str().unwrap().starts_with("answers-"));

    let file: Value = serde_json::from_str(result["file"].as_str().unwrap()).unwrap();
    let choices: Vec<&str> =
        file["answers"].as_array().unwrap().iter().map(|answer| answer["choice"].as_str().unwrap()).collect();
    let expected = ["left", "left", "right", "left", "right", "left"];
    assert_eq!(choices, expected);
    let key: Value =
        serde_json::from_slice(&BASE64_STANDARD.decode(file["sealed"].as_str().unwrap()).unwrap()).unwrap();
    let ours = |(question, choice): (&Value, &&str)| question[*choice] == 0;
    let wins = key["questions"].as_array().unwrap().iter().zip(&expected).filter(|pair| ours(*pair)).count() as u64;
    let answers = parent.path().join("answers.json");
    fs::write(&answers, file.to_string()).unwrap();
    let tally = tally(&[answers]).unwrap();
    let by_participant = vec![(wins, 6)];
    let preference = Preference { run: "ours".into(), other: "theirs".into(), wins, answers: 6, by_participant };
    assert_eq!((tally.preferences, tally.participants, tally.left), (vec![preference], 1, 4));
}
