//! The worker as a process.

use std::fs::File;
use std::io::{Seek, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::scrape::Scrape;
use super::wait;

const LOG_LINES: usize = 60;

/// SIGABRT: a failpoint's way to die.
pub(crate) const ABORTED: i32 = 6;

/// A running worker; dropping it kills it.
pub(crate) struct Daemon {
    child: Child,
    /// The worker's name in the config: groups begin with it.
    name: String,
    config: PathBuf,
    log: PathBuf,
    url: String,
    http: reqwest::Client,
}

/// What a process holds: bytes of memory, threads, open files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) memory: u64,
    pub(crate) threads: u64,
    pub(crate) files: u64,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

fn foldline() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foldline"));
    command.stdin(Stdio::null()).env_remove("FOLDLINE_CONFIG").env_remove("RUST_LOG");
    command
}

/// Runs a command of the binary, in `directory`.
pub(crate) fn run_in(directory: &Path, arguments: &[&str]) -> Printed {
    printed(foldline().args(arguments).current_dir(directory))
}

/// As `run_in`, where nothing says where any server is.
pub(crate) fn run_bare(directory: &Path, arguments: &[&str]) -> Printed {
    let mut command = foldline();
    for variable in ["KAFKA", "DATABASE_URL", "ELASTICSEARCH"] {
        command.env_remove(variable);
    }
    printed(command.args(arguments).current_dir(directory))
}

/// As `run_in`, with this on standard input.
pub(crate) fn run_in_with(directory: &Path, arguments: &[&str], input: &str) -> Printed {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input.as_bytes()).unwrap();
    file.rewind().unwrap();
    printed(foldline().args(arguments).current_dir(directory).stdin(file))
}

