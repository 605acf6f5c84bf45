//! `foldline demo`: a growing log of orders, folded into SQLite, with nothing installed. The same
//! worker, loop and fold as with Kafka and PostgreSQL; only source and sink differ.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use foldline_api::Result;
use foldline_source_file::{FileProducer, NewRecord};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::now_millis;
use crate::config::{self, process_env};
use crate::connector::View;
use crate::worker::Worker;

/// Arguments of the demo.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where its files go.
    #[arg(long, default_value = "foldline-demo")]
    dir: PathBuf,
    /// How long the log grows.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Events a second.
    #[arg(long, default_value_t = 20_000)]
    rate: u64,
}

const CONFIG: &str = include_str!("demo.toml");
const TOPIC: &str = "es-orders";
const PARTITIONS: i32 = 4;
const ORDERS: u64 = 10_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the demo until its time is up or Ctrl-C.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    crate::log::start("warn");
    let dir = args.dir.clone();
    std::fs::create_dir_all(dir.join("config"))?;
    let file = dir.join("config/orders.toml");
    std::fs::write(&file, CONFIG)?;
    let config = config::load(&file, &process_env())
        .map_err(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let worker = Worker::new(config)
        .map_err(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let connector = worker.connectors().first().cloned().ok_or("the demo has no connector")?;
    println!(
        "Folding an orders log ({} events/s for {} s) into {}\n",
        args.rate,
        args.seconds,
        dir.join("orders.db").display()
    );
    // Before the worker looks for it.
    let producer = FileProducer::new(&dir.join("log"));
    producer.create_topic(TOPIC, PARTITIONS)?;
    let cancel = CancellationToken::new();
    tokio::spawn(crate::signals::cancel_on_signal(cancel.clone()));
    let growing = CancellationToken::new();
    let grow = tokio::task::spawn_blocking({
        let stop = growing.clone();
        move || grow(&producer, args.rate, args.seconds, &stop)
    });
    let running = tokio::spawn(worker.run(cancel.clone()));
    let deadline = Instant::now() + Duration::from_secs(args.seconds) + Duration::from_secs(60);
    let mut shown = Shown::new();
    while !cancel.is_cancelled() && Instant::now() < deadline && !running.is_finished() {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let view = connector.view();
        shown.draw(&dir, &view);
        if grow.is_finished() && positions(&view) >= lines(&dir.join("log").join(TOPIC)) {
            break;
        }
    }
    let view = connector.view();
    growing.cancel();
    cancel.cancel();
    let written = grow.await??;
    running.await??;
    shown.finish(&dir, &view);
    finish(&dir, written)
}

/// Appends random partial updates: an event holds only what changed.
fn grow(producer: &FileProducer, rate: u64, seconds: u64, stop: &CancellationToken) -> Result<u64> {
    const STEPS: u64 = 50;
    let mut random = StdRng::seed_from_u64(42);
    let start = std::time::Instant::now();
    let mut written = 0;
    for step in 0..seconds * STEPS {
        if stop.is_cancelled() {
            break;
        }
        for _ in 0..rate / STEPS {
            producer.append(TOPIC, event(&mut random))?;
            written += 1;
        }
        let due = Duration::from_millis((step + 1) * 1_000 / STEPS);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    Ok(written)
}

fn event(random: &mut StdRng) -> NewRecord {
    let id = random.random_range(0..ORDERS);
    let mut field = |most: u64| match random.random_range(0..3) {
        0 => "null".to_owned(),
        _ => random.random_range(1..most).to_string(),
    };
    let (user, product, amount) = (field(500), field(200), field(10));
    let price = format!("{}.{:02}", random.random_range(1..300), random.random_range(0..100));
    let value = format!(
        "{{\"id\":{id},\"userId\":{user},\"productId\":{product},\"amount\":{amount},\"price\":{price}}}"
    );
    NewRecord {
        key: Some(Bytes::from(id.to_string())),
        value: Some(Bytes::from(value)),
        timestamp: Some(now_millis()),
        ..NewRecord::default()
    }
}

/// How many events are in the table for good.
fn positions(view: &View) -> usize {
    let partitions = view.tasks.iter().flat_map(|task| &task.partitions);
    partitions.map(|p| usize::try_from(p.position.0).unwrap_or(0)).sum()
}

/// How many events the log holds.
fn lines(topic: &Path) -> usize {
    let files = std::fs::read_dir(topic).into_iter().flatten().flatten();
    let logs =
        files.map(|file| file.path()).filter(|p| p.extension().is_some_and(|e| e == "ndjson"));
    let count = |path: PathBuf| {
        std::fs::read(path).map_or(0, |bytes| bytes.iter().filter(|b| **b == b'\n').count())
    };
    logs.map(count).sum()
}

struct Shown {
    terminal: bool,
    events: u64,
    last: Option<Instant>,
}

fn rows(dir: &Path) -> Option<i64> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let db = rusqlite::Connection::open_with_flags(dir.join("orders.db"), flags).ok()?;
    db.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).ok()
}

