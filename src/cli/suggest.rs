//! `foldline suggest`: records of a topic, and a projection out of them.

use foldline_api::record::{Position, Record};
use foldline_api::source::{Log, PartitionInfo, Stretch};
use foldline_api::value::Value;
use foldline_language::converter::{Decoder, Format};

use super::{Failure, produce, runtime};
use crate::config::{Config, ConverterKind, SourceConfig};
use crate::printable;
use crate::registry::{self, Registries};
use crate::suggest::{Sample, suggest};

/// Bytes that are asked for at a time.
const CHUNK: usize = 1 << 20;
/// So often nothing comes of what is in the log, until what came is all that is sampled.
const EMPTY_MAX: u32 = 100;

/// What to sample.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The topic.
    topic: String,
    /// The source, where there are several.
    #[arg(long)]
    source: Option<String>,
    /// The projection's name; the topic's, where it can be one.
    #[arg(long)]
    name: Option<String>,
    /// How many records to look at, the newest.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    records: u32,
}

pub(super) fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let source = produce::the_source(config, args.source.as_deref())?;
    let log = registry::topic_log(source, &args.topic, "suggest").map_err(Failure::failed)?;
    let registries = Registries::default();
    let decoder = registry::whole_decoder(config, source, &args.topic, &registries);
    let decoder = decoder.map_err(Failure::failed)?;
    let records = i64::from(args.records);
    let (samples, notes) = runtime()?.block_on(async {
        let read = newest(&*log, records).await.map_err(Failure::failed)?;
        let references: Vec<&Record> = read.iter().collect();
        decoder.prepare(&references).await.map_err(Failure::failed)?;
        Ok(decoded(&decoder, source, &args.topic, &read))
    })?;
    let name = args.name.clone().unwrap_or_else(|| name_of(&args.topic));
    let text = suggest(&name, &args.topic, &samples, &notes).map_err(Failure::Failed)?;
    print!("{}", printable::lines(&text));
    Ok(())
}

/// The topic as a projection's name.
fn name_of(topic: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = topic.to_ascii_lowercase().chars().map(allowed).collect();
    let name: String = name.trim_matches(['-', '_']).chars().take(63).collect();
    if name.is_empty() { "projection".to_owned() } else { name }
}

/// The newest records, about as many of each partition.
async fn newest(log: &dyn Log, count: i64) -> foldline_api::Result<Vec<Record>> {
    let partitions = log.partitions().await?;
    let each = (count / i64::try_from(partitions.len()).unwrap_or(1).max(1)).max(1);
    let stretch = |PartitionInfo { partition, low, high, .. }: PartitionInfo| {
        let from = Position(low.0.max(high.0 - each));
        Stretch { partition, from, to: high }
    };
    let mut wanted: Vec<Stretch> = partitions.into_iter().map(stretch).collect();
    let (mut reader, mut records, mut empty) = (log.reader()?, Vec::new(), 0);
    loop {
        wanted.retain(|stretch| stretch.from < stretch.to);
        if wanted.is_empty() || empty > EMPTY_MAX {
            return Ok(records);
        }
        let chunk = reader.read(&wanted, CHUNK).await?;
        let Some(stretch) = wanted.get_mut(chunk.of) else { return Ok(records) };
        empty = if chunk.next > stretch.from { 0 } else { empty + 1 };
        stretch.from = chunk.next;
        records.extend(chunk.records);
    }
}

/// The records as they are decoded, and what is to be said of them.
fn decoded(
    decoder: &Decoder,
    source: &SourceConfig,
    topic: &str,
    records: &[Record],
) -> (Vec<Sample>, Vec<String>) {
    let (key, value) = source.converters(topic);
    let (mut decoder, mut notes) = (decoder.clone(), Vec::new());
    if matches!(value, ConverterKind::Json) && are_connect(records) {
        decoder.value = Format::ConnectJson;
        notes.push(format!(
            "The values have Connect's schema and payload: write value = \"connect-json\" for topic {topic}."
        ));
    }
    if matches!(key, ConverterKind::Text) && has_object_keys(records) {
        let connect = matches!(decoder.value, Format::ConnectJson);
        decoder.key = Some(if connect { Format::ConnectJson } else { Format::Json });
        let key = if connect { "connect-json" } else { "json" };
        notes.push(format!("The keys are objects: write key = \"{key}\" for topic {topic}."));
    }
    let samples: Vec<Sample> =
        records.iter().filter_map(|record| sample(&decoder, record)).collect();
    let bad = records.len() - samples.len();
    if bad > 0 {
        notes.push(format!(
            "{bad} of {} records could not be decoded, and are left out.",
            records.len()
        ));
    }
    (samples, notes)
}

fn sample(decoder: &Decoder, record: &Record) -> Option<Sample> {
    let event = decoder.decode(record).ok()?;
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let headers = record.headers.iter();
    let headers = headers.filter_map(|(n, v)| Some((n.to_string(), text(v.as_deref()?)?)));
    Some(Sample {
        key: event.key,
        value: event.slots.into_iter().next().flatten().unwrap_or(Value::Null),
        headers: headers.collect(),
        name: event.name.as_deref().map(str::to_owned),
    })
}

fn json(bytes: Option<&bytes::Bytes>) -> Option<Value> {
    foldline_api::json::parse(bytes?).ok()
}

/// Whether each value is Connect's `{schema, payload}`.
fn are_connect(records: &[Record]) -> bool {
    let mut values = records.iter().filter(|record| record.value.is_some()).peekable();
    values.peek().is_some()
        && values.all(|record| match json(record.value.as_ref()) {
            Some(Value::Map(map)) => {
                map.len() == 2 && map.get("schema").is_some() && map.get("payload").is_some()
            }
            _ => false,
        })
}

fn has_object_keys(records: &[Record]) -> bool {
    !records.is_empty()
        && records.iter().all(|record| matches!(json(record.key.as_ref()), Some(Value::Map(_))))
}
