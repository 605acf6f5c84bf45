//! Dead letters as the operator sees them: read out of their topic, and given back to the log.
//!
//! What was given back is noted in the topic of letters itself, by a record that holds nothing but the letter's place in a
//! header. So every worker knows it, and no letter goes back twice unless it is asked for again.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use foldline_api::error::{Error, Result};
use foldline_api::record::{Headers, Record, TopicPartition};
use foldline_api::source::{DeadLetter, DeadLetters, LETTER_OMITS, LETTER_PREFIX, Log};
use foldline_api::source::{Reader, Stretch};

/// What every header begins with that tells of a record that it was given back.
const REPLAY: &str = "foldline.replay.";
/// Of a record that was given back: where the bad one is, as topic:partition:offset.
const REPLAY_OF: &str = "foldline.replay.of";
/// The bad record's own time, in milliseconds.
const REPLAY_TIMESTAMP: &str = "foldline.replay.timestamp";
/// Of a note among the letters: the letter that was given back.
const REPLAYED: &str = "foldline.replayed";

/// Bytes that are read at once.
const CHUNK: usize = 4 << 20;
/// So many reasons are told apart.
const REASONS_MAX: usize = 1_000;
/// What the others are told as.
const OTHER_REASONS: &str = "(other reasons)";

/// A letter's place in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    partition: i32,
    offset: i64,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl FromStr for Id {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once(':');
        let id = parts.and_then(|(partition, offset)| {
            Some(Id { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        });
        id.filter(|id| id.partition >= 0 && id.offset >= 0).ok_or_else(|| {
            Error::config(format!("{text:?} is no letter: expected partition:offset, such as 0:41"))
        })
    }
}

/// A letter.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Its place in the topic of letters.
    pub id: Id,
    /// The bad record's partition.
    pub partition: TopicPartition,
    /// The bad record's offset.
    pub offset: i64,
    /// The bad record's own time, in milliseconds since the epoch.
    pub timestamp: Option<i64>,
    /// Where it failed.
    pub stage: String,
    /// Why.
    pub reason: String,
    /// What of the record the letter leaves out.
    pub omits: Option<String>,
    /// When the letter was written, in milliseconds since the epoch.
    pub written: Option<i64>,
    /// The record's key.
    pub key: Option<Bytes>,
    /// The record's value.
    pub value: Option<Bytes>,
    /// The record's headers.
    pub headers: Headers,
}

impl Letter {
    /// The letter of this connector's that a record of the topic is.
    fn of(record: &Record, connector: &str) -> Option<Self> {
        let header = |name: &str| text(&record.headers, &format!("{LETTER_PREFIX}{name}"));
        if header("connector.name")? != connector {
            return None;
        }
        let number = |name: &str| header(name)?.parse::<i64>().ok();
        let mut headers = record.headers.clone();
        headers.retain(|(name, _)| !name.starts_with(LETTER_PREFIX));
        Some(Letter {
            id: Id { partition: record.partition, offset: record.offset },
            partition: TopicPartition::new(header("topic")?, header("partition")?.parse().ok()?),
            offset: number("offset")?,
            timestamp: number("timestamp"),
            stage: header("stage").unwrap_or_default(),
            reason: header("exception.message").unwrap_or_default(),
            omits: text(&record.headers, LETTER_OMITS),
            written: record.timestamp,
            key: record.key.clone(),
            value: record.value.clone(),
            headers,
        })
    }

    /// The record as it goes back, with another value where one is given.
    ///
    /// # Errors
    /// A config error where the letter does not hold all of it.
    fn mended(self, value: Option<Bytes>) -> Result<DeadLetter> {
        let lacks = match (self.omits.as_deref(), &value) {
            (None, _) | (Some("value"), Some(_)) => None,
            (Some(omits), _) => Some(omits),
        };
        if let Some(omits) = lacks {
            let (id, place) = (self.id, format!("{}:{}", self.partition, self.offset));
            return Err(Error::config(format!(
                "letter {id} does not hold its record's {omits}, which did not fit: give it a value, or produce the record \
                 at {place} anew"
            )));
        }
        let mut headers = self.headers;
        headers.retain(|(name, _)| !name.starts_with(REPLAY));
        let TopicPartition { topic, partition } = &self.partition;
        push(&mut headers, REPLAY_OF, format!("{topic}:{partition}:{}", self.offset));
        if let Some(timestamp) = self.timestamp {
            push(&mut headers, REPLAY_TIMESTAMP, timestamp.to_string());
        }
        let (partition, offset, key) = (self.partition, self.offset, self.key);
        Ok(DeadLetter { partition, offset, key, value: value.or(self.value), headers })
    }
}

fn push(headers: &mut Headers, name: &str, text: String) {
    headers.push((Arc::from(name), Some(Bytes::from(text))));
}

fn text(headers: &Headers, name: &str) -> Option<String> {
    let (_, value) = headers.iter().rev().find(|(of, _)| **of == *name)?;
    Some(String::from_utf8_lossy(value.as_ref()?).into_owned())
}

