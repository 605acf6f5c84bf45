//! `foldline test`, `validate`, `plan` and `schema` as commands: what they print, and their exit codes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

const CONFIG: &str = r#"
[projections.orders]
topics = ["orders"]
key    = { id = "event.id" }
[projections.orders.fields]
id = "bigint"
n  = { type = "bigint", default = 0 }
[[projections.orders.on]]
add = { n = "event.n" }
[[projections.orders.tests]]
name   = "sums"
given  = ['{"id":1,"n":2}', '{"id":1,"n":3}']
expect = [{ id = 1, n = 5 }]
[[projections.orders.tests]]
name   = "an event without a key is bad"
given  = ['{"n":2}']
expect = []
bad    = 1
"#;

pub(crate) fn foldline(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foldline"));
    command.args(arguments).stdin(Stdio::null()).env_remove("FOLDLINE_CONFIG");
    command
}

/// Exit code, standard output, standard error.
pub(crate) fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = foldline(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

pub(crate) fn write(directory: &Path, text: &str) -> String {
    let file = directory.join("config.toml");
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

/// `cargo run` alone is the daemon, with more than one binary in the workspace.
#[test]
fn cargo_run_means_foldline() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let chosen: Vec<_> = packages.iter().filter_map(|p| p["default_run"].as_str()).collect();
    assert_eq!(chosen, ["foldline"]);
}

#[test]
fn exit_codes_tell_done_failed_usage_and_config_apart() {
    let directory = tempfile::tempdir().unwrap();
    let good = write(directory.path(), CONFIG);
    let (code, out, _) = run(&["test", &good]);
    assert_eq!((code, out.lines().last()), (Some(0), Some("2 passed, 0 failed")), "{out}");
    let wrong = write(directory.path(), &CONFIG.replace("n = 5", "n = 6"));
    let (code, out, _) = run(&["test", &wrong]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("row 1: n is 5, expected 6 (since record 2)"), "{out}");
    assert!(out.contains("> 2 orders applied"), "{out}");
    let broken = write(directory.path(), &CONFIG.replace("event.n\"", "evnt.n\""));
    let (code, _, err) = run(&["test", &broken]);
    assert_eq!(code, Some(78), "{err}");
    assert!(err.contains("config.toml:9") && err.contains("did you mean event.n ?"), "{err}");
    assert_eq!(run(&["test", "--no-such"]).0, Some(2));
    assert_eq!(run(&["test", "/no/such/path"]).0, Some(78));
}

#[test]
fn a_filter_runs_what_it_names_and_fails_where_it_names_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let good = write(directory.path(), CONFIG);
    let (code, out, _) = run(&["test", &good, "--filter", "orders/sums"]);
    assert_eq!((code, out.lines().last()), (Some(0), Some("1 passed, 0 failed")), "{out}");
    let (code, out, err) = run(&["test", &good, "--filter", "sms"]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("\"sms\""), "{err}");
}

#[test]
fn json_says_what_the_text_says() {
    let directory = tempfile::tempdir().unwrap();
    let wrong = write(directory.path(), &CONFIG.replace("n = 5", "n = 6"));
    let (code, out, _) = run(&["test", &wrong, "--json"]);
    assert_eq!(code, Some(1));
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&found["passed"], &found["failed"]), (&Value::from(1), &Value::from(1)));
    let failure = &found["tests"][0]["failure"];
    assert_eq!(failure["differences"][0]["kind"], "field", "{failure}");
    assert_eq!(failure["differences"][0]["record"], 2, "{failure}");
    assert_eq!(found["tests"][1]["failure"], Value::Null);
}

/// The projection with a connector that runs it.
fn connected() -> String {
    format!(
        "{CONFIG}\n[sources.e]\ntype = \"file\"\npath = \"log\"\n[sinks.s]\ntype = \"sqlite\"\n\
         path = \"rows.db\"\n[connectors.orders]\nprojection = \"orders\"\nsink = \"s\"\n"
    )
}

