//! `foldline produce`: all of standard input is read and checked before anything is sent, since what a topic has
//! cannot be taken back.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, Write};

use bytes::Bytes;
use foldline_source_file::{FileProducer, NewRecord};

use super::Failure;
#[cfg(feature = "kafka")]
use super::runtime;
use crate::config::{Config, SourceConfig, SourceKind};

/// So many bad lines are shown.
const SHOWN: usize = 10;

fn the_source<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a SourceConfig, Failure> {
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
    let records = checked(std::io::stdin().lock())?;
    let count = match &source.kind {
        SourceKind::File { path } => append(&FileProducer::new(path), topic, records)?,
        SourceKind::Kafka { .. } => kafka::send(source, topic, records)?,
    };
    println!("{count} records to {topic}");
    Ok(())
}

/// The records of `input`, kept in a file without a name: however many there are, they take no memory.
fn checked(
    input: impl BufRead,
) -> Result<impl Iterator<Item = Result<NewRecord, Failure>>, Failure> {
    let mut kept = BufWriter::new(tempfile::tempfile().map_err(Failure::failed)?);
    let (mut shown, mut bad) = (String::new(), 0_usize);
    for (at, line) in input.split(b'\n').enumerate() {
        let line = line.map_err(Failure::failed)?;
        match NewRecord::from_line(&Bytes::copy_from_slice(&line)) {
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
        Ok(line) => NewRecord::from_line(&Bytes::from(line)).map_err(Failure::failed).transpose(),
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

#[cfg(not(feature = "kafka"))]
mod kafka {
    use super::{Failure, NewRecord, SourceConfig};
    use crate::config::unsupported::lacks;

    pub(super) fn send(
        _: &SourceConfig,
        _: &str,
        _: impl Iterator<Item = Result<NewRecord, Failure>>,
    ) -> Result<u64, Failure> {
        Err(Failure::failed(lacks("kafka")))
    }
}

#[cfg(feature = "kafka")]
mod kafka {
    use foldline_source_kafka::{KafkaConfig, KafkaProducer, Outgoing};

    use super::{Failure, NewRecord, SourceConfig, runtime};
    use crate::registry::{Topics, kafka_config};

    /// Records of a chunk.
    const CHUNK: usize = 10_000;

    pub(super) fn send(
        source: &SourceConfig,
        topic: &str,
        records: impl Iterator<Item = Result<NewRecord, Failure>>,
    ) -> Result<u64, Failure> {
        let topics = Topics::List(vec![topic.to_owned()]);
        let kafka = kafka_config(source, "produce", topics).map_err(Failure::failed)?;
        runtime()?.block_on(send_all(&kafka, topic, records))
    }

    /// Sends in chunks, each acknowledged before the next.
    async fn send_all(
        kafka: &KafkaConfig,
        topic: &str,
        records: impl Iterator<Item = Result<NewRecord, Failure>>,
    ) -> Result<u64, Failure> {
        let producer = KafkaProducer::new(kafka).map_err(Failure::failed)?;
        let (mut chunk, mut count) = (Vec::new(), 0);
        let mut records = records.peekable();
        while let Some(record) = records.next() {
            let NewRecord { partition, key, value, headers, timestamp } = record?;
            chunk.push(Outgoing { key, value, headers, timestamp, partition });
            if chunk.len() == CHUNK || records.peek().is_none() {
                producer.send(topic, &chunk).await.map_err(Failure::failed)?;
                count += chunk.len() as u64;
                chunk.clear();
            }
        }
        Ok(count)
    }
}
