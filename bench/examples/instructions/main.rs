//! One piece of the hot path on fixed input, so often that its instructions can be counted: `instructions PIECE TIMES`.

mod formats;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use foldline_api::model::{Key, Row};
use foldline_api::record::Record;
use foldline_api::sink::{Marks, RowWrite, Version};
use foldline_language::config::env::Env;
use foldline_language::config::projections;
use foldline_language::converter::Decoder;
use foldline_language::event::Event;
use foldline_language::projection::{Projection, Touched};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const CONFIG: &str = r#"
[projections.orders]
topics = ["orders"]
event_type = "event.event"
key = { id = "event.id" }
[projections.orders.fields]
id = "bigint"
user_id = "bigint"
amount = "bigint"
price = "numeric(12,2)"
note = "text"
changes = { type = "bigint", default = 0 }
updated_at = "timestamptz"
[[projections.orders.on]]
event = "OrderChanged"
merge = { user_id = "event.userId", amount = "event.amount", price = "event.price", note = "event.note" }
set = { updated_at = "timestamp" }
add = { changes = 1 }
"#;

/// Different records, taken in turn.
const RECORDS: i64 = 500;

fn main() -> ExitCode {
    match run() {
        Ok(checked) => {
            println!("{checked}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does it; a figure that depends on all of the work, so that none of it can be left out.
fn run() -> Result<usize> {
    let mut arguments = std::env::args().skip(1);
    let piece = arguments
        .next()
        .ok_or("which piece: decode, decode-avro, decode-protobuf, fold or encode?")?;
    let times: usize = arguments.next().ok_or("how often?")?.parse()?;
    let projection = projection()?;
    let (format, values) = formats::of(piece.strip_prefix("decode-"), projection.mask())?;
    let (mask, slots) = (projection.mask().clone(), projection.slots());
    let decoder = Decoder { key: None, value: format, mask, slots, opener: None };
    let records: Vec<Record> = (0..RECORDS).map(|at| record(at, values(at))).collect();
    formats::prepare(&decoder, &records)?;
    match piece.as_str() {
        "decode" | "decode-avro" | "decode-protobuf" => decode(&decoder, &records, times),
        "fold" => {
            let events = records.iter().map(|record| decoder.decode(record));
            let events = events.collect::<std::result::Result<Vec<_>, _>>()?;
            fold(&projection, &events, times)
        }
        "encode" => {
            let events = records.iter().map(|record| decoder.decode(record));
            let events = events.collect::<std::result::Result<Vec<_>, _>>()?;
            encode(&projection, &events, times)
        }
        other => Err(format!("{other} is no piece").into()),
    }
}

fn decode(decoder: &Decoder, records: &[Record], times: usize) -> Result<usize> {
    let mut slots = 0;
    for record in records.iter().cycle().take(times) {
        slots += decoder.decode(record)?.slots.iter().flatten().count();
    }
    // Each has what it has in JSON.
    if slots == times * decoder.slots { Ok(slots) } else { Err("a field was not found".into()) }
}

fn projection() -> Result<Projection> {
    let said = |problems: Vec<String>| problems.join("\n");
    let (all, _) = projections::of_text("orders.toml", CONFIG, &Env::default())
        .map_err(|found| said(found.iter().map(ToString::to_string).collect()))?;
    let orders = all.get("orders").ok_or("no projection")?;
    let compiled = Projection::compile(orders);
    Ok(compiled.map_err(|found| said(found.iter().map(ToString::to_string).collect()))?)
}

fn record(at: i64, value: Vec<u8>) -> Record {
    Record {
        topic: Arc::from("orders"),
        partition: 0,
        offset: at,
        timestamp: Some(1_700_000_000_000 + at),
        key: None,
        value: Some(Bytes::from(value)),
        headers: Vec::new(),
    }
}

/// The rows, as a task's cache holds them.
#[derive(Default)]
struct Table(HashMap<Key, Option<Row>>);

impl Table {
    /// Applies an event; how many rows that writes.
    fn apply(&mut self, projection: &Projection, event: &Event) -> Result<usize> {
        let prepared = projection.prepare(event)?;
        let key = prepared.single().ok_or("an event of several keys")?;
        let row = self.0.entry(key.clone()).or_default();
        Ok(usize::from(matches!(
            projection.apply_single(event, &prepared, row)?,
            Touched::Written(_)
        )))
    }
}

fn fold(projection: &Projection, events: &[Event], times: usize) -> Result<usize> {
    let mut table = Table::default();
    let mut written = 0;
    for event in events.iter().cycle().take(times) {
        written += table.apply(projection, event)?;
    }
    if written == times { Ok(written) } else { Err("an event was not applied".into()) }
}

fn encode(projection: &Projection, events: &[Event], times: usize) -> Result<usize> {
    let mut table = Table::default();
    for event in events {
        table.apply(projection, event)?;
    }
    let write = |(key, row): (Key, Option<Row>)| RowWrite {
        key,
        row,
        version: Version::Absent,
        marks: Marks::new(),
    };
    let writes: Vec<RowWrite> = table.0.into_iter().map(write).collect();
    if writes.is_empty() {
        return Err("no row to encode".into());
    }
    let mut bytes = 0;
    for _ in 0..times / writes.len() {
        bytes += foldline_sink_postgres::encoded_bytes(projection.model(), &writes)?;
    }
    Ok(bytes)
}