#[test]
fn validate_warns_where_the_order_of_partitions_decides() {
    let directory = tempfile::tempdir().unwrap();
    let (code, out, err) = run(&["validate", &write(directory.path(), &connected())]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "sums commute: {out}");
    let last_wins = write(directory.path(), &connected().replace("add = {", "set = {"));
    let (code, out, err) = run(&["validate", &last_wins]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("ok:"), "{out}");
    assert!(
        err.contains("warning") && err.contains("n depends on the order of partitions"),
        "{err}"
    );
    let (_, out, _) = run(&["validate", &last_wins, "--json"]);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found["problems"][0]["severity"], "warning", "{found}");
    assert_eq!(found["problems"][0]["path"], "projections.orders.key", "{found}");
}

#[test]
fn plan_needs_no_server_and_names_what_it_does_not_know() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), &connected());
    let (code, out, err) = run(&["plan", "orders", "-c", &file]);
    assert_eq!(code, Some(0), "{err}");
    for part in
        ["key: id = event.id", "n bigint, default 0", "on[0]: add n = event.n", "CREATE TABLE"]
    {
        assert!(out.contains(part), "no {part:?} in {out}");
    }
    // A script of SQL as it stands: what takes parameters is in its comments.
    let script: String = out
        .lines()
        .filter(|line| !line.starts_with("--"))
        .map(|line| format!("{line}\n"))
        .collect();
    for statement in script.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
        assert!(statement.starts_with("CREATE "), "{statement}");
    }
    assert!(out.contains("-- INSERT"), "{out}");
    let (code, _, err) = run(&["plan", "oders", "-c", &file]);
    assert_eq!(code, Some(1));
    assert!(err.contains("known are orders"), "{err}");
    let (code, out, _) = run(&["schema"]);
    assert_eq!(code, Some(0));
    assert!(serde_json::from_str::<Value>(&out).unwrap()["definitions"]["handler"].is_object());
}

/// Docker hands the build what `.dockerignore` lets through, so cargo must be content with just that.
#[test]
fn the_image_is_built_from_all_that_cargo_reads() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ignored = std::fs::read_to_string(root.join(".dockerignore")).unwrap();
    let sources = tempfile::tempdir().unwrap();
    let kept: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let copied = Command::new("cp")
        .arg("-r")
        .args(kept.iter().map(|name| root.join(name)))
        .arg(sources.path())
        .status()
        .unwrap();
    assert!(copied.success());
    let read = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        // What only other platforms need was not downloaded.
        .args(["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)])
        .current_dir(sources.path())
        .output()
        .unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
}

/// A running `foldline test --watch`; dropping it kills it.
struct Watching {
    child: Child,
    lines: Receiver<String>,
}

impl Watching {
    fn start(path: &str, more: &[&str]) -> Self {
        let mut command = foldline(&["test", path, "--watch"]);
        let mut child =
            command.args(more).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Watching { child, lines }
    }

    /// Reads on until a line holds `part`.
    fn says(&self, part: &str) {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(30)) {
                Ok(line) if line.contains(part) => return,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no {part:?} in {seen:#?}"),
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn watch_runs_again_on_each_save_and_outlasts_a_broken_config() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), CONFIG);
    let watching = Watching::start(&directory.path().display().to_string(), &[]);
    watching.says("2 passed, 0 failed");
    watching.says("waiting");
    write(directory.path(), &CONFIG.replace("n = 5", "n = 6"));
    watching.says("1 passed, 1 failed");
    write(directory.path(), "= broken");
    watching.says("waiting");
    std::fs::remove_file(&path).unwrap();
    watching.says("waiting");
    write(directory.path(), CONFIG);
    watching.says("2 passed, 0 failed");
}

#[test]
fn watch_prints_a_line_of_json_for_each_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), CONFIG);
    let watching = Watching::start(&path, &["--json"]);
    watching.says("\"passed\":2");
    write(directory.path(), &CONFIG.replace("event.n\"", "evnt.n\""));
    watching.says("\"problems\":[{");
}

