//! A real browser, asked by WebDriver: Chromium through its `chromedriver`, both Debian's packages.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::wait;

/// WebDriver's name for a reference to an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-prefers-reduced-motion",
];

/// A browser with one window; dropping it kills it.
pub(crate) struct Browser {
    driver: Child,
    session: String,
    http: reqwest::Client,
    _profile: TempDir,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        // Free now; if another takes it first, the driver says so and ends.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={}", address.port()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // The browser is its child, so that both end with the group.
            .process_group(0)
            .spawn()
            .expect("chromedriver: `./test` installs it (Debian's chromium-driver)");
        let http = crate::support::http(Duration::from_secs(60));
        let profile = tempfile::Builder::new().prefix("foldline-browser-").tempdir().unwrap();
        let url = format!("http://{address}/session");
        let mut browser = Browser { driver, session: url, http, _profile: profile };
        let flags = FLAGS.iter().map(|flag| (*flag).to_owned());
        let own = format!("--user-data-dir={}", browser._profile.path().display());
        let asked = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": flags.chain([own]).collect::<Vec<_>>() },
        } } });
        let opened = wait::until("the browser opens", wait::SOON, async || {
            browser.send("POST", "", &asked).await
        })
        .await;
        browser.session = format!("{}/{}", browser.session, opened["sessionId"].as_str().unwrap());
        browser
    }

    /// A command of WebDriver; its value, or its error as a text.
    async fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let with_body = method == reqwest::Method::POST;
        let mut request = self.http.request(method, format!("{}{path}", self.session));
        if with_body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let mut answer: Value = answer.json().await.map_err(|error| error.to_string())?;
        let value = answer["value"].take();
        match value.get("error") {
            Some(error) if error.is_string() => Err(format!("{error}: {}", value["message"])),
            _ => Ok(value),
        }
    }

    async fn must(&self, path: &str, body: Value) -> Value {
        self.send("POST", path, &body).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(crate) async fn open(&self, url: &str) {
        self.must("/url", json!({ "url": url })).await;
    }

    pub(crate) async fn size(&self, width: u32, height: u32) {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.chrome("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Whether the system prefers dark colours.
    pub(crate) async fn prefer_dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.chrome("Emulation.setEmulatedMedia", features).await;
    }

    async fn chrome(&self, command: &str, parameters: Value) {
        self.must("/goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await;
    }

    /// The body of a function, run in the page; what it returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.must("/execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// Waits until the script returns what fits.
    pub(crate) async fn until(&self, script: &str, fits: impl Fn(&Value) -> bool) -> Value {
        wait::until(script, wait::SOON, async || {
            let found = self
                .send("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
                .await?;
            if fits(&found) { Ok(found) } else { Err(found.to_string()) }
        })
        .await
    }

    /// Waits until the page's visible text has this.
    pub(crate) async fn sees(&self, text: &str) {
        let script = "return document.body.innerText";
        self.until(script, |found| found.as_str().is_some_and(|found| found.contains(text))).await;
    }

    /// Waits until it no longer has this.
    pub(crate) async fn sees_no(&self, text: &str) {
        let script = "return document.body.innerText";
        self.until(script, |found| found.as_str().is_some_and(|found| !found.contains(text))).await;
    }

    /// The visible element that an XPath names, as soon as there is one that takes this command.
    async fn act(&self, xpath: &str, command: &str, body: &Value) {
        wait::until(&format!("{command} of {xpath}"), wait::SOON, async || {
            let asked = json!({ "using": "xpath", "value": xpath });
            let found = self.send("POST", "/element", &asked).await?;
            let element = found[ELEMENT].as_str().ok_or("no element")?;
            self.send("POST", &format!("/element/{element}/{command}"), body).await
        })
        .await;
    }

    /// Clicks the button with this text, as a person does: it must be in sight and free.
    pub(crate) async fn press(&self, text: &str) {
        self.act(&format!("//button[normalize-space()={text:?}]"), "click", &json!({})).await;
    }

    /// Clicks what an XPath names.
    pub(crate) async fn click(&self, xpath: &str) {
        self.act(xpath, "click", &json!({})).await;
    }

    /// Types into the field with this label, in place of what stands there.
    pub(crate) async fn fill(&self, label: &str, text: &str) {
        let field = format!("//input[@id=//label[normalize-space()={label:?}]/@for]");
        self.act(&field, "clear", &json!({})).await;
        self.act(&field, "value", &json!({ "text": text })).await;
    }

    /// What axe finds against the page as it stands.
    pub(crate) async fn assert_accessible(&self, what: &str) {
        if self.run("return typeof axe").await == "undefined" {
            let path = std::env::var("FOLDLINE_AXE")
                .expect("FOLDLINE_AXE is not set: `./test` downloads axe and sets it");
            self.run(&std::fs::read_to_string(path).unwrap()).await;
        }
        let script = "const done = arguments[0]; axe.run(document).then(({ violations, passes }) => done({
            passes: passes.length,
            violations: violations.map(({ id, nodes }) => [id, nodes.map(({ html, failureSummary }) => [html, failureSummary])]),
        }))";
        let found = self.must("/execute/async", json!({ "script": script, "args": [] })).await;
        assert_eq!(found["violations"], json!([]), "{what}");
        assert!(
            found["passes"].as_u64().is_some_and(|passes| passes > 10),
            "{what}: axe looked at {found}"
        );
    }

    /// What the browser complained of since the last time.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let entries = self.must("/se/log", json!({ "type": "browser" })).await;
        let message = |entry: &Value| entry["message"].as_str().unwrap_or_default().to_owned();
        entries.as_array().unwrap().iter().map(message).collect()
    }

    pub(crate) async fn close(self) {
        self.send("DELETE", "", &Value::Null).await.unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = format!("-{}", self.driver.id());
        drop(Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status());
        drop(self.driver.wait());
    }
}