/// Letters of one reason.
#[derive(Clone, Debug)]
pub struct Reason {
    /// The reason.
    pub text: String,
    /// How many letters have it.
    pub count: u64,
    /// How many of them were not given back.
    pub open: u64,
    /// The first and the last of them.
    pub ends: (Id, Id),
}

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// So many records were given back.
    pub replayed: u64,
    /// So many letters were left, as they do not hold all of their record.
    pub left: u64,
}

/// The letters of one connector.
pub(crate) struct Letters<'a> {
    pub(crate) connector: &'a str,
    /// The topic of letters as a log.
    pub(crate) log: Arc<dyn Log>,
    /// The log that the records are of.
    pub(crate) of: &'a dyn Log,
    pub(crate) dead_letters: &'a dyn DeadLetters,
}

/// What the topic holds now, from its beginning.
struct Scan {
    reader: Box<dyn Reader>,
    left: Vec<Stretch>,
}

impl Scan {
    /// The next records; none at the end.
    async fn next(&mut self) -> Result<Option<Vec<Record>>> {
        while let Some(stretch) = self.left.last_mut() {
            if stretch.from >= stretch.to {
                self.left.pop();
                continue;
            }
            let chunk = self.reader.read(std::slice::from_ref(stretch), CHUNK).await?;
            stretch.from = chunk.next;
            if !chunk.records.is_empty() {
                return Ok(Some(chunk.records));
            }
        }
        Ok(None)
    }
}

