//! `foldline produce`: all of standard input is read and checked before anything is sent, since what a topic has
//! cannot be taken back.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, Write};

use bytes::Bytes;
use foldline_api::producer::{NewRecord, Producer};
use foldline_source_file::{FileProducer, Posted};

use super::{Failure, runtime};
use crate::config::{Config, SourceConfig, SourceKind};
use crate::ingest::{Ends, Rules};
use crate::registry;

/// So many bad lines are shown.
const SHOWN: usize = 10;
/// Records of a chunk.
const CHUNK: usize = 10_000;

pub(super) fn the_source<'a>(
    config: &'a Config,
    name: Option<&str>,
) -> Result<&'a SourceConfig, Failure> {
    let names: Vec<&str> = config.sources.keys().map(String::as_str).collect();
    let found = match (name, config.sources.len()) {
        (Some(name), _) => config.sources.get(name),
        (None, 1) => config.sources.values().next(),
        (None, _) => None,
    };
    found.ok_or_else(|| Failure::Failed(format!("--source must be one of: {}", names.join(", "))))
}

pub(super) fn produce(config: &Config, topic: &str, source: Option<&str>) -> Result<(), Failure> {
    let source = the_source(config, source)?;
    let rules = Rules::of(source, topic).map_err(Failure::failed)?;
    let records = checked(&rules, std::io::stdin().lock())?;
    let count = match &source.kind {
        SourceKind::File { path } => append(&FileProducer::new(path), topic, records)?,
        SourceKind::Kafka { .. } => {
            let producer = registry::command_producer(source).map_err(Failure::failed)?;
            runtime()?.block_on(send(&*producer, topic, records))?
        }
    };
    println!("{count} records to {topic}");
    Ok(())
}

/// The record of a line, as it is written; none where the line is blank.
fn record(rules: &Rules, line: Vec<u8>) -> Result<Option<NewRecord>, String> {
    let posted =
        Posted::from_line(&Bytes::from(line)).map_err(|error| error.message().to_owned())?;
    posted.map(|posted| rules.admit(posted)).transpose()
}

/// The records of `input`, kept in a file without a name: however many there are, they take no memory.
fn checked(
    rules: &Rules,
    input: impl BufRead,
) -> Result<impl Iterator<Item = Result<NewRecord, Failure>>, Failure> {
    let mut kept = BufWriter::new(tempfile::tempfile().map_err(Failure::failed)?);
    let (mut shown, mut bad) = (String::new(), 0_usize);
    for (at, line) in input.split(b'\n').enumerate() {
        let line = line.map_err(Failure::failed)?;
        match record(rules, line.clone()) {
            Ok(None) => {}
            Ok(Some(_)) if bad > 0 => {}
            Ok(Some(_)) => {
                kept.write_all(&line)
                    .and_then(|()| kept.write_all(b"\n"))
                    .map_err(Failure::failed)?;
            }
            Err(error) => {
                bad += 1;
                if bad <= SHOWN {
                    shown.push_str(&format!("\n  line {}: {error}", at + 1));
                }
            }
        }
    }
    if bad > 0 {
        let more =
            if bad > SHOWN { format!("\n  and {} more", bad - SHOWN) } else { String::new() };
        return Err(Failure::Failed(format!(
            "nothing was sent: standard input has lines that are no records{shown}{more}"
        )));
    }
    let mut file: File = kept.into_inner().map_err(Failure::failed)?;
    file.rewind().map_err(Failure::failed)?;
    Ok(BufReader::new(file).split(b'\n').filter_map(|line| match line {
        Ok(line) => record(rules, line).map_err(Failure::Failed).transpose(),
        Err(error) => Some(Err(Failure::failed(error))),
    }))
}

fn append(
    producer: &FileProducer,
    topic: &str,
    records: impl Iterator<Item = Result<NewRecord, Failure>>,
) -> Result<u64, Failure> {
    let mut count = 0;
    for record in records {
        producer.append(topic, record?).map_err(Failure::failed)?;
        count += 1;
    }
    producer.sync().map_err(Failure::failed)?;
    Ok(count)
}

/// Sends in chunks, each acknowledged before the next; the first that is not whole ends it.
async fn send(
    producer: &dyn Producer,
    topic: &str,
    records: impl Iterator<Item = Result<NewRecord, Failure>>,
) -> Result<u64, Failure> {
    let (mut chunk, mut count) = (Vec::new(), 0);
    let mut records = records.peekable();
    while let Some(record) = records.next() {
        chunk.push(record?);
        if chunk.len() < CHUNK && records.peek().is_some() {
            continue;
        }
        let ends = Ends::of(producer.send_each(topic, &chunk).await);
        if let Some(trouble) = ends.trouble() {
            let before = match count {
                0 => String::new(),
                count => format!("{count} records are in {topic}; of the next {}: ", chunk.len()),
            };
            return Err(Failure::Failed(format!("{before}{trouble}")));
        }
        count += chunk.len() as u64;
        chunk.clear();
    }
    Ok(count)
}
