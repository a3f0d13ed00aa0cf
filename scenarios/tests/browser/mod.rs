//! A headless browser, driven over the DevTools protocol by a pipe.
//!
//! - <https://chromedevtools.github.io/devtools-protocol/>
//! - content/browser/devtools/devtools_pipe_handler.cc: commands arrive on
//!   descriptor 3, answers and events go to 4, each a JSON text that ends with
//!   NUL

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde_json::{Value, json};
use tempfile::TempDir;

use faultlab_testkit::PATIENCE;
use faultlab_testkit::leave_out;

/// The names of the Chromium executable.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// It has a separate profile and connects to nothing. It shows only pages of
/// this project, so it may run without its sandbox, even as root.
const OPTIONS: [&str; 9] = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-breakpad",
];

/// A browser with one page. It ends with the thread that started it.
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    /// The number of commands so far.
    count: u64,
    session: Option<String>,
    /// Its unsolicited events.
    events: Vec<Value>,
    address: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts it in a network namespace without links. Skips the test if none
    /// can be created.
    pub fn start() -> Self {
        let program = find().unwrap_or_else(|| leave_out("chromium is not installed: nothing to read with"));
        let profile = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1"]).arg(program);
        command.args(OPTIONS).arg(format!("--user-data-dir={}", profile.path().display()));
        command.env("HOME", profile.path()).env("TMPDIR", profile.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let user = if geteuid().is_root() { CloneFlags::empty() } else { CloneFlags::CLONE_NEWUSER };
        let apart = move || {
            set_pdeathsig(Signal::SIGKILL)?;
            Ok(unshare(user | CloneFlags::CLONE_NEWNET)?)
        };
        // SAFETY: `apart` makes two system calls and allocates nothing.
        #[allow(unsafe_code, reason = "code between fork and exec, see SAFETY")]
        let command = unsafe { command.pre_exec(apart) };
        let mut child =
            command.spawn().unwrap_or_else(|e| leave_out(format!("a network namespace for a browser: {e}")));
        let commands = child.stdin.take().expect("a pipe");
        let mut answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let (tell, messages) = channel();
        thread::spawn(move || {
            let mut text = vec![];
            while let Ok(1..) = answers.read_until(0, &mut text) {
                let message = serde_json::from_slice(text.strip_suffix(&[0]).unwrap_or(&text));
                text.clear();
                if message.map_or(true, |message| tell.send(message).is_err()) {
                    break;
                }
            }
        });
        let mut browser = Self {
            child,
            commands,
            messages,
            count: 0,
            session: None,
            events: vec![],
            address: String::new(),
            _profile: profile,
        };
        let target = browser.ask("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.ask("Target.attachToTarget", &attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.ask(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// Sends a command and waits for its answer.
    pub fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.count += 1;
        let mut command = json!({ "id": self.count, "method": method, "params": params });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        let mut text = command.to_string().into_bytes();
        text.push(0);
        self.commands.write_all(&text).expect("the browser takes commands");
        loop {
            let mut message = self.next(method);
            if message["id"] == self.count {
                assert!(message["error"].is_null(), "{command}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    fn next(&mut self, wanted: &str) -> Value {
        self.messages.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("waited for {wanted}: {e}"))
    }

    /// Opens a file and waits until it is displayed.
    pub fn open(&mut self, file: &Path) {
        self.address = format!("file://{}", file.display());
        let since = self.events.len();
        self.ask("Page.navigate", &json!({ "url": self.address }));
        while !self.events[since..].iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.next("the page");
            self.events.push(event);
        }
    }

    /// Sets the width of the page, in pixels, and its colour scheme.
    pub fn show(&mut self, width: u32, scheme: &str) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.ask("Emulation.setDeviceMetricsOverride", &size);
        let wanted = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask("Emulation.setEmulatedMedia", &wanted);
    }

    /// Shows the page as on paper of this width, in CSS pixels.
    pub fn show_on_paper(&mut self, width: u32, scheme: &str) {
        self.show(width, scheme);
        let wanted =
            json!({ "media": "print", "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask("Emulation.setEmulatedMedia", &wanted);
    }

    /// Prints the page on A4, as a PDF with an outline of its headings.
    pub fn print(&mut self) -> Vec<u8> {
        let [width, height] = [210.0, 297.0].map(|millimetres| millimetres / 25.4);
        let paper = json!({
            "paperWidth": width, "paperHeight": height, "preferCSSPageSize": true,
            "generateTaggedPDF": true, "generateDocumentOutline": true,
        });
        let printed = self.ask("Page.printToPDF", &paper);
        BASE64_STANDARD.decode(printed["data"].as_str().expect("a document")).expect("base64")
    }

    /// The value of a JavaScript expression on the page.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let mut done =
            self.ask("Runtime.evaluate", &json!({ "expression": expression, "returnByValue": true }));
        assert!(done["exceptionDetails"].is_null(), "{expression}: {done}");
        done["result"]["value"].take()
    }

    /// Clicks on the first element of a CSS selector.
    pub fn click(&mut self, selector: &str) {
        let place = self.evaluate(&format!(
            "(() => {{
               const chosen = document.querySelector({selector:?});
               chosen.scrollIntoView({{ block: 'center' }});
               const box = chosen.getBoundingClientRect();
               return [box.x + box.width / 2, box.y + box.height / 2];
             }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let click =
                json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.ask("Input.dispatchMouseEvent", &click);
        }
    }

    /// Presses the Enter key on the focused element.
    pub fn enter(&mut self) {
        for (kind, text) in [("keyDown", "\r"), ("keyUp", "")] {
            let key = json!({
                "type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": text,
            });
            self.ask("Input.dispatchKeyEvent", &key);
        }
    }

    /// The page's requests for anything but itself, its console messages and its
    /// dialogs.
    pub fn complaints(&self) -> Vec<String> {
        let one = |event: &Value| {
            let about = &event["params"];
            match event["method"].as_str()? {
                "Network.requestWillBeSent" => {
                    let asked = about["request"]["url"].as_str().unwrap_or_default();
                    (asked.split('#').next() != Some(&self.address)).then(|| format!("it asks for {asked}"))
                }
                "Runtime.consoleAPICalled"
                | "Runtime.exceptionThrown"
                | "Log.entryAdded"
                | "Page.javascriptDialogOpening" => Some(event.to_string()),
                _ => None,
            }
        };
        self.events.iter().filter_map(one).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Wait for its exit: it writes to its profile until then.
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    PROGRAMS.iter().flat_map(|name| folders.iter().map(move |f| f.join(name))).find(|file| file.is_file())
}
