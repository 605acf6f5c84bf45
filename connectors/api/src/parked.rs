//! Events set aside with their key, until someone has them tried again or dropped.
//!
//! A bad event parks the rows that it touches: later events of its partition that touch one of them wait
//! behind it, in order. What is parked belongs to a generation and a partition, and only the partition's
//! owner changes it, in a [`crate::sink::Flush`] under its fence. Anyone may ask for a retry or a drop.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::json;
use crate::record::{Record, TopicPartition};

/// The reason of the verdict that is kept for a dropped event: a rebuild leaves it out too, and counts it as
/// skipped.
pub const DROPPED: &str = "dropped from the parked events";

/// Where an event lies: its partition and offset.
pub type Place = (TopicPartition, i64);

/// One event to set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedEvent {
    /// The record as it was. Its place in the log is its identity.
    pub record: Record,
    /// The keys of the rows that it may touch, as texts.
    pub keys: Vec<String>,
    /// Why it is bad; none where it only waits behind one that is.
    pub reason: Option<String>,
}

/// One event that is set aside, without the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Its partition.
    pub partition: TopicPartition,
    /// Its offset.
    pub offset: i64,
    /// The keys of the rows that it may touch, as texts.
    pub keys: Vec<String>,
    /// Why it is bad; none where it only waits behind one that is.
    pub reason: Option<String>,
    /// What someone wants of it.
    pub request: Option<Request>,
    /// Where rows move one by one: the steps of it that were refused when some of its rows took it, see
    /// [`crate::sink::StoredDecision`].
    pub refused: Vec<u32>,
}

/// What a flush changes of what is parked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Events to set aside.
    pub park: Vec<ParkedEvent>,
    /// Events that are parked no longer.
    pub free: Vec<Place>,
    /// Parked events whose request is done with, as they cannot be freed; and the reason, where it is a new
    /// one.
    pub keep: Vec<(Place, Option<String>)>,
}

impl Changes {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.park.is_empty() && self.free.is_empty() && self.keep.is_empty()
    }
}

/// What someone wants of parked events; the partition's owner carries it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Fold them again, in order, and free their keys if all of them apply.
    Retry,
    /// Leave them out for good, and free their keys.
    Drop,
    /// Leave out those that are bad, and fold those that wait behind them.
    Skip,
}

impl Request {
    /// As the books and REST spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Request::Retry => "retry",
            Request::Drop => "drop",
            Request::Skip => "skip",
        }
    }

    /// Reads [`Request::name`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Request::Retry, Request::Drop, Request::Skip].into_iter().find(|r| r.name() == name)
    }
}

/// Which parked events are asked for.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// Those of these partitions; else of all.
    pub partitions: Option<Vec<TopicPartition>>,
    /// Only those of which someone wants something.
    pub asked: bool,
}

impl Which {
    /// Whether `parked` is one of them.
    #[must_use]
    pub fn has(&self, parked: &Parked) -> bool {
        let here = self.partitions.as_ref().is_none_or(|list| list.contains(&parked.partition));
        here && (!self.asked || parked.request.is_some())
    }
}

/// A target's parked events, by generation.
#[async_trait]
pub trait Parking: Send + Sync {
    /// The parked events, by partition and offset.
    async fn parked(&self, generation: u64, which: &Which) -> Result<Vec<Parked>>;

    /// The records of parked events, in the order of `places`; those that are not parked are left out.
    async fn records(&self, generation: u64, places: &[Place]) -> Result<Vec<Record>>;

    /// Notes what someone wants of a parked event. False where no such event is parked.
    async fn ask(&self, generation: u64, place: &Place, request: Request) -> Result<bool>;
}

#[derive(Serialize, Deserialize)]
struct Body {
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
    timestamp: Option<i64>,
}

fn encode(bytes: &Bytes) -> String {
    let mut out = String::new();
    json::write_base64(bytes, &mut out);
    out
}

fn decode(text: Option<String>) -> Result<Option<Bytes>> {
    let bytes = |text: String| json::parse_base64(&text).map(Bytes::from).ok_or_else(unreadable);
    text.map(bytes).transpose()
}

fn unreadable() -> Error {
    Error::record("a parked event in the books cannot be read back: it was not written by Foldline")
}

/// A record without its place, as JSON: what the books keep.
#[must_use]
pub fn write_record(record: &Record) -> String {
    let header =
        |(name, value): &(Arc<str>, Option<Bytes>)| (name.to_string(), value.as_ref().map(encode));
    let body = Body {
        key: record.key.as_ref().map(encode),
        value: record.value.as_ref().map(encode),
        headers: record.headers.iter().map(header).collect(),
        timestamp: record.timestamp,
    };
    serde_json::to_string(&body).unwrap_or_default()
}

/// Reads [`write_record`] back.
///
/// # Errors
/// Class Record where someone else wrote it.
pub fn read_record((partition, offset): &Place, text: &str) -> Result<Record> {
    let body: Body = serde_json::from_str(text).map_err(|e| unreadable().with_source(e))?;
    let header = |(name, value): (String, Option<String>)| Ok((Arc::from(name), decode(value)?));
    Ok(Record {
        topic: Arc::clone(&partition.topic),
        partition: partition.partition,
        offset: *offset,
        timestamp: body.timestamp,
        key: decode(body.key)?,
        value: decode(body.value)?,
        headers: body.headers.into_iter().map(header).collect::<Result<_>>()?,
    })
}

