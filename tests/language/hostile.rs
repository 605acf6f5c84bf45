//! What a record must not do to the terminal of whoever looks at it, nor a web page to a worker on the same machine.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::commands::{foldline, run, write};

const CONFIG: &str = r#"
[worker]
listen = "LISTEN"
[sources.f]
type = "file"
path = "DIRECTORY/log"
[sinks.s]
type = "sqlite"
path = "DIRECTORY/rows.db"
[projections.p]
topics = ["t"]
event_type = "event.type"
key = { id = "event.id" }
fields = { id = "text", v = "text", n = "bigint" }
on = [{ set = { v = "event.v", n = "event.n" } }]
[connectors.c]
projection = "p"
sink = "s"
errors = { on_bad_record = "park" }
"#;

/// Clears the screen, sets the title, forges a line, turns the direction.
const HOSTILE: &str = "\u{1b}]0;x\u{7}\u{1b}[2J\u{1b}[31mOK\nforged:0:0   1\u{9b}31m\u{202e}";
const LONG: Duration = Duration::from_secs(60);

/// A running worker; dropping it kills it.
struct Running {
    child: Child,
    address: String,
    config: String,
}

impl Running {
    fn start(directory: &Path, records: &[Value]) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let text = CONFIG
            .replace("LISTEN", &address)
            .replace("DIRECTORY", &directory.display().to_string());
        let config = write(directory, &text);
        let mut produce =
            foldline(&["produce", "t", "-c", &config]).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = produce.stdin.take().unwrap();
        records.iter().for_each(|record| writeln!(input, "{record}").unwrap());
        drop(input);
        assert!(produce.wait().unwrap().success());
        let log = std::fs::File::create(directory.join("stderr")).unwrap();
        let child = foldline(&["run", &config]).stderr(log).spawn().unwrap();
        Running { child, address, config }
    }

    /// Waits until `arguments` print what `holds` wants.
    fn until(&self, arguments: &[&str], holds: impl Fn(&str) -> bool) -> (Option<i32>, String) {
        let begun = Instant::now();
        let mut all = arguments.to_vec();
        all.extend(["-c", &self.config]);
        loop {
            let (code, out, err) = run(&all);
            if holds(&out) {
                return (code, out + &err);
            }
            assert!(begun.elapsed() < LONG, "{arguments:?}: {out}{err}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Status of a GET with this header.
    fn get(&self, path: &str, header: &str) -> String {
        use std::io::Read;
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\n{header}\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn is_clean(text: &str) -> bool {
    !text.contains(|c: char| c != '\n' && (c.is_control() || matches!(c, '\u{202a}'..='\u{202e}')))
}

#[test]
fn keys_and_event_names_never_steer_a_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let (good, bad) = (format!("{HOSTILE}A"), format!("{HOSTILE}B"));
    let worker = Running::start(
        directory.path(),
        &[
            json!({"key": "a", "value": {"id": good, "v": HOSTILE, "n": 1, "type": HOSTILE}}),
            json!({"key": "b", "value": {"id": bad, "n": "no number", "type": HOSTILE}}),
        ],
    );
    for json in [&["--json"][..], &[]] {
        let list = [&["parked", "list", "c"][..], json].concat();
        let (_, out) = worker.until(&list, |out| out.contains("t:0"));
        assert!(is_clean(&out), "{out:?}");
        assert!(out.contains("\\u001b[2J") && out.contains("\\u202e"), "{out:?}");
        assert!(!out.lines().any(|line| line.starts_with("forged")), "{out:?}");
        let explain = [&["explain", "c", &good][..], json].concat();
        let (code, out) = worker.until(&explain, |out| !out.is_empty());
        assert!(is_clean(&out), "{out:?}");
        assert_eq!(code, Some(0), "{out}");
        let (_, out) = worker.until(&[&["status"][..], json].concat(), |out| !out.is_empty());
        assert!(is_clean(&out), "{out:?}");
    }
    let shown = worker.until(&["parked", "show", "c", "t:0:1"], |out| out.contains("forged")).1;
    assert!(is_clean(&shown), "{shown:?}");
    let (_, _, err) = run(&["explain", "c\u{1b}[31m", "no", "-c", &worker.config]);
    assert!(is_clean(&err), "{err:?}");
    drop(worker);
    let log = std::fs::read_to_string(directory.path().join("stderr")).unwrap();
    assert!(is_clean(&log), "{log:?}");
}

#[test]
fn a_row_of_any_key_can_be_explained() {
    let directory = tempfile::tempdir().unwrap();
    let keys = ["..", ".", "", "a\tb", "a\nb", "a/../b", "%2e%2e", "a?b#c", "ä"];
    let record = |key: &&str| json!({"key": "k", "value": {"id": key, "v": "x", "n": 1}});
    let records: Vec<Value> = keys.iter().map(record).collect();
    let worker = Running::start(directory.path(), &records);
    for key in keys {
        let explain = ["explain", "c", key, "--json"];
        let (_, out) = worker.until(&explain, |out| out.contains("\"events\":1"));
        let summary: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        assert_eq!(summary["summary"]["row"]["id"], *key, "{out}");
    }
}

#[test]
fn files_are_their_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let record = json!({"key": "k", "value": {"id": "1", "v": "x", "n": 1}});
    let worker = Running::start(directory.path(), &[record]);
    worker.until(&["status"], |out| out.contains("RUNNING"));
    worker.until(&["explain", "c", "1"], |out| out.contains("is the same"));
    let mut folders = vec![directory.path().join("log")];
    let mut seen = vec![directory.path().join("rows.db")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let folder = entry.file_type().unwrap().is_dir();
            if folder { folders.push(entry.path()) } else { seen.push(entry.path()) }
        }
    }
    assert!(seen.len() > 2, "{seen:?}");
    for file in seen {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o77, 0, "{}: {mode:o}", file.display());
    }
}

#[test]
fn a_page_from_elsewhere_asks_in_vain() {
    let directory = tempfile::tempdir().unwrap();
    let record = json!({"key": "k", "value": {"id": "1", "v": "x", "n": 1}});
    let worker = Running::start(directory.path(), &[record]);
    worker.until(&["status"], |out| out.contains("RUNNING"));
    let own = format!("host: {}", worker.address);
    assert_eq!(worker.get("/connectors", &own), "200");
    assert_eq!(worker.get("/connectors", "host: evil.example"), "403");
    for caused in
        ["sec-fetch-site: cross-site", "sec-fetch-site: same-site", "origin: http://evil.example"]
    {
        let headers = format!("{own}\r\n{caused}");
        assert_eq!(worker.get("/connectors/c/explain?key=1", &headers), "403", "{caused}");
    }
}

#[test]
fn a_blank_token_is_none() {
    let directory = tempfile::tempdir().unwrap();
    for (token, allowed) in [("", false), ("  ", false), ("x", true)] {
        let config = write(directory.path(), &format!("[worker]\ntoken = {token:?}\n"));
        let (code, _, err) = run(&["validate", &config]);
        assert_eq!(code == Some(0), allowed, "{token:?}: {err}");
        assert!(allowed || err.contains("worker.token"), "{err}");
    }
}