fn printed(command: &mut Command) -> Printed {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Printed { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

impl Daemon {
    /// `environment` is set beside what the worker needs.
    pub(crate) fn spawn(
        name: &str,
        config: &Path,
        log: &Path,
        environment: &[(&str, &str)],
    ) -> Self {
        // Free now; whoever takes it before the worker does is seen in the log.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let file = File::create(log).unwrap();
        let child = foldline()
            .arg("run")
            .arg(config)
            .env("FOLDLINE__WORKER__LISTEN", address.to_string())
            .env(
                "RUST_LOG",
                std::env::var("FOLDLINE_E2E_LOG").unwrap_or("info,foldline=debug".to_owned()),
            )
            .env("RUST_BACKTRACE", "1")
            .envs(environment.iter().copied())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let http = crate::support::http(Duration::from_secs(10));
        let (config, log) = (config.to_owned(), log.to_owned());
        let name = name.to_owned();
        Daemon { child, name, config, log, url: format!("http://{address}"), http }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Waits until the listener answers.
    pub(crate) async fn answers(&self) {
        wait::until("the worker answers", wait::SOON, async || {
            match self.http.get(self.url("/livez")).send().await {
                Ok(answer) if answer.status() == 200 => Ok(()),
                Ok(answer) => Err(format!("/livez says {}", answer.status())),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// A request without a body; status and JSON (a text where it is none).
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
    ) -> Result<(u16, Value), reqwest::Error> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let answer = self.http.request(method, self.url(path)).send().await?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.request("GET", path).await.unwrap()
    }

    pub(crate) async fn metrics(&self) -> Scrape {
        let answer = self.http.get(self.url("/metrics")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        Scrape::parse(&answer.text().await.unwrap())
    }

    /// The same of a worker that may be gone.
    pub(crate) async fn metrics_if_up(&self) -> Option<Scrape> {
        let answer = self.http.get(self.url("/metrics")).send().await.ok()?;
        Some(Scrape::parse(&answer.text().await.ok()?))
    }

    /// The most memory that the process has held so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
    }

    /// What the process holds now.
    pub(crate) fn held(&self) -> Held {
        let process = format!("/proc/{}", self.child.id());
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
        let number = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches("kB").trim().parse().unwrap()
        };
        let files = std::fs::read_dir(format!("{process}/fd")).unwrap().count() as u64;
        Held { memory: number("VmRSS:") << 10, threads: number("Threads:"), files }
    }

    /// `GET /connectors/{connector}/status`.
    pub(crate) async fn status(&self, connector: &str) -> Value {
        let (status, body) = self.get(&format!("/connectors/{connector}/status")).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Waits until the connector is in `state`; its status then.
    pub(crate) async fn state(&self, connector: &str, state: &str) -> Value {
        wait::until(&format!("{connector} is {state}"), wait::SOON, async || {
            let answer = self.request("GET", &format!("/connectors/{connector}/status")).await;
            let (_, body) = answer.map_err(|error| error.to_string())?;
            if body["connector"]["state"] == state { Ok(body) } else { Err(body.to_string()) }
        })
        .await
    }

    /// Why a connector failed, from its status.
    pub(crate) async fn failure(&self, connector: &str) -> String {
        let status = self.state(connector, "FAILED").await;
        let trace = |value: &Value| value["trace"].as_str().map(str::to_owned);
        let tasks = status["tasks"].as_array().into_iter().flatten().find_map(trace);
        let found = trace(&status["connector"]).or(tasks);
        found.unwrap_or_else(|| panic!("the status does not say why: {status}"))
    }

    /// What a connector waits for that folds nothing although nothing failed, from its status.
    pub(crate) async fn waits(&self, connector: &str) -> String {
        wait::until(&format!("{connector} waits"), wait::SOON, async || {
            let answer = self.request("GET", &format!("/connectors/{connector}/status")).await;
            let (_, body) = answer.map_err(|error| error.to_string())?;
            let why = body["connector"]["trace"].as_str().map(str::to_owned);
            // One with tasks waits for partitions.
            let idle = body["tasks"].as_array().is_some_and(Vec::is_empty);
            let waits = idle && body["connector"]["state"] == "UNASSIGNED";
            why.filter(|_| waits).ok_or_else(|| body.to_string())
        })
        .await
    }

    /// Waits until a gauge or counter of the connector fits.
    pub(crate) async fn metric(
        &self,
        connector: &str,
        name: &str,
        fits: impl Fn(u64) -> bool,
    ) -> u64 {
        wait::until(&format!("{name} of {connector}"), wait::LATER, async || {
            let value = self.metrics().await.of(connector, name);
            if fits(value) { Ok(value) } else { Err(value.to_string()) }
        })
        .await
    }

    /// Waits until the connector's group has committed what the topic has now.
    pub(crate) async fn caught_up(&self, connector: &str, topic: &str) {
        let group = format!("{}-{connector}", self.name);
        let ends = super::kafka::ends(topic);
        wait::until(&format!("{group} has caught up with {topic}"), wait::LATER, async || {
            self.assert_runs(connector).await;
            let committed = super::kafka::committed(&group, topic, ends.len());
            let committed = committed.map_err(|error| error.to_string())?;
            if committed == ends { Ok(()) } else { Err(format!("{committed:?} of {ends:?}")) }
        })
        .await;
    }

    /// Panics with the reason where the connector has failed: nothing is to be waited for then.
    async fn assert_runs(&self, connector: &str) {
        let Ok((_, status)) = self.request("GET", &format!("/connectors/{connector}/status")).await
        else {
            return;
        };
        assert_ne!(status["connector"]["state"], "FAILED", "{status}");
    }

    /// Waits until all `partitions` are assigned here and nothing is left to do.
    pub(crate) async fn idle(&self, connector: &str, partitions: u64) -> Scrape {
        wait::until(&format!("{connector} is idle"), wait::LATER, async || {
            self.assert_runs(connector).await;
            let scrape = self.metrics().await;
            let of = |name: &str| scrape.of(connector, name);
            let state = (of("assigned_partitions"), of("consumer_lag"), of("inflight_events"));
            let known = scrape.find("consumer_lag", &[("connector", connector)]).is_some();
            if known && state == (partitions, 0, 0) {
                return Ok(scrape);
            }
            Err(format!("(assigned, lag, in flight) = {state:?}, lag known: {known}"))
        })
        .await
    }

    /// A command to this worker.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Printed {
        let mut all = arguments.to_vec();
        all.extend(["--url", &self.url]);
        run_in(&self.config, &all)
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// A command that asks no worker.
    pub(crate) fn offline(&self, arguments: &[&str]) -> Printed {
        run_in(&self.config, arguments)
    }

    /// SIGKILL: it can do nothing about it.
    pub(crate) fn kill9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGSTOP, and waits until it stands still: it neither polls nor heartbeats nor writes.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
        let status = format!("/proc/{}/status", self.child.id());
        let stopped = || {
            let status = std::fs::read_to_string(&status).unwrap();
            status.lines().any(|line| line.starts_with("State:\tT"))
        };
        let end = Instant::now() + wait::SOON;
        while !stopped() {
            assert!(Instant::now() < end, "the worker does not stand still");
            std::thread::yield_now();
        }
    }

    /// SIGCONT: it goes on where it was.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    /// SIGHUP: it takes its config anew.
    pub(crate) fn hang_up(&self) {
        self.signal("HUP");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success()
        );
    }

    /// SIGTERM, and waits until it has left; panics after `limit`.
    pub(crate) async fn terminate(mut self, limit: Duration) -> ExitStatus {
        self.signal("TERM");
        wait::until("the worker leaves after SIGTERM", limit, async || {
            self.child.try_wait().unwrap().ok_or("it still runs".to_owned())
        })
        .await
    }

    /// SIGTERM; it must leave in order, within its limit.
    pub(crate) async fn stop(self) {
        let status = self.terminate(Duration::from_secs(20)).await;
        assert!(status.success(), "the worker ended with {status}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("---- {} (its end)\n{}", self.log.display(), last.join("\n"));
        }
    }
}
