//! Writes the log: for `foldline produce`, for tests, and for dead letters.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use foldline_api::producer::NewRecord;
use foldline_api::record::TopicPartition;
use foldline_api::source::{DeadLetter, DeadLetters};
use foldline_api::time::Timestamp;
use foldline_api::{Error, Result};

use crate::groups::{ensure_id, io, make_folder};
use crate::line::{self, Line, Sent};
use crate::log::{blocking, check_topic, file_of, partitions_of};
use crate::partitioner::partition_of;

/// A record that someone posts: what `foldline produce` takes from standard input and REST in a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Posted {
    /// The record.
    pub record: NewRecord,
    /// The event's name, which is written as a header.
    pub event: Option<String>,
}

impl Posted {
    /// Reads a line of the log's own format that may also have `partition` and `event`. None where the line is blank.
    ///
    /// # Errors
    /// Class Record: which part of the line is wrong and why, or that an expression could not read it whole.
    pub fn from_line(line: &Bytes) -> Result<Option<Self>> {
        let read = line::read_posted(line).map_err(|fault| Error::record(fault.to_string()))?;
        let Some(Sent { line, partition, event }) = read else { return Ok(None) };
        let Line { key, value, headers, timestamp } = line;
        if timestamp.is_some_and(|millis| Timestamp::from_millis(millis).is_none()) {
            return Err(Error::record(
                "`timestamp`: outside the years 1 to 9999 (it is in milliseconds)",
            ));
        }
        let record = NewRecord { partition, key, value, headers, timestamp };
        Ok(Some(Posted { record, event }))
    }
}

/// Appends to a file log. Each record is one write at the file's end, so any number of processes may
/// append at once. Calls wait for the disk's cache; only [`FileProducer::sync`] waits for the disk.
#[derive(Debug)]
pub struct FileProducer {
    path: PathBuf,
    files: Mutex<HashMap<TopicPartition, File>>,
    counts: Mutex<HashMap<String, i32>>,
    turn: AtomicU32,
}

impl FileProducer {
    /// For the log in `path`, which is made if it is not there.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        FileProducer {
            path: path.to_owned(),
            files: Mutex::default(),
            counts: Mutex::default(),
            turn: AtomicU32::new(0),
        }
    }

    /// Makes a topic with at least `partitions` partitions. Idempotent.
    ///
    /// # Errors
    /// A config error for a name that no topic can have.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        check_topic(topic)?;
        ensure_id(&self.path.join(topic).join(".topic-id"))?;
        for partition in 0..partitions {
            let path = file_of(&self.path, &TopicPartition::new(topic, partition));
            let made = OpenOptions::new().append(true).create(true).open(&path);
            made.map_err(|error| io("create", &path, error))?;
        }
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).remove(topic);
        Ok(())
    }

    /// Appends a record, and says to which partition. A topic that is missing is made, with one.
    ///
    /// # Errors
    /// Retriable where the disk refuses: the record may or may not be there.
    pub fn append(&self, topic: &str, record: NewRecord) -> Result<i32> {
        let partition = match record.partition {
            Some(partition) if partition >= 0 => partition,
            Some(_) => return Err(Error::config("a partition's number is 0 or more")),
            None => self.choose(topic, record.key.as_deref())?,
        };
        let NewRecord { key, value, headers, timestamp, .. } = record;
        let text = line::write(&Line { key, value, headers, timestamp });
        self.append_line(TopicPartition::new(topic, partition), &text)?;
        Ok(partition)
    }

    /// Waits until the disk has all that was appended here.
    ///
    /// # Errors
    /// Retriable where the disk refuses.
    pub fn sync(&self) -> Result<()> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, file) in files.iter() {
            let path = file_of(&self.path, place);
            file.sync_data().map_err(|error| io("write", &path, error))?;
        }
        Ok(())
    }

    fn choose(&self, topic: &str, key: Option<&[u8]>) -> Result<i32> {
        let count = self.partition_count(topic)?;
        Ok(match key {
            Some(key) => partition_of(key, count),
            None => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) & 0x7fff_ffff;
                turn.cast_signed() % count.max(1)
            }
        })
    }

    fn partition_count(&self, topic: &str) -> Result<i32> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get(topic) {
            return Ok(*count);
        }
        check_topic(topic)?;
        let found = partitions_of(&self.path, topic)?.unwrap_or_default();
        let count = found.last().map_or(1, |last| last.partition + 1);
        counts.insert(topic.to_owned(), count);
        Ok(count)
    }

    fn append_line(&self, place: TopicPartition, text: &[u8]) -> Result<()> {
        let path = file_of(&self.path, &place);
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = match files.remove(&place) {
            Some(file) => file,
            None => self.open(&place, &path)?,
        };
        // After an error the file is opened anew, which ends a line that was written half.
        file.write_all(text).map_err(|error| io("write", &path, error))?;
        files.insert(place, file);
        Ok(())
    }

    fn open(&self, place: &TopicPartition, path: &Path) -> Result<File> {
        check_topic(&place.topic)?;
        make_folder(path)?;
        ensure_id(&self.path.join(&*place.topic).join(".topic-id"))?;
        let is_new = !path.exists();
        let open = || {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            if file.seek(SeekFrom::End(0))? > 0 {
                let mut last = [0];
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
                if last != *b"\n" {
                    // Someone died in the middle of a line: it becomes a bad record, and ours a line.
                    file.write_all(b"\n")?;
                }
            }
            if is_new && let Some(folder) = path.parent() {
                // The file's name must outlive a power cut as its lines do.
                File::open(folder)?.sync_all()?;
            }
            Ok(file)
        };
        open().map_err(|error| io("open", path, error))
    }
}

