//! A headless Chromium, driven by the WebDriver protocol (W3C), which is JSON over HTTP.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::http::send;
use crate::processes::eventually;

pub struct Browser {
    driver: Child,
    _out: BufReader<ChildStdout>,
    port: u16,
    session: String,
    profile: PathBuf,
}

/// The key under which the protocol passes a reference to an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";

impl Browser {
    /// `name` is the name of the test. Each test has a browser profile of its own.
    pub fn start(name: &str) -> Browser {
        let profile = format!("predictions-{name}-{}", std::process::id());
        let profile = std::env::temp_dir().join(profile);
        let missing =
            "this test needs chromedriver in the path: apt-get install chromium chromium-driver";
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect(missing);
        let mut out = BufReader::new(driver.stdout.take().expect("its output"));
        let port = loop {
            let mut line = String::new();
            let length = out.read_line(&mut line).expect("its port");
            assert!(length > 0, "chromedriver ended: {missing}");
            let port = line.trim().trim_end_matches('.').rsplit_once("on port ");
            if let Some((_, port)) = port.filter(|_| line.contains("successfully")) {
                break port.parse().expect("a port");
            }
        };
        let mut browser = Browser {
            driver,
            _out: out,
            port,
            session: String::new(),
            profile,
        };
        browser.open_session();
        browser
    }

    fn open_session(&mut self) {
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
        arguments.push(format!("--user-data-dir={}", self.profile.display()));
        let wanted = json!({ "alwaysMatch": { "goog:chromeOptions": { "args": arguments } } });
        let opened = self.ask("POST", "/session", &json!({ "capabilities": wanted }));
        let session = opened["sessionId"].as_str();
        self.session = format!("/session/{}", session.expect("a session"));
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let (json, path) = (
            "Content-Type: application/json\r\n",
            format!("{}{path}", self.session),
        );
        let answer = send(self.port, method, &path, json, &body.to_string());
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        answer.json()["value"].take()
    }

    pub fn open(&self, url: &str) {
        self.ask("POST", "/url", &json!({ "url": url }));
    }

    pub fn script(&self, script: &str) -> Value {
        self.ask(
            "POST",
            "/execute/sync",
            &json!({ "script": script, "args": [] }),
        )
    }

    fn element(&self, selector: &str) -> String {
        let found = json!({ "using": "css selector", "value": selector });
        let found = self.ask("POST", "/element", &found);
        found[ELEMENT].as_str().expect("an element").to_owned()
    }

    /// Clicks like a person: the element must be visible, with nothing in front of it.
    pub fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.ask("POST", &format!("/element/{element}/click"), &json!({}));
    }

    pub fn text(&self, selector: &str) -> String {
        let element = self.element(selector);
        // A GET without a body.
        let path = format!("{}/element/{element}/text", self.session);
        let mut answer = send(self.port, "GET", &path, "", "").json();
        answer["value"]
            .take()
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The text of an element as a number, without the spaces in it.
    pub fn number(&self, selector: &str) -> Option<u64> {
        let digits = self.text(selector);
        let digits: String = digits.split_whitespace().collect();
        digits.parse().ok()
    }

    pub fn says(&self, selector: &str, text: &str) {
        eventually(&format!("{selector} says {text}"), || {
            self.text(selector).contains(text)
        });
    }

    pub fn press(&self, key: &str) {
        let actions =
            json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let keyboard = json!([{ "type": "key", "id": "keyboard", "actions": actions }]);
        self.ask("POST", "/actions", &json!({ "actions": keyboard }));
    }

    /// Sets the width of the screen and the preferred colour scheme.
    pub fn screen(&self, width: u32, scheme: &str) {
        let command = |name: &str, parameters: Value| {
            let body = json!({ "cmd": name, "params": parameters });
            self.ask("POST", "/goog/cdp/execute", &body);
        };
        let size = json!({ "width": width, "height": 740, "deviceScaleFactor": 1, "mobile": true });
        command("Emulation.setDeviceMetricsOverride", size);
        let preferred =
            json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        command("Emulation.setEmulatedMedia", preferred);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser, because the driver alone would leave it running.
        if !std::thread::panicking() {
            self.ask("DELETE", "", &json!({}));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