/// What `foldline produce` prints and leaves in the topic, for this standard input.
fn produce(directory: &Path, config: &str, input: &[u8]) -> (Option<i32>, String, Vec<u8>) {
    let mut command = foldline(&["produce", "orders", "-c", config]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let log = std::fs::read(directory.join("log/orders/0.ndjson")).unwrap_or_default();
    (output.status.code(), String::from_utf8(said).unwrap(), log)
}

#[test]
fn produce_sends_nothing_where_a_line_is_no_record_and_names_the_lines() {
    let directory = tempfile::tempdir().unwrap();
    let config = write(directory.path(), "[sources.events]\ntype = \"file\"\npath = \"log\"\n");
    let wrong = [
        &b"{\"key\":1,\"value\":{}}\n\n{\"value\":1,}\n"[..],
        b"{\"vlaue\":1}\n\xff\n{\"value\":2}\n",
        b"{\"timestamp\":1767225600000000}",
    ];
    let (code, said, log) = produce(directory.path(), &config, &wrong.concat());
    assert_eq!((code, log.len()), (Some(1), 0), "{said}");
    for line in [
        "nothing was sent",
        "line 3: not JSON",
        "line 4: `vlaue`: an unknown name",
        "line 5: not JSON",
        "line 7: `timestamp`: outside the years 1 to 9999",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
    let many = "[1]\n".repeat(12);
    let (_, said, _) = produce(directory.path(), &config, many.as_bytes());
    assert!(said.contains("line 10: not an object") && said.contains("and 2 more"), "{said}");
    let right = b"{\"key\":\"a\",\"value\":{\"n\":1}}\r\n\n{\"value\":null}";
    let (code, said, log) = produce(directory.path(), &config, right);
    assert_eq!((code, &*said), (Some(0), "2 records to orders\n"));
    assert_eq!(log, b"{\"key\":\"a\",\"value\":{\"n\":1}}\n{}\n");
}

/// Change events as Debezium writes them with schemas, by a source whose config does not know of it yet.
const CHANGE: &str = concat!(
    r#"{"key":{"schema":{"type":"struct","fields":[{"field":"id","type":"int64"}]},"payload":{"id":4711}},"value":"#,
    r#"{"schema":{"type":"struct","fields":[{"field":"after","type":"struct","optional":true,"fields":["#,
    r#"{"field":"id","type":"int64"},{"field":"name","type":"string","optional":true},"#,
    r#"{"field":"at","type":"int64","optional":true,"name":"io.debezium.time.Timestamp"}]},"#,
    r#"{"field":"op","type":"string"}]},"payload":{"after":{"id":4711,"name":"Ann","at":1580702706000},"op":"c"}}}"#,
    "\n"
);

#[test]
fn suggest_reads_change_events_and_says_which_converters_they_need() {
    let directory = tempfile::tempdir().unwrap();
    let source = "[sources.events]\ntype = \"file\"\npath = \"log\"\n";
    let config = write(directory.path(), source);
    let (code, said, _) = produce(directory.path(), &config, CHANGE.repeat(2).as_bytes());
    assert_eq!(code, Some(0), "{said}");
    let output = foldline(&["suggest", "orders", "-c", &config]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "value = \"connect-json\" for topic orders",
        "key = \"connect-json\" for topic orders",
        "envelope = \"debezium\"",
        "key = { id = \"event.id\" }",
        "at = \"timestamptz\"",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    assert!(!text.contains("Ann") && !text.contains("4711") && !text.contains("bad ="), "{text}");
    let converters = "key = \"connect-json\"\nvalue = \"connect-json\"\n";
    let config = write(directory.path(), &format!("{source}{converters}{text}"));
    for command in ["validate", "test"] {
        let output = foldline(&[command, &config]).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}\n{text}");
    }
}