/// Dead letters as a topic of a file log: partition 0 of the topic.
#[derive(Clone, Debug)]
pub struct FileDeadLetters {
    producer: Arc<FileProducer>,
    topic: Arc<str>,
}

impl FileDeadLetters {
    /// Letters go to `topic` of the log in `path`.
    ///
    /// # Errors
    /// A config error for a name that no topic can have.
    pub fn new(path: &Path, topic: &str) -> Result<Self> {
        check_topic(topic)?;
        Ok(FileDeadLetters { producer: Arc::new(FileProducer::new(path)), topic: Arc::from(topic) })
    }
}

#[async_trait]
impl DeadLetters for FileDeadLetters {
    async fn send(&self, letters: &[DeadLetter]) -> Vec<Result<()>> {
        let to = TopicPartition::new(Arc::clone(&self.topic), 0);
        self.append(letters.iter().map(|letter| (to.clone(), letter.clone())).collect()).await
    }

    async fn put_back(&self, records: &[DeadLetter]) -> Vec<Result<()>> {
        let to = |record: &DeadLetter| (record.partition.clone(), record.clone());
        self.append(records.iter().map(to).collect()).await
    }
}

impl FileDeadLetters {
    async fn append(&self, records: Vec<(TopicPartition, DeadLetter)>) -> Vec<Result<()>> {
        let (producer, count) = (Arc::clone(&self.producer), records.len());
        let sent = blocking(move || {
            for (to, DeadLetter { key, value, headers, .. }) in records {
                let (partition, timestamp) = (Some(to.partition), Some(now()));
                let record = NewRecord { partition, key, value, headers, timestamp };
                producer.append(&to.topic, record)?;
            }
            producer.sync()
        });
        // The disk has all of them or, for all that is known, none.
        match sent.await {
            Ok(()) => (0..count).map(|_| Ok(())).collect(),
            Err(error) => {
                let failed = || Err(Error::new(error.class(), error.message()));
                (0..count).map(|_| failed()).collect()
            }
        }
    }
}

/// Milliseconds since the epoch.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &'static str) -> std::result::Result<Posted, String> {
        let read = Posted::from_line(&Bytes::from_static(line.as_bytes()));
        read.map(|posted| posted.unwrap()).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn what_is_posted_may_name_its_event_and_its_partition() {
        let posted = read(r#"{"event":"Named","partition":3,"key":"a","value":{"n":1.50}}"#);
        let posted = posted.unwrap();
        assert_eq!(posted.event.as_deref(), Some("Named"));
        assert_eq!(posted.record.partition, Some(3));
        assert_eq!(posted.record.key.as_deref(), Some(&b"a"[..]));
        assert_eq!(posted.record.value.as_deref(), Some(&br#"{"n":1.50}"#[..]));
        // A log has neither.
        let line = Bytes::from_static(br#"{"event":"Named","value":1}"#);
        assert!(line::read(&line).unwrap().value.unwrap().starts_with(b"not a log line"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_name() {
        for (line, wrong) in [
            (r#"{"vlaue":1}"#, "`vlaue`: an unknown name"),
            (r#"{"key":1,"key":2}"#, "`key`: a name twice"),
            (r#"{"key":1,"key_base64":"YQ=="}"#, "`key_base64`: a name twice"),
            (r#"{"value_base64":"?"}"#, "`value_base64`: no base64"),
            (r#"{"headers":{"a":1}}"#, "`headers`: not an object of texts"),
            (r#"{"timestamp":"soon"}"#, "`timestamp`: neither milliseconds nor RFC 3339"),
            (
                r#"{"timestamp":999999999999999}"#,
                "`timestamp`: outside the years 1 to 9999 (it is in milliseconds)",
            ),
            (r#"{"partition":-1}"#, "`partition`: not a partition's number"),
            (r#"{"partition":"1"}"#, "`partition`: not a partition's number"),
            (r#"{"event":""}"#, "`event`: an event without a name"),
            (r#"{"event":7}"#, "`event`: not a text"),
            ("[]", "not an object"),
            (r#"{"value":1"#, "not JSON"),
        ] {
            assert_eq!(read(line), Err(wrong.to_owned()), "{line}");
        }
    }
}
