//! Rows read by key over REST, beside a steady fold: how long a read takes, and what it costs the fold.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::latency;
use crate::process::usage;
use crate::report::Report;
use crate::store::drop_indexes;
use crate::worker::{Foldline, Job, arrived, store};
use crate::workload::{Shape, Workload};
use crate::{Result, kafka};

/// Events a second, and reads a second.
const EVENTS: u64 = 2_000;
const READS: u64 = 2_000;
/// Connections that are kept, each with its share of the reads.
const CONNECTIONS: u64 = 8;
/// Rows that are there before.
const KEYS: u64 = 10_000;

/// Measures each store: the fold alone, then with reads beside it.
pub(crate) async fn measure(report: &mut Report, seconds: u64) -> Result<()> {
    for sink in ["postgres", "elasticsearch"] {
        for reads in [false, true] {
            let figures = run(sink, reads, seconds).await?;
            report.say(figures);
        }
    }
    Ok(())
}

async fn run(sink: &str, reads: bool, seconds: u64) -> Result<String> {
    let workload = Workload::new(Shape::Partial, KEYS * 10, KEYS);
    kafka::renew(&workload.topic()).await?;
    kafka::fill(workload).await?;
    let expected = workload.expected();
    let foldline = Foldline::new(Job::new(sink, workload))?;
    let mut rows = store(&foldline, sink).await?;
    let mut process = foldline.start()?;
    arrived(&mut process, &mut rows, &expected.last).await?;
    let (worker, generator) = (process.usage()?.cpu, usage(std::process::id())?.cpu);
    let readers = reads.then(|| Readers::start(foldline.port()));
    // Probes are looked for in PostgreSQL only.
    let fold = match sink {
        "postgres" => Some(latency::run(workload, EVENTS, seconds).await?),
        _ => {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            None
        }
    };
    let read = readers.map(Readers::end).transpose()?;
    process.check()?;
    let worker = process.usage()?.cpu - worker;
    let generator = usage(std::process::id())?.cpu - generator;
    process.stop()?;
    if sink == "elasticsearch" {
        drop_indexes(&foldline.name).await?;
    }
    let fold = fold.map_or("no fold beside".to_owned(), |fold| format!("fold {fold}"));
    let read = read.unwrap_or_else(|| "no reads".to_owned());
    Ok(format!(
        "reads by key from {sink}: {read}; {fold}; {worker:.2} s of CPU of the worker, {generator:.2} of the generator of events, \
         reads and probes"
    ))
}

/// Threads that read until they are told to end.
struct Readers {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<std::result::Result<Vec<f64>, String>>>,
    began: Instant,
}

impl Readers {
    fn start(port: u16) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let threads = (0..CONNECTIONS).map(|number| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || read(port, number, &over).map_err(|error| error.to_string()))
        });
        let threads = threads.collect();
        Readers { over, threads, began: Instant::now() }
    }

    fn end(self) -> Result<String> {
        self.over.store(true, Ordering::Relaxed);
        let seconds = self.began.elapsed().as_secs_f64();
        let mut all = Vec::new();
        for thread in self.threads {
            all.extend(thread.join().map_err(|_| "a reader broke off")??);
        }
        all.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = ((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1));
            all.get(place).copied().unwrap_or_default()
        };
        Ok(format!(
            "{:.0} reads/s, p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms of {}",
            all.len() as f64 / seconds,
            at(0.5),
            at(0.99),
            at(0.999),
            all.len()
        ))
    }
}

/// Reads at this connection's share of the rate. A read that is late counts from when it was due.
fn read(port: u16, number: u64, over: &AtomicBool) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let pause = Duration::from_secs_f64(CONNECTIONS as f64 / READS as f64);
    let (mut due, mut key) = (Instant::now(), number * 7_919);
    let (mut took, mut answer) = (Vec::new(), Vec::new());
    while !over.load(Ordering::Relaxed) {
        due += pause;
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(early);
        }
        key = (key + 7_907) % KEYS;
        let request =
            format!("GET /connectors/orders-0/rows/{key} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        receive(&mut stream, &mut answer)?;
        took.push(due.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(took)
}

/// One answer, which must have the row.
fn receive(stream: &mut TcpStream, answer: &mut Vec<u8>) -> Result<()> {
    answer.clear();
    let mut part = [0; 4_096];
    loop {
        let count = stream.read(&mut part)?;
        if count == 0 {
            return Err("the worker closed the connection".into());
        }
        answer.extend_from_slice(part.get(..count).unwrap_or_default());
        let text = String::from_utf8_lossy(answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.ok_or("an answer without a length")?.trim().parse()?;
        if body.len() >= length {
            let found = head.starts_with("http/1.1 200") || head.starts_with("http/1.1 404");
            return if found { Ok(()) } else { Err(format!("{head}: {body}").into()) };
        }
    }
}
