//! From a record's timestamp to its visible row, under a steady load.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::producer::Producer;

use crate::connect::Connect;
use crate::kafka;
use crate::store::{connect, database_url};
use crate::worker::{Foldline, Job, store};
use crate::workload::{Event, Shape, Workload, connect_probe, partition_of};
use crate::{Result, report::Report};

/// Keys from here on are probes: each comes once.
const PROBES: i64 = 1_000_000_000;
/// The load comes in steps of this.
const STEP: Duration = Duration::from_millis(1);
/// What comes before is not counted: it warms up.
const WARM: Duration = Duration::from_secs(2);

/// When each probe was sent that is not yet seen.
type Sent = Arc<Mutex<HashMap<i64, Instant>>>;

/// The topic of a run, and the shape that its reader understands.
fn load(shape: Shape) -> Workload {
    Workload::new(shape, 0, 100_000)
}

/// Measures Foldline, and Connect where there is one, at each rate.
pub(crate) async fn measure(report: &mut Report, rates: &[u64], seconds: u64) -> Result<()> {
    for &rate in rates {
        let partial = load(Shape::Partial);
        kafka::renew(&partial.topic()).await?;
        let job = Job::new("postgres", partial);
        let foldline = Foldline::new(job)?;
        let _store = store(&foldline, job.sink).await?;
        let mut process = foldline.start()?;
        let figures = run(partial, rate, seconds).await;
        process.check()?;
        let usage = process.usage()?;
        process.stop()?;
        report.say(format!("latency of Foldline {}, {:.2} s of CPU", figures?, usage.cpu));
        if std::env::var_os("FOLDLINE_BENCH_CONNECT").is_some() {
            let rows = load(Shape::ConnectRows);
            kafka::renew(&rows.topic()).await?;
            let mut connect = Connect::start(&rows.topic()).await?;
            let figures = run(rows, rate, seconds).await;
            connect.process.check()?;
            let usage = connect.process.usage()?;
            connect.process.stop()?;
            report.say(format!("latency of Connect {}, {:.2} s of CPU", figures?, usage.cpu));
        }
    }
    Ok(())
}

/// Sends at the rate and looks for the probes; the percentiles as a sentence.
pub(crate) async fn run(workload: Workload, rate: u64, seconds: u64) -> Result<String> {
    let sent = Sent::default();
    let over = Arc::new(AtomicBool::new(false));
    // The reader is there before the load: its first row.
    let sender = {
        let (sent, over) = (Arc::clone(&sent), Arc::clone(&over));
        std::thread::spawn(move || {
            let outcome = send(workload, rate, seconds, &sent);
            over.store(true, Ordering::Relaxed);
            outcome.map_err(|error| error.to_string())
        })
    };
    let mut latencies = watch(&sent, &over).await?;
    sender.join().map_err(|_| "the sender broke off")??;
    latencies.sort_by(f64::total_cmp);
    let count = latencies.len();
    let at = |share: f64| {
        let place = ((count as f64 * share) as usize).min(count.saturating_sub(1));
        latencies.get(place).copied().unwrap_or_default()
    };
    Ok(format!(
        "at {rate} events/s: p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms of {count} probes",
        at(0.5),
        at(0.99),
        at(0.999)
    ))
}

fn probe(workload: Workload, number: i64) -> Event {
    let id = PROBES + number;
    let value = match workload.shape {
        Shape::ConnectRows => connect_probe(id),
        _ => format!("{{\"id\":{id},\"amount\":1}}"),
    };
    Event { partition: partition_of(id), key: id.to_string(), value }
}

fn send(workload: Workload, rate: u64, seconds: u64, sent: &Sent) -> Result<()> {
    let topic = workload.topic();
    // librdkafka's default. Without a wait each message is a request, and the latency that of a broker with thousands
    // of them a second.
    let producer = kafka::producer(5)?;
    // One, so that the reader can say when it is there.
    let locked = || sent.lock().unwrap_or_else(PoisonError::into_inner);
    locked().insert(PROBES, Instant::now());
    kafka::send(&producer, &topic, &probe(workload, 0))?;
    while !locked().is_empty() {
        producer.poll(Duration::from_millis(10));
    }
    let total = (WARM.as_secs() + seconds) * rate;
    // About two hundred probes a second, whatever the rate.
    let every = (rate / 200).max(1);
    let full = Workload { events: total, ..workload };
    let (began, mut done, mut number) = (Instant::now(), 0, 0);
    let mut events = full.events();
    while done < total {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        while done < due.min(total) {
            if done % every == 0 {
                number += 1;
                if began.elapsed() > WARM {
                    locked().insert(PROBES + number, Instant::now());
                }
                kafka::send(&producer, &topic, &probe(workload, number))?;
            } else if let Some(event) = events.next() {
                kafka::send(&producer, &topic, &event)?;
            }
            done += 1;
        }
        producer.poll(Duration::ZERO);
        std::thread::sleep(STEP);
    }
    producer.flush(Duration::from_secs(30))?;
    Ok(())
}

/// Looks for the probes until all were seen; milliseconds that each took, but for the first.
async fn watch(sent: &Sent, over: &AtomicBool) -> Result<Vec<f64>> {
    let client = connect(&database_url()?).await?;
    // Of a new table the planner knows nothing, and a scan of all rows would take longer than what it looks for.
    client.batch_execute("set enable_seqscan = off").await?;
    let mut latencies = Vec::new();
    let end = Instant::now() + Duration::from_secs(180);
    loop {
        let waiting: Vec<i64> = {
            let sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            sent.keys().copied().collect()
        };
        if waiting.is_empty() && over.load(Ordering::Relaxed) {
            return Ok(latencies);
        }
        if Instant::now() > end {
            return Err(format!("{} probes were not seen in time", waiting.len()).into());
        }
        let sql = "select id from orders where id = any($1)";
        // The table may not be there yet.
        let rows = client.query(sql, &[&waiting]).await.unwrap_or_default();
        latencies.extend(seen(sent, &rows)?);
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
}

/// Takes the probes that are seen now off the list; milliseconds that each took, but for the first.
fn seen(sent: &Sent, rows: &[tokio_postgres::Row]) -> Result<Vec<f64>> {
    let now = Instant::now();
    let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
    let mut latencies = Vec::new();
    for row in rows {
        let id: i64 = row.try_get(0)?;
        if let Some(at) = sent.remove(&id)
            && id > PROBES
        {
            latencies.push((now - at).as_secs_f64() * 1_000.0);
        }
    }
    Ok(latencies)
}
