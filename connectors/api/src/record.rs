//! Records, and where in the log they stand.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// The next offset to read, Kafka's own convention: after record 41 the position is 42.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub i64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        TopicPartition { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A record as the source delivers it, nothing decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since the epoch, where the log has one.
    pub timestamp: Option<i64>,
    /// The key's bytes.
    pub key: Option<Bytes>,
    /// The value's bytes; none is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order; a name may come more than once.
    pub headers: Headers,
}

/// A record's headers; empty ones cost nothing.
pub type Headers = Vec<(Arc<str>, Option<Bytes>)>;

impl Record {
    /// Bytes that a queue counts for this record.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let len = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|(n, v)| n.len() + len(v) + 64).sum();
        size_of::<Record>() + len(&self.key) + len(&self.value) + headers
    }

    /// The position after this record.
    #[must_use]
    pub fn next(&self) -> Position {
        Position(self.offset + 1)
    }

    /// Whether its partition is `of`, named by the very same allocation, as neighbours mostly are. False where
    /// the name is another copy.
    #[must_use]
    pub fn is_of(&self, of: &TopicPartition) -> bool {
        self.partition == of.partition && Arc::ptr_eq(&self.topic, &of.topic)
    }

    /// Its partition.
    #[must_use]
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: Arc::clone(&self.topic), partition: self.partition }
    }
}
