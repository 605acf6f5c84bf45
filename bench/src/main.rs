//! Measures Foldline on real servers, in one run beside the raw read of the log, the raw writes of the stores and Kafka
//! Connect with the Debezium JDBC sink. See the README beside it; `just bench` runs it.

mod connect;
mod kafka;
mod latency;
mod process;
mod reads;
mod report;
mod store;
mod worker;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use report::{Report, Sample};
use worker::{Foldline, Job, Rebuild, arrived};
use workload::{Expected, Shape, Workload};

/// Any error, as a sentence.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What is measured, in this order.
const PARTS: [&str; 12] = [
    "read",
    "copy",
    "postgres",
    "elasticsearch",
    "sqlite",
    "rebuild",
    "documents",
    "connect",
    "shapes",
    "latency",
    "reads",
    "idle",
];

/// Elasticsearch is warmed up by so many catch-ups at most.
const WARM_UP_MAX: u32 = 6;

#[derive(Parser)]
struct Options {
    /// One tenth of the events, and one run of each.
    #[arg(long)]
    quick: bool,
    /// Events of the main workload; a tenth as many keys.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Runs of each.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Put the table into this README.
    #[arg(long)]
    readme: Option<PathBuf>,
    /// Only these parts: read, copy, postgres, elasticsearch, sqlite, rebuild, documents, connect, shapes, latency, reads, idle, scale.
    parts: Vec<String>,
}