/// Keys as one text, a JSON array: what the books keep.
#[must_use]
pub fn write_keys(keys: &[String]) -> String {
    serde_json::to_string(keys).unwrap_or_default()
}

/// Reads [`write_keys`] back.
///
/// # Errors
/// Class Record where someone else wrote it.
pub fn read_keys(text: &str) -> Result<Vec<String>> {
    serde_json::from_str(text).map_err(|e| unreadable().with_source(e))
}

/// A text in ASCII, with JSON's escapes, for a store whose encoding lacks letters. JSON stays the same JSON.
#[must_use]
pub fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii() {
            out.push(letter);
        } else {
            let units = letter
                .encode_utf16(&mut [0; 2])
                .iter()
                .map(|unit| format!("\\u{unit:04x}"))
                .collect::<String>();
            out.push_str(&units);
        }
    }
    out
}

/// A reason as every store can keep it.
#[must_use]
pub fn clean(reason: &str) -> String {
    reason.replace('\0', "\u{fffd}")
}

impl ParkedEvent {
    /// Where it lies.
    #[must_use]
    pub fn place(&self) -> Place {
        (self.record.topic_partition(), self.record.offset)
    }

    /// What the books say of it from now on.
    #[must_use]
    pub fn parked(&self) -> Parked {
        Parked {
            partition: self.record.topic_partition(),
            offset: self.record.offset,
            keys: self.keys.clone(),
            reason: self.reason.as_deref().map(clean),
            request: None,
            refused: Vec::new(),
        }
    }
}

impl Parked {
    /// Where it lies.
    #[must_use]
    pub fn place(&self) -> Place {
        (self.partition.clone(), self.offset)
    }

    /// Whether it is parked since the store refused it: another generation asks the store again.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.reason.as_deref().is_some_and(|reason| reason.starts_with("sink: "))
    }

    /// Its place as one text, `topic:partition:offset`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}:{}:{}", self.partition.topic, self.partition.partition, self.offset)
    }
}

/// Parked events in groups, each of one partition, sharing keys, and in the order of offsets: a group is
/// freed as a whole.
#[must_use]
pub fn groups(mut events: Vec<Parked>) -> Vec<Vec<Parked>> {
    events.sort_by(|a, b| (&a.partition, a.offset).cmp(&(&b.partition, b.offset)));
    // By the key's text: the group that has it. Merged groups leave an empty one behind.
    let mut groups: Vec<Vec<Parked>> = Vec::new();
    let mut by_key: std::collections::HashMap<(TopicPartition, String), usize> =
        std::collections::HashMap::new();
    for event in events {
        let at = |key: &String| (event.partition.clone(), key.clone());
        let mut into: Vec<usize> =
            event.keys.iter().filter_map(|key| by_key.get(&at(key)).copied()).collect();
        into.sort_unstable();
        into.dedup();
        let first = into.first().copied().unwrap_or(groups.len());
        if first == groups.len() {
            groups.push(Vec::new());
        }
        for other in into.into_iter().skip(1) {
            let moved = groups.get_mut(other).map(std::mem::take).unwrap_or_default();
            for event in &moved {
                for key in &event.keys {
                    by_key.insert((event.partition.clone(), key.clone()), first);
                }
            }
            if let Some(group) = groups.get_mut(first) {
                group.extend(moved);
            }
        }
        for key in &event.keys {
            by_key.insert(at(key), first);
        }
        if let Some(group) = groups.get_mut(first) {
            group.push(event);
        }
    }
    groups.retain(|group| !group.is_empty());
    groups.iter_mut().for_each(|group| group.sort_by_key(|event| event.offset));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(offset: i64, keys: &[&str]) -> Parked {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let (partition, refused) = (TopicPartition::new("t", 2), Vec::new());
        Parked { partition, offset, keys, reason: None, request: None, refused }
    }

    #[test]
    fn a_record_reads_back_whole() {
        let record = Record {
            topic: Arc::from("t"),
            partition: 2,
            offset: 7,
            timestamp: Some(5),
            key: Some(Bytes::from_static(b"\0\xff")),
            value: None,
            headers: vec![(Arc::from("h"), Some(Bytes::from_static(b"1"))), (Arc::from("h"), None)],
        };
        let place = (record.topic_partition(), 7);
        assert_eq!(read_record(&place, &write_record(&record)).unwrap(), record);
        assert!(read_record(&place, "{}").is_err());
        let keys = vec!["a\"b".to_owned(), String::new()];
        assert_eq!(read_keys(&write_keys(&keys)).unwrap(), keys);
    }

    #[test]
    fn events_that_share_a_key_are_one_group() {
        let events = vec![
            parked(4, &["b"]),
            parked(1, &["a"]),
            parked(2, &["b", "c"]),
            parked(9, &["c", "a"]),
        ];
        let of = |events| -> Vec<Vec<i64>> {
            groups(events).iter().map(|group| group.iter().map(|e| e.offset).collect()).collect()
        };
        assert_eq!(of(events[..3].to_vec()), [vec![1], vec![2, 4]]);
        assert_eq!(of(events), [vec![1, 2, 4, 9]]);
        let mut elsewhere = parked(3, &["a"]);
        elsewhere.partition = TopicPartition::new("t", 3);
        assert_eq!(of(vec![parked(1, &["a"]), elsewhere]), [vec![1], vec![3]]);
    }

    #[test]
    fn requests_read_back() {
        for request in [Request::Retry, Request::Drop, Request::Skip] {
            assert_eq!(Request::parse(request.name()), Some(request));
        }
        assert_eq!(Request::parse("other"), None);
    }
}
