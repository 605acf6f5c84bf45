//! The records of the books, and which life of the state topic they are of.

use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::source::Stretch;
use foldline_api::{Error, Result};
use foldline_sink_sqlite::Entry;
use serde_json::{Value as Json, json};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// The key of the entry that says which topic the books are of.
pub(crate) const TOPIC: &str = "topic";
/// The version of the books.
const VERSION: u64 = 1;

/// The life of the state topic that the books are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Of {
    pub(crate) topic_id: Option<String>,
    pub(crate) partitions: i32,
}

impl Of {
    /// As the books have it.
    pub(crate) fn row(&self) -> String {
        json!({ "version": VERSION, "topic_id": self.topic_id, "partitions": self.partitions })
            .to_string()
    }

    /// None where another version wrote it.
    pub(crate) fn read(row: &str) -> Option<Self> {
        let row: Json = serde_json::from_str(row).ok()?;
        if row.get("version").and_then(Json::as_u64) != Some(VERSION) {
            return None;
        }
        let partitions = row.get("partitions").and_then(Json::as_i64)?;
        let topic_id = row.get("topic_id").and_then(Json::as_str).map(str::to_owned);
        Some(Of { topic_id, partitions: i32::try_from(partitions).ok()? })
    }
}

/// The state topic as it stands.
pub(crate) struct There {
    pub(crate) of: Of,
    /// The first and the end offset of each partition, transactions that are open included.
    pub(crate) ends: Vec<(i64, i64)>,
}

impl There {
    pub(crate) fn has_records(&self) -> bool {
        self.ends.iter().any(|(low, high)| low < high)
    }
}

/// The id of the topic as it was asked for.
pub(crate) type Life = JoinHandle<Result<Vec<Option<String>>>>;

/// Whether the topic that was written to is the one of the books. One that was made anew later has none of the states before:
/// the next flush finds that.
pub(crate) fn check_life(life: Life, of: &Of) -> Result<()> {
    let now = Handle::current().block_on(life);
    let now = now.map_err(|e| Error::retriable("a question was abandoned").with_source(e))??;
    if now.into_iter().next().flatten() == of.topic_id {
        return Ok(());
    }
    Err(Error::fenced("the state topic was deleted and made anew"))
}

pub(crate) fn stretch(topic: &str, partition: i32, from: i64, to: i64) -> Stretch {
    let partition = TopicPartition::new(topic.to_owned(), partition);
    Stretch { partition, from: Position(from), to: Position(to) }
}

/// An entry of the books as a record has it: its table and its key, and all of it.
pub(crate) fn entry_of(record: &Record) -> Result<Entry> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let key = record.key.as_deref().and_then(text).ok_or_else(|| {
        Error::config(format!("`{}` holds what Foldline did not write", record.topic))
    })?;
    let at = key.find('[').unwrap_or(key.len());
    let (table, key) = key.split_at(at);
    let row = record.value.as_deref().and_then(text);
    Ok(Entry { table: table.to_owned(), key: key.to_owned(), row })
}

/// Whether it says that there is no such topic.
pub(crate) fn is_missing(error: &Error) -> bool {
    matches!(error.code(), Some("UnknownTopicOrPartition" | "UnknownTopic" | "UnknownPartition"))
}