impl Letters<'_> {
    async fn scan(&self) -> Result<Scan> {
        let all = self.log.survey().await?.partitions.into_iter().map(|info| Stretch {
            partition: info.partition,
            from: info.low,
            to: info.high,
        });
        // There is no topic before the first letter.
        let left: Vec<Stretch> = all.rev().collect();
        Ok(Scan { reader: self.log.reader()?, left })
    }

    /// The letters that were given back.
    async fn replayed(&self) -> Result<HashSet<Id>> {
        let (mut scan, mut found) = (self.scan().await?, HashSet::new());
        while let Some(records) = scan.next().await? {
            let notes = records.iter().filter_map(|record| text(&record.headers, REPLAYED));
            found.extend(notes.filter_map(|note| note.parse::<Id>().ok()));
        }
        Ok(found)
    }

    /// How many letters there are of each reason.
    pub(crate) async fn reasons(&self) -> Result<Vec<Reason>> {
        let (replayed, mut scan) = (self.replayed().await?, self.scan().await?);
        let mut found: BTreeMap<String, Reason> = BTreeMap::new();
        while let Some(records) = scan.next().await? {
            for letter in records.iter().filter_map(|record| Letter::of(record, self.connector)) {
                let full = found.len() >= REASONS_MAX && !found.contains_key(&letter.reason);
                let text = if full { OTHER_REASONS.to_owned() } else { letter.reason };
                let ends = (letter.id, letter.id);
                let reason = found.entry(text.clone());
                let reason = reason.or_insert(Reason { text, count: 0, open: 0, ends });
                reason.count += 1;
                reason.open += u64::from(!replayed.contains(&letter.id));
                reason.ends.1 = letter.id;
            }
        }
        Ok(found.into_values().collect())
    }

    /// The first letters of a reason that were not given back, at most so many.
    pub(crate) async fn open(&self, reason: &str, most: usize) -> Result<Vec<Letter>> {
        let (replayed, mut scan) = (self.replayed().await?, self.scan().await?);
        let mut found = Vec::new();
        while found.len() < most
            && let Some(records) = scan.next().await?
        {
            let letters = records.iter().filter_map(|record| Letter::of(record, self.connector));
            let open = |letter: &Letter| letter.reason == reason && !replayed.contains(&letter.id);
            found.extend(letters.filter(open).take(most - found.len()));
        }
        Ok(found)
    }

    /// One letter, and whether it was given back.
    pub(crate) async fn one(&self, id: Id) -> Result<Option<(Letter, bool)>> {
        let mut scan = self.scan().await?;
        scan.left.retain(|stretch| stretch.partition.partition == id.partition);
        let Some(stretch) = scan.left.first_mut() else { return Ok(None) };
        if id.offset < stretch.from.0 || id.offset >= stretch.to.0 {
            return Ok(None);
        }
        (stretch.from.0, stretch.to.0) = (id.offset, id.offset + 1);
        let records = scan.next().await?.unwrap_or_default();
        let found = records.first().and_then(|record| Letter::of(record, self.connector));
        let Some(letter) = found else { return Ok(None) };
        Ok(Some((letter, self.replayed().await?.contains(&id))))
    }

    /// Gives one letter back, with another value where one is given.
    ///
    /// # Errors
    /// A config error where it does not hold all of its record, or its partition is not read any more.
    pub(crate) async fn replay(&self, letter: Letter, value: Option<Bytes>) -> Result<Replayed> {
        let id = letter.id;
        self.give_back(vec![(id, letter.mended(value)?)]).await?;
        Ok(Replayed { replayed: 1, left: 0 })
    }

    /// Gives all letters of a reason back that were not, as they are.
    ///
    /// # Errors
    /// As [`Letters::replay`]; those before were given back, and are noted.
    pub(crate) async fn replay_all(&self, reason: &str) -> Result<Replayed> {
        let (replayed, mut scan) = (self.replayed().await?, self.scan().await?);
        let mut done = Replayed::default();
        while let Some(records) = scan.next().await? {
            let letters = records.iter().filter_map(|record| Letter::of(record, self.connector));
            let open = |letter: &Letter| letter.reason == reason && !replayed.contains(&letter.id);
            let mut whole = Vec::new();
            for letter in letters.filter(open) {
                let id = letter.id;
                match letter.mended(None) {
                    Ok(record) => whole.push((id, record)),
                    Err(_) => done.left += 1,
                }
            }
            done.replayed += whole.len() as u64;
            self.give_back(whole).await?;
        }
        Ok(done)
    }

    /// Appends records, and notes each that the log has.
    async fn give_back(&self, letters: Vec<(Id, DeadLetter)>) -> Result<()> {
        if letters.is_empty() {
            return Ok(());
        }
        let there = self.of.survey().await?.partitions;
        let reads = |of: &TopicPartition| there.iter().any(|info| info.partition == *of);
        if let Some((id, record)) = letters.iter().find(|(_, record)| !reads(&record.partition)) {
            return Err(Error::config(format!(
                "letter {id} is of `{}`, which {} does not read any more",
                record.partition, self.connector
            )));
        }
        let (ids, records): (Vec<Id>, Vec<DeadLetter>) = letters.into_iter().unzip();
        let ends = self.dead_letters.put_back(&records).await;
        let note = |(id, record): (&Id, &DeadLetter)| {
            let mut headers = Headers::default();
            push(&mut headers, REPLAYED, id.to_string());
            let (partition, offset) = (record.partition.clone(), record.offset);
            DeadLetter { partition, offset, key: None, value: None, headers }
        };
        let sent = ids.iter().zip(&records).zip(&ends).filter(|(_, end)| end.is_ok());
        let notes: Vec<DeadLetter> = sent.map(|(sent, _)| note(sent)).collect();
        tracing::info!(connector = self.connector, count = notes.len(), "gave dead letters back");
        let noted = self.dead_letters.send(&notes).await;
        ends.into_iter().chain(noted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::{self, Origin, Reason as Why};

    fn letter(headers: &[(&str, &str)]) -> Letter {
        let own = |(name, value): &(&str, &str)| {
            (Arc::from(*name), Some(Bytes::copy_from_slice(value.as_bytes())))
        };
        let record = Record {
            topic: Arc::from("orders"),
            partition: 3,
            offset: 41,
            timestamp: Some(5),
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"{")),
            headers: headers.iter().map(own).collect(),
        };
        let reason = Why { stage: "value_converter", message: "malformed".to_owned() };
        let origin = Origin { connector: "c".to_owned(), task: 1 };
        let DeadLetter { key, value, headers, .. } = dead_letter::letter(&record, &reason, &origin);
        let topic = Arc::from("dlq-g");
        let written = Record { topic, partition: 0, offset: 7, key, value, headers, ..record };
        assert!(Letter::of(&written, "another").is_none(), "of another connector");
        Letter::of(&written, "c").unwrap()
    }

    #[test]
    fn a_letter_is_read_as_it_was_written_and_goes_back_as_its_record() {
        let letter = letter(&[("trace", "t"), ("foldline.replay.of", "orders:3:2")]);
        assert_eq!((letter.id.to_string().as_str(), letter.offset), ("0:7", 41));
        assert_eq!(
            (letter.reason.as_str(), letter.stage.as_str()),
            ("malformed", "VALUE_CONVERTER")
        );
        let back = letter.clone().mended(None).unwrap();
        assert_eq!((back.key, back.value), (letter.key.clone(), letter.value.clone()));
        let names: Vec<&str> = back.headers.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["trace", "foldline.replay.of", "foldline.replay.timestamp"]);
        assert_eq!(text(&back.headers, REPLAY_OF).as_deref(), Some("orders:3:41"));
        let mended = letter.mended(Some(Bytes::from_static(b"{}"))).unwrap();
        assert_eq!(mended.value.as_deref(), Some(b"{}".as_slice()));
    }

    #[test]
    fn what_a_letter_leaves_out_must_be_given() {
        let value = || Some(Bytes::from_static(b"{}"));
        let mut letter = letter(&[]);
        letter.omits = Some("value".to_owned());
        assert!(letter.clone().mended(None).is_err());
        assert!(letter.clone().mended(value()).is_ok());
        letter.omits = Some("key,value,headers".to_owned());
        assert!(letter.mended(value()).is_err());
    }

    #[test]
    fn an_id_is_a_place() {
        assert_eq!("2:41".parse::<Id>().unwrap().to_string(), "2:41");
        for wrong in ["", "41", "a:1", "-1:2", "1:-2", "1:2:3"] {
            assert!(wrong.parse::<Id>().is_err(), "{wrong}");
        }
    }
}
