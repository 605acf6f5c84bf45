//! Foldline as a process, measured from its start.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::Process;
use crate::report::Sample;
use crate::store::{Store, database_url};
use crate::workload::{Expected, Workload};
use crate::{Result, required};

/// A run that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(300);
/// How often a store is asked whether all has arrived.
const ASK: Duration = Duration::from_millis(5);

/// Where a rebuild writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rebuild {
    /// Into the target itself, emptied first.
    InPlace,
    /// Into another one, until it takes the place of the live one.
    Beside,
}

/// What a worker is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job<'a> {
    /// `postgres`, `elasticsearch` or `sqlite`.
    pub(crate) sink: &'a str,
    pub(crate) workload: Workload,
    /// How many connectors do the same, each into its own target.
    pub(crate) connectors: usize,
    /// Further lines of the config: of `[worker]` and of each connector.
    pub(crate) worker: &'a str,
    pub(crate) connector: &'a str,
}

impl<'a> Job<'a> {
    pub(crate) fn new(sink: &'a str, workload: Workload) -> Self {
        Job { sink, workload, connectors: 1, worker: "", connector: "" }
    }
}

/// A worker with its config; the same one may be started more than once.
pub(crate) struct Foldline {
    directory: TempDir,
    /// Its name, which nobody had before: groups and indexes begin with it.
    pub(crate) name: String,
    port: u16,
}

impl Foldline {
    /// Writes the config.
    pub(crate) fn new(job: Job<'_>) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("foldline-bench-").tempdir()?;
        let unique = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let name = format!("bench{}", unique.as_micros());
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let foldline = Foldline { directory, name, port };
        let sink = match job.sink {
            "postgres" => format!("url = {:?}", database_url()?),
            "elasticsearch" => format!("urls = [{:?}]", required("ELASTICSEARCH")?),
            _ => format!("path = {:?}", foldline.database()),
        };
        let target = |number: usize| match (job.sink, number) {
            ("elasticsearch", _) => format!("index = \"{}-{number}\"", foldline.name),
            (_, 0) => "table = \"orders\"".to_owned(),
            (_, number) => format!("table = \"orders_{number}\""),
        };
        let connectors: Vec<String> = (0..job.connectors)
            .map(|number| {
                let more = job.connector;
                let target = target(number);
                format!(
                    "[connectors.orders-{number}]\nprojection = \"orders\"\nsink = \"store\"\n{target}\n{more}\n"
                )
            })
            .collect();
        let text = format!(
            "[worker]\nname = {:?}\nlisten = \"127.0.0.1:{port}\"\n{}\n[sources.events]\ntype = \"kafka\"\n\
             bootstrap_servers = {:?}\n[sinks.store]\ntype = {:?}\n{sink}\n{}\n{}",
            foldline.name,
            job.worker,
            required("KAFKA")?,
            job.sink,
            job.workload.projection(),
            connectors.join("\n")
        );
        std::fs::write(foldline.directory.path().join("foldline.toml"), text)?;
        Ok(foldline)
    }

    /// Where its REST answers, on this machine.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The first connector's index.
    pub(crate) fn index(&self) -> String {
        format!("{}-0", self.name)
    }

    /// The file of a SQLite sink.
    pub(crate) fn database(&self) -> PathBuf {
        self.directory.path().join("orders.db")
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(required("FOLDLINE_BENCH_BINARY")?);
        command.current_dir(self.directory.path()).env("RUST_LOG", "info");
        Ok(command)
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Result<Process> {
        let mut command = self.command()?;
        command.arg("run").arg(self.directory.path().join("foldline.toml"));
        Process::start(&mut command, &self.directory.path().join("log"))
    }

    /// Asks it to fold everything again.
    fn rebuild(&self, how: Rebuild) -> Result<()> {
        let mut command = self.command()?;
        command.args(["rebuild", "orders-0", "--url"]);
        command.arg(format!("http://127.0.0.1:{}", self.port));
        if how == Rebuild::InPlace {
            command.arg("--in-place");
        }
        let output = command.output()?;
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("rebuild: {}", String::from_utf8_lossy(&output.stderr)).into())
        }
    }
}

/// Waits until the store has any row; when that was.
pub(crate) async fn any_row(process: &mut Process, store: &mut Store) -> Result<Instant> {
    let end = Instant::now() + LIMIT;
    while !store.has_any().await {
        process.check()?;
        if Instant::now() > end {
            return Err("nothing has arrived in time".into());
        }
        tokio::time::sleep(ASK).await;
    }
    Ok(Instant::now())
}

/// Waits until the store has the last events; when that was.
pub(crate) async fn arrived(
    process: &mut Process,
    store: &mut Store,
    last: &[(i64, i64)],
) -> Result<Instant> {
    let end = Instant::now() + LIMIT;
    // The table or index may not be there yet.
    while !store.has(last).await.unwrap_or(false) {
        process.check()?;
        if Instant::now() > end {
            return Err("not all has arrived in time".into());
        }
        tokio::time::sleep(ASK).await;
    }
    Ok(Instant::now())
}

/// An empty store for a worker.
pub(crate) async fn store(foldline: &Foldline, sink: &str) -> Result<Store> {
    match sink {
        "postgres" => Store::postgres().await,
        "elasticsearch" => Store::elasticsearch(&foldline.index()),
        _ => Ok(Store::sqlite(foldline.database())),
    }
}

/// Catches up with a full topic, from process start.
pub(crate) async fn catch_up(job: Job<'_>, expected: &Expected) -> Result<(Sample, Foldline)> {
    let foldline = Foldline::new(job)?;
    let mut store = store(&foldline, job.sink).await?;
    let mut process = foldline.start()?;
    let mut first = 0.0;
    if job.sink == "postgres" {
        let seen = any_row(&mut process, &mut store).await?;
        first = (seen - process.started).as_secs_f64();
    }
    let end = arrived(&mut process, &mut store, &expected.last).await?;
    let usage = process.usage()?;
    let seconds = (end - process.started).as_secs_f64();
    process.stop()?;
    let right = store.is_right(expected).await?;
    let (events, cpu, peak) = (job.workload.events, usage.cpu, Some(usage.peak));
    Ok((Sample { events, seconds, first, cpu, peak, right }, foldline))
}

/// Folds everything again, from the command until the new rows are live.
pub(crate) async fn rebuild(
    job: Job<'_>,
    how: Rebuild,
    expected: &Expected,
) -> Result<(Sample, Foldline)> {
    let foldline = Foldline::new(job)?;
    let mut store = store(&foldline, job.sink).await?;
    let mut process = foldline.start()?;
    arrived(&mut process, &mut store, &expected.last).await?;
    let before = process.usage()?;
    let live = store.live().await?;
    let began = Instant::now();
    foldline.rebuild(how)?;
    loop {
        process.check()?;
        let over = match how {
            Rebuild::InPlace => !store.has(&expected.last).await.unwrap_or(false),
            Rebuild::Beside => store.live().await? != live,
        };
        if over {
            break;
        }
        if began.elapsed() > LIMIT {
            return Err("the rebuild takes too long".into());
        }
        tokio::time::sleep(ASK).await;
    }
    let end = arrived(&mut process, &mut store, &expected.last).await?;
    let usage = process.usage()?;
    process.stop()?;
    let right = store.is_right(expected).await?;
    let sample = Sample {
        events: job.workload.events,
        seconds: (end - began).as_secs_f64(),
        cpu: usage.cpu - before.cpu,
        peak: Some(usage.peak),
        right,
        ..Sample::default()
    };
    Ok((sample, foldline))
}
