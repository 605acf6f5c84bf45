//! Writes the log: for `foldline produce`, for tests, and for dead letters.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use foldline_api::record::{Headers, TopicPartition};
use foldline_api::source::{DeadLetter, DeadLetters};
use foldline_api::time::Timestamp;
use foldline_api::{Error, Result};

use crate::groups::{ensure_id, io, make_folder};
use crate::line::{self, Line};
use crate::log::{blocking, check_topic, file_of, partitions_of};
use crate::partitioner::partition_of;

/// A record to append.
#[derive(Clone, Debug, Default)]
pub struct NewRecord {
    /// Its partition; none leaves it to the key, or to turns where there is no key.
    pub partition: Option<i32>,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Headers,
    /// Its timestamp in milliseconds since the epoch.
    pub timestamp: Option<i64>,
}

impl NewRecord {
    /// Reads a line of the log's own format: what `foldline produce` takes from standard input. None
    /// where the line is blank.
    ///
    /// # Errors
    /// Class Record: why the line is no record, or none that an expression could read whole.
    pub fn from_line(line: &Bytes) -> Result<Option<Self>> {
        let read = line::read_strictly(line).map_err(|fault| Error::record(fault.to_string()))?;
        let Some(Line { key, value, headers, timestamp }) = read else { return Ok(None) };
        if timestamp.is_some_and(|millis| Timestamp::from_millis(millis).is_none()) {
            return Err(Error::record(
                "a timestamp outside the years 1 to 9999 (it is in milliseconds)",
            ));
        }
        Ok(Some(NewRecord { partition: None, key, value, headers, timestamp }))
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
        let (producer, topic) = (Arc::clone(&self.producer), Arc::clone(&self.topic));
        let (count, letters) = (letters.len(), letters.to_vec());
        let sent = blocking(move || {
            for DeadLetter { key, value, headers, .. } in letters {
                let timestamp = Some(now());
                let record = NewRecord { partition: Some(0), key, value, headers, timestamp };
                producer.append(&topic, record)?;
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