impl Shown {
    fn new() -> Self {
        println!("{:>12} {:>12} {:>10} {:>10}  STATE", "EVENTS", "EVENTS/S", "ROWS", "LAG");
        Shown { terminal: std::io::stdout().is_terminal(), events: 0, last: None }
    }

    fn draw(&mut self, dir: &Path, view: &View) {
        self.events = view.tasks.iter().map(|t| t.consumed).sum();
        // A line each second where nothing can be drawn over.
        let due = self.last.is_none_or(|last| last.elapsed() >= Duration::from_millis(990));
        if !self.terminal && !due {
            return;
        }
        self.last = Some(Instant::now());
        self.line(dir, view, if self.terminal { "\r" } else { "\n" });
    }

    fn line(&self, dir: &Path, view: &View, end: &str) {
        print!(
            "{:>12} {:>12.0} {:>10} {:>10}  {}{end}",
            self.events,
            view.rate,
            rows(dir).unwrap_or(0),
            view.lag().map_or_else(|| "?".to_owned(), |lag| lag.to_string()),
            view.state.name()
        );
        // The next line says the same again if this one is lost.
        drop(std::io::stdout().flush());
    }

    fn finish(&self, dir: &Path, view: &View) {
        self.line(dir, view, "\n");
    }
}

fn finish(dir: &Path, written: u64) -> Result<(), Failure> {
    let db = rusqlite::Connection::open(dir.join("orders.db"))?;
    println!("\n{written} events written. The orders that changed most:\n");
    println!(
        "{:>8} {:>8} {:>8} {:>8} {:>10} {:>8}",
        "ID", "USER", "PRODUCT", "AMOUNT", "PRICE", "CHANGES"
    );
    let mut statement = db.prepare(
        "SELECT id, user_id, product_id, amount, price, changes FROM orders ORDER BY changes DESC, id LIMIT 5",
    )?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let cell = |at: usize| -> rusqlite::Result<String> {
            Ok(match row.get_ref(at)? {
                rusqlite::types::ValueRef::Null => "-".to_owned(),
                rusqlite::types::ValueRef::Integer(int) => int.to_string(),
                rusqlite::types::ValueRef::Real(real) => real.to_string(),
                rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                rusqlite::types::ValueRef::Blob(blob) => format!("{} bytes", blob.len()),
            })
        };
        println!(
            "{:>8} {:>8} {:>8} {:>8} {:>10} {:>8}",
            cell(0)?,
            cell(1)?,
            cell(2)?,
            cell(3)?,
            cell(4)?,
            cell(5)?
        );
    }
    let dir = dir.display();
    // As it was started: `cargo run` installs nothing.
    let foldline = std::env::args().next().unwrap_or_else(|| "foldline".to_owned());
    println!("
Look around:
  {dir}/config/orders.toml     the whole program: a projection and where it goes
  {dir}/log/{TOPIC}/*.ndjson  the events, one file per partition
  {dir}/orders.db              the rows (any SQLite client opens it)

Try next:
  {foldline} test {dir}/config             the tests that the config holds
  {foldline} plan orders -c {dir}/config   the statements that it uses
  {foldline} run {dir}/config              go on where the demo stopped
Then point `sources` to Kafka and `sinks` to PostgreSQL or Elasticsearch: see config/examples/orders.");
    Ok(())
}
