//! Chromium without a window, by its DevTools protocol over a pipe: messages of JSON, each with a zero byte at its end
//! (`--remote-debugging-pipe`).

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// How long a page may take for anything; a run with sixty steps is among it.
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Screen {
    Laptop,
    /// A laptop whose user likes it dark.
    Dark,
    Phone,
}

/// The browser, if there is one.
pub(crate) fn chromium() -> Option<PathBuf> {
    if let Some(named) = env::var_os("CHROMIUM").filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file())
}

/// A browser with one page.
pub(crate) struct Browser {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    number: u64,
    errors: Vec<String>,
}

impl Browser {
    /// Starts it; `folder` is for what it remembers.
    pub(crate) fn start(chromium: &Path, folder: &Path) -> Self {
        // It reads from descriptor 3 and writes to 4.
        let mut process = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >&2"#])
            .arg(chromium)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-quic"])
            .args(["--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", folder.join("profile").display()))
            .env("HOME", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (to, from) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let mut browser = Self { process, to, from, session: None, number: 0, errors: Vec::new() };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }))["targetId"].clone();
        let session = browser.call("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }));
        browser.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "DOM"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser.set_screen(Screen::Laptop);
        browser
    }

    /// Asks, and waits for the answer; what is told meanwhile is looked at for errors.
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes).unwrap();
            assert!(bytes.pop() == Some(0), "the browser has ended");
            let mut message: Value = serde_json::from_slice(&bytes).unwrap();
            if message["id"] == self.number {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].take();
            }
            self.hear(&message);
        }
    }

    fn hear(&mut self, message: &Value) {
        let said = &message["params"];
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.errors.push(said["exceptionDetails"]["exception"]["description"].to_string());
            }
            Some("Runtime.consoleAPICalled") if said["type"] == "error" => self.errors.push(said["args"].to_string()),
            Some("Log.entryAdded") if said["entry"]["level"] == "error" => {
                self.errors.push(format!("{} {}", said["entry"]["text"], said["entry"]["url"]));
            }
            _ => {}
        }
    }

    /// What has gone wrong since this was asked: errors of scripts, what did not load, breaches of the policy.
    pub(crate) fn errors(&mut self) -> Vec<String> {
        self.run("return 0;");
        std::mem::take(&mut self.errors)
    }

    /// Opens an address, and waits until it has loaded.
    pub(crate) fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", &json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        self.wait(
            "the page has loaded",
            "return document.readyState === 'complete' && location.href !== 'about:blank';",
        );
    }

    /// The value of a function's body in the page.
    pub(crate) fn run(&mut self, body: &str) -> Value {
        let expression = format!("(async () => {{ {body} }})()");
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let result = self.call("Runtime.evaluate", &parameters);
        assert!(result["exceptionDetails"].is_null(), "{body}: {}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// Waits until a function's body is true in the page, whichever is open then.
    pub(crate) fn wait(&mut self, what: &str, body: &str) {
        let start = Instant::now();
        let expression = format!("(() => {{ {body} }})()");
        loop {
            // While a page is left there is none to ask.
            let result = self.call("Runtime.evaluate", &json!({ "expression": expression, "returnByValue": true }));
            if result["result"]["value"] == true {
                return;
            }
            if start.elapsed() > PATIENCE {
                let text = self.run("return `${location.href} ${document.body.innerText}`;");
                panic!("waited in vain until {what}: {}", text.as_str().unwrap());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Clicks where an element is, as a person would.
    pub(crate) fn click(&mut self, selector: &str) {
        // Images that have just come move what is below them.
        let place = self.run(&format!(
            "const element = document.querySelector({selector:?});
             let [before, place] = ['', []];
             for (let i = 0; i < 100; i++) {{
                 element.scrollIntoView({{ block: 'center', behavior: 'instant' }});
                 const box = element.getBoundingClientRect();
                 place = [box.x + box.width / 2, box.y + box.height / 2];
                 const there = document.elementFromPoint(...place);
                 if (place.join() === before && there && (element.contains(there) || there.contains(element))) break;
                 before = place.join();
                 await new Promise((wake) => setTimeout(wake, 50));
             }}
             return place;"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", &event);
        }
    }

    /// Chooses files in a form.
    pub(crate) fn choose_files(&mut self, selector: &str, files: &[PathBuf]) {
        let root = self.call("DOM.getDocument", &json!({}))["root"]["nodeId"].clone();
        let node = self.call("DOM.querySelector", &json!({ "nodeId": root, "selector": selector }))["nodeId"].clone();
        self.call("DOM.setFileInputFiles", &json!({ "nodeId": node, "files": files }));
    }

    pub(crate) fn set_screen(&mut self, screen: Screen) {
        let (width, height) = if screen == Screen::Phone { (390, 844) } else { (1280, 800) };
        let scheme = if screen == Screen::Dark { "dark" } else { "light" };
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", &scheme);
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": screen == Screen::Phone });
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
        // Images that have come into sight load now.
        thread::sleep(Duration::from_millis(150));
    }

    /// Writes the whole page as an image.
    pub(crate) fn screenshot(&mut self, path: &Path) {
        let shot = self.call("Page.captureScreenshot", &json!({ "captureBeyondViewport": true }));
        fs::write(path, BASE64_STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
