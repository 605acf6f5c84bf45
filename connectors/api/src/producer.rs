//! Writing to a log: records, and what became of each.

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Error;
use crate::record::Headers;

/// A record to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// Its partition; none leaves it to the key, or to the log where there is no key.
    pub partition: Option<i32>,
    /// Its key; records of one key go to one partition.
    pub key: Option<Bytes>,
    /// Its value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Headers,
    /// Its timestamp in milliseconds since the epoch; now where there is none.
    pub timestamp: Option<i64>,
}

impl NewRecord {
    /// The bytes of key, value and headers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let len = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|(n, v)| n.len() + len(v)).sum();
        len(&self.key) + len(&self.value) + headers
    }
}

/// Where a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The partition.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
}

/// Why it is not known that a record was written.
#[derive(Debug)]
pub struct Undelivered {
    /// What went wrong.
    pub error: Error,
    /// Whether the log may have it all the same: it was sent, and no answer came. Without it nothing was written.
    pub may_be_written: bool,
}

impl Undelivered {
    /// A record that was not written.
    #[must_use]
    pub fn not_written(error: Error) -> Self {
        Undelivered { error, may_be_written: false }
    }
}

impl From<Undelivered> for Error {
    fn from(undelivered: Undelivered) -> Self {
        undelivered.error
    }
}

/// Writes to a log, each record durably and once.
#[async_trait]
pub trait Producer: Send + Sync {
    /// Writes the records to `topic`, in order within a partition, and tells what became of each, in their order.
    async fn send_each(
        &self,
        topic: &str,
        records: &[NewRecord],
    ) -> Vec<Result<Written, Undelivered>>;
}