/// A setting that the script beside gives.
fn required(name: &str) -> Result<String> {
    std::env::var(name)
        .map_err(|_| format!("{name} is not set: run `just bench`, or bench/run").into())
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    if options.quick {
        options.events /= 10;
        options.runs = 1;
    }
    if options.parts.is_empty() {
        options.parts = PARTS.iter().map(|part| (*part).to_owned()).collect();
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("bench: an end state is not that of the plain fold");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::default();
    runtime.block_on(async {
        for part in &options.parts {
            measure(part, options, &mut report)
                .await
                .map_err(|error| format!("{part}: {error}"))?;
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })?;
    println!("{}", report.markdown());
    if let Some(readme) = &options.readme {
        report.write_into(readme)?;
    }
    Ok(report.is_right())
}

async fn measure(part: &str, options: &Options, report: &mut Report) -> Result<()> {
    let keys = (options.events / 10).max(1);
    let main = Workload::new(Shape::Partial, options.events, keys);
    match part {
        "latency" => {
            let seconds = if options.quick { 3 } else { 10 };
            let rates: &[u64] = if options.quick { &[5_000] } else { &[1_000, 5_000, 20_000] };
            return latency::measure(report, rates, seconds).await;
        }
        "reads" => return reads::measure(report, if options.quick { 3 } else { 10 }).await,
        "idle" => return idle(report, options).await,
        "scale" => return scale(report, options).await,
        "shapes" => return shapes(report, options).await,
        "documents" => return documents(report, options).await,
        _ => {}
    }
    let workload = match part {
        "connect" => Workload { shape: Shape::ConnectRows, ..main },
        _ => main,
    };
    kafka::fill(workload).await?;
    let expected = workload.expected();
    if part == "elasticsearch" {
        warm_up(workload, &expected).await?;
    }
    for _ in 0..options.runs {
        match part {
            "read" => report.add("raw read of the topic", kafka::raw_read(&workload.topic())?),
            "copy" => report.add("raw COPY of the final rows", store::copy(&expected).await?),
            "postgres" | "sqlite" => {
                let (sample, _) = worker::catch_up(Job::new(part, workload), &expected).await?;
                report.add(&format!("Foldline → {part}, from process start"), sample);
            }
            "elasticsearch" => {
                let sample = elasticsearch(workload, &expected).await?;
                report.add("Foldline → elasticsearch, from process start", sample);
            }
            "rebuild" => {
                for (how, name) in
                    [(Rebuild::InPlace, "in place"), (Rebuild::Beside, "beside the live rows")]
                {
                    let job = Job::new("postgres", workload);
                    let (sample, _) = worker::rebuild(job, how, &expected).await?;
                    report.add(&format!("Foldline rebuild → postgres, {name}"), sample);
                }
            }
            "connect" => {
                report.add(
                    "Connect + Debezium JDBC, from its first row",
                    connect::catch_up(workload, &expected).await?,
                );
            }
            other => {
                return Err(format!(
                    "there is no such part; there are {}, scale, not {other}",
                    PARTS.join(", ")
                )
                .into());
            }
        }
    }
    Ok(())
}

/// Lets Elasticsearch work until it gets no faster: one that has just started takes several times as long, while its own
/// compiler is busy.
async fn warm_up(workload: Workload, expected: &Expected) -> Result<()> {
    let mut before = f64::INFINITY;
    for _ in 0..WARM_UP_MAX {
        let sample = elasticsearch(workload, expected).await?;
        eprintln!("bench: warming Elasticsearch up: {:.1} s", sample.seconds);
        if sample.seconds > before * 0.9 {
            break;
        }
        before = sample.seconds;
    }
    Ok(())
}

/// A catch-up into an index that goes afterwards.
async fn elasticsearch(workload: Workload, expected: &Expected) -> Result<Sample> {
    let (sample, foldline) =
        worker::catch_up(Job::new("elasticsearch", workload), expected).await?;
    store::drop_indexes(&foldline.name).await?;
    Ok(sample)
}

/// Rebuilds of documents, beside the raw writes of the same ones: where many events make one, and where each makes one.
async fn documents(report: &mut Report, options: &Options) -> Result<()> {
    let events = options.events;
    let cases = [
        ("ten events each", Workload::new(Shape::Partial, events, (events / 10).max(1))),
        ("one event each", Workload::new(Shape::Unique, events / 4, events / 4)),
    ];
    for (at, (name, workload)) in cases.into_iter().enumerate() {
        kafka::fill(workload).await?;
        let expected = workload.expected();
        if at == 0 {
            warm_up(workload, &expected).await?;
        }
        for _ in 0..options.runs {
            let job = Job::new("elasticsearch", workload);
            let (sample, foldline) = worker::rebuild(job, Rebuild::Beside, &expected).await?;
            let sample = Sample { events: expected.rows.len() as u64, ..sample };
            report.add(&format!("Foldline rebuild → elasticsearch: documents of {name}"), sample);
            let raw = store::raw_bulk(&foldline.index()).await?;
            report.add(&format!("raw _bulk: documents of {name}"), raw);
            store::drop_indexes(&foldline.name).await?;
        }
    }
    Ok(())
}

/// Other contents of the log, into PostgreSQL.
async fn shapes(report: &mut Report, options: &Options) -> Result<()> {
    let events = options.events;
    let small = "memory = \"16MiB\"";
    let cases = [
        ("whole rows", Workload::new(Shape::Rows, events, events / 10), ""),
        ("one hot key", Workload::new(Shape::Hot, events, 1), ""),
        (
            "2 KB of which five fields are named",
            Workload::new(Shape::Wide, events / 5, events / 50),
            "",
        ),
        ("keys that never repeat", Workload::new(Shape::Unique, events, events), ""),
        (
            "state far beyond the cache (16 MiB)",
            Workload::new(Shape::Partial, events, events / 2),
            small,
        ),
    ];
    for (name, workload, worker) in cases {
        kafka::fill(workload).await?;
        let expected = workload.expected();
        for _ in 0..options.runs {
            let job = Job { worker, ..Job::new("postgres", workload) };
            let (sample, _) = worker::catch_up(job, &expected).await?;
            report.add(&format!("Foldline → postgres: {name}"), sample);
        }
    }
    Ok(())
}

/// A warm start, and ten connectors with nothing to do.
async fn idle(report: &mut Report, options: &Options) -> Result<()> {
    let workload = Workload::new(Shape::Partial, 10_000, 1_000);
    for _ in 0..options.runs {
        warm_start(workload, report).await?;
    }
    kafka::fill(workload).await?;
    let expected = workload.expected();
    let job = Job { connectors: 10, ..Job::new("postgres", workload) };
    let foldline = Foldline::new(job)?;
    let mut store = worker::store(&foldline, job.sink).await?;
    // The second start: what an idle sidecar holds, not what catching up left behind.
    for measured in [false, true] {
        let mut process = foldline.start()?;
        arrived(&mut process, &mut store, &expected.last).await?;
        tokio::time::sleep(Duration::from_secs(8)).await;
        if measured {
            let mut windows = Vec::new();
            for _ in 0..options.runs {
                let before = process.usage()?;
                tokio::time::sleep(Duration::from_secs(10)).await;
                windows.push((process.usage()?.cpu - before.cpu) * 10.0);
            }
            report.say(format!(
                "ten idle connectors: {:.1} MiB resident, {:.1} % of a core",
                process.resident()?,
                report::median(windows)
            ));
        }
        process.stop()?;
    }
    Ok(())
}

/// From process start to the first event's row, where group and table are there.
async fn warm_start(workload: Workload, report: &mut Report) -> Result<()> {
    // A topic of its own, since an event is added.
    let workload = Workload { keys: workload.keys + 1, ..workload };
    kafka::renew(&workload.topic()).await?;
    kafka::fill(workload).await?;
    let expected = workload.expected();
    let foldline = Foldline::new(Job::new("postgres", workload))?;
    let mut store = worker::store(&foldline, "postgres").await?;
    let mut process = foldline.start()?;
    arrived(&mut process, &mut store, &expected.last).await?;
    process.stop()?;
    let id = 5_000_000;
    let value = format!("{{\"id\":{id},\"amount\":1}}");
    let event =
        workload::Event { partition: workload::partition_of(id), key: id.to_string(), value };
    let producer = kafka::producer(0)?;
    kafka::send(&producer, &workload.topic(), &event)?;
    rdkafka::producer::Producer::flush(&producer, Duration::from_secs(30))?;
    let mut process = foldline.start()?;
    let seen = arrived(&mut process, &mut store, &[(id, 1)]).await?;
    let seconds = (seen - process.started).as_secs_f64();
    process.stop()?;
    report.add(
        "warm start to the first event's row",
        Sample { events: 1, seconds, right: true, ..Sample::default() },
    );
    Ok(())
}

/// Whether the cost of an event stays the same: over events, keys, connectors and tasks.
async fn scale(report: &mut Report, options: &Options) -> Result<()> {
    let million = options.events;
    let cases = [
        ("10^-2 of the events", Workload::new(Shape::Partial, million / 100, million / 10), 1, ""),
        ("ten times the events", Workload::new(Shape::Partial, million * 10, million / 10), 1, ""),
        ("a hundredth of the keys", Workload::new(Shape::Partial, million, million / 1_000), 1, ""),
        ("as many keys as events", Workload::new(Shape::Partial, million, million), 1, ""),
        (
            "ten connectors on one topic, with the memory of ten workers",
            Workload::new(Shape::Partial, million, million / 10),
            10,
            "",
        ),
        ("two tasks", Workload::new(Shape::Partial, million, million / 10), 1, "tasks_max = 2"),
    ];
    for (name, workload, connectors, connector) in cases {
        kafka::fill(workload).await?;
        let expected = workload.expected();
        let worker = if connectors > 1 { "memory = \"1280MiB\"" } else { "" };
        for _ in 0..options.runs {
            let job = Job { connectors, connector, worker, ..Job::new("postgres", workload) };
            let (sample, _) = worker::catch_up(job, &expected).await?;
            report.add(&format!("Foldline → postgres: {name}"), sample);
        }
    }
    Ok(())
}
