//! Headless Chromium, driven over a pipe by the DevTools protocol: JSON texts, each ended by a NUL.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{json, Value};

use super::support::{comes_true, tool};

/// Longest wait for a browser, which on a busy machine takes its time.
const LIMIT: Duration = Duration::from_secs(120);

const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--ignore-certificate-errors",
    "--hide-scrollbars",
    // A page behind another one is not slowed down.
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    "--disable-background-timer-throttling",
    "--remote-debugging-pipe",
];

/// Its process, and its profile in a folder that goes with it.
pub struct Browser {
    child: Child,
    profile: PathBuf,
    talk: Mutex<Talk>,
}

struct Talk {
    to: ChildStdin,
    from: Receiver<Value>,
    number: u64,
    /// Errors that scripts of pages did not catch.
    errors: Vec<String>,
}

impl Browser {
    /// `None`, with a line that says so, on a system without Chromium.
    pub fn start() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        tool("chromium")?;
        let name = format!("web-chat-browser-{}-{}", std::process::id(), NUMBER.fetch_add(1, SeqCst));
        let profile = std::env::temp_dir().join(name);
        std::fs::create_dir(&profile).unwrap();
        // Chromium reads from descriptor 3 and writes to 4.
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$@" 3<&0 4>&1 0</dev/null 1>&2"#, "sh", "chromium"]).args(FLAGS);
        command.arg(format!("--user-data-dir={}", profile.display())).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (to, pipe, (send, from)) = (child.stdin.take().unwrap(), child.stdout.take().unwrap(), mpsc::channel());
        std::thread::spawn(move || {
            for text in BufReader::new(pipe).split(0).map_while(Result::ok) {
                let _ = send.send(serde_json::from_slice(&text).unwrap());
            }
        });
        let talk = Mutex::new(Talk { to, from, number: 0, errors: Vec::new() });
        Some(Self { child, profile, talk })
    }

    fn talk(&self) -> MutexGuard<'_, Talk> {
        self.talk.lock().unwrap()
    }

    /// A tab of this size in pixels of CSS.
    pub fn open(&self, url: &str, width: u32, height: u32) -> Page<'_> {
        let target = self.talk().call("", "Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = self.talk().call("", "Target.attachToTarget", attach)["sessionId"].as_str().unwrap().to_owned();
        let page = Page { browser: self, session };
        page.call("Runtime.enable", json!({}));
        page.size(width, height);
        page.call("Page.navigate", json!({"url": url}));
        page.until("document.readyState === 'complete' && location.href !== 'about:blank'");
        page
    }
}

impl Talk {
    fn call(&mut self, session: &str, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": params});
        if !session.is_empty() {
            message["sessionId"] = session.into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let answer = self.from.recv_timeout(LIMIT).unwrap_or_else(|e| panic!("{method}: no answer: {e}"));
            if answer["method"] == "Runtime.exceptionThrown" {
                self.errors.push(answer["params"]["exceptionDetails"].to_string());
            }
            if answer["id"] == self.number {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("sh").args(["-c", "kill -s KILL -- \"$0\"", &group]).status();
        let _ = self.child.wait();
        // Its children may write into the folder until they have ended, too.
        comes_true(LIMIT, || std::fs::remove_dir_all(&self.profile).is_ok());
    }
}

/// A tab.
pub struct Page<'a> {
    browser: &'a Browser,
    session: String,
}

impl Page<'_> {
    fn call(&self, method: &str, params: Value) -> Value {
        self.browser.talk().call(&self.session, method, params)
    }

    /// The value of an expression.
    pub fn eval(&self, expression: &str) -> Value {
        let answer = self.call(
            "Runtime.evaluate",
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true}),
        );
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn until(&self, expression: &str) {
        let came = comes_true(LIMIT, || self.eval(expression) == true);
        assert!(came, "never true: {expression}; the page has\n{}", self.eval("document.body?.innerText"));
    }

    /// Waits until the log has this text.
    #[track_caller]
    pub fn until_log_has(&self, text: &str) {
        self.until(&format!("document.querySelector('#log').innerText.includes({})", json!(text)));
    }

    /// Types into the field that has the focus, and presses Enter.
    pub fn enter(&self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
        self.key("Enter", 13);
    }

    /// Presses a key and releases it.
    pub fn key(&self, key: &str, code: u32) {
        self.press(key, code, 0);
    }

    /// Goes back to the element before the one that has the focus. Returns that element's name for a screen reader.
    pub fn shift_tab(&self) -> String {
        self.press("Tab", 9, 8);
        let focused = |node: &Value| node["properties"].as_array().is_some_and(|all| all.iter().any(is_focused));
        let node = self.nodes().into_iter().rfind(focused);
        node.map_or_else(String::new, |node| node["name"]["value"].as_str().unwrap_or_default().to_owned())
    }

    fn press(&self, key: &str, code: u32, modifiers: u32) {
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let mut params =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            params["modifiers"] = modifiers.into();
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// Waits until a screen reader finds something of this role with this name.
    #[track_caller]
    pub fn until_heard(&self, role: &str, name: &str) {
        let is_it = |node: &Value| node["role"]["value"] == role && node["name"]["value"] == name;
        let came = comes_true(LIMIT, || self.nodes().iter().any(is_it));
        assert!(came, "no {role} {name:?} in {}", json!(self.nodes()));
    }

    /// What assistive technology is told of the page.
    fn nodes(&self) -> Vec<Value> {
        let tree = self.call("Accessibility.getFullAXTree", json!({}));
        tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] == false).cloned().collect()
    }

    pub fn size(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Puts the tab before the others. One that nobody sees may draw nothing.
    pub fn to_front(&self) {
        self.call("Page.bringToFront", json!({}));
    }

    /// `light` or `dark`.
    pub fn scheme(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// What of the page shows, as a PNG file.
    pub fn screenshot(&self, file: &Path) {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"}));
        std::fs::write(file, base64(shot["data"].as_str().unwrap())).unwrap();
    }

    /// No script of any page has failed.
    #[track_caller]
    pub fn no_errors(&self) {
        self.eval("0"); // what has been thrown so far has been read by the answer
        assert_eq!(self.browser.talk().errors, Vec::<String>::new());
    }
}

fn is_focused(property: &Value) -> bool {
    property["name"] == "focused" && property["value"]["value"] == true
}

fn base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|c| *c != b'=').map(value).collect();
    let bytes = digits.chunks(4).flat_map(|four| {
        let bits = four.iter().enumerate().fold(0, |bits, (i, v)| bits | u32::from(*v) << (18 - 6 * i));
        bits.to_be_bytes()[1..four.len()].to_vec()
    });
    bytes.collect()
}
