//! Copies fetched records out of librdkafka's memory.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use foldline_api::record::{Headers, Record, TopicPartition};

use crate::native::FetchedRecord;

/// A burst ends at so many records or bytes.
const BURST_RECORDS: usize = 2_000;
const BURST_BYTES: usize = 1 << 20;

/// Records under way; their bytes are in one arena: one allocation for a burst, not one a record.
#[derive(Default)]
pub(crate) struct Burst {
    arena: BytesMut,
    rows: Vec<Row>,
    headers: Vec<(Arc<str>, Option<Range<usize>>)>,
    /// Header names that came before; they are few.
    names: HashMap<String, Arc<str>>,
}

struct Row {
    topic: Arc<str>,
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Range<usize>,
}

impl Burst {
    pub(crate) fn is_full(&self) -> bool {
        self.rows.len() >= BURST_RECORDS || self.arena.len() >= BURST_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn push(&mut self, of: &TopicPartition, record: &FetchedRecord) {
        let first = self.headers.len();
        let (names, headers, arena) = (&mut self.names, &mut self.headers, &mut self.arena);
        record.headers(|name, value| {
            let name = match names.get(name) {
                Some(name) => Arc::clone(name),
                None => {
                    let shared: Arc<str> = name.into();
                    if names.len() < 1_024 {
                        names.insert(name.to_owned(), Arc::clone(&shared));
                    }
                    shared
                }
            };
            headers.push((name, copy(arena, value)));
        });
        let row = Row {
            topic: Arc::clone(&of.topic),
            partition: of.partition,
            offset: record.offset(),
            timestamp: record.timestamp(),
            key: copy(&mut self.arena, record.key()),
            value: copy(&mut self.arena, record.value()),
            headers: first..self.headers.len(),
        };
        self.rows.push(row);
    }

    /// The records, as slices of one buffer.
    pub(crate) fn take(&mut self) -> Vec<Record> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let arena = self.arena.split().freeze();
        let slice = |range: Option<Range<usize>>| range.map(|range| arena.slice(range));
        let mut headers = self.headers.drain(..);
        let records = self.rows.drain(..).map(|row| Record {
            topic: row.topic,
            partition: row.partition,
            offset: row.offset,
            timestamp: row.timestamp,
            key: slice(row.key),
            value: slice(row.value),
            headers: take_headers(&mut headers, row.headers.len(), &arena),
        });
        records.collect()
    }
}

fn copy(arena: &mut BytesMut, bytes: Option<&[u8]>) -> Option<Range<usize>> {
    let bytes = bytes?;
    let from = arena.len();
    if arena.capacity() - from < bytes.len() {
        arena.reserve(bytes.len().max(64 << 10));
    }
    arena.extend_from_slice(bytes);
    Some(from..arena.len())
}

fn take_headers(
    from: &mut impl Iterator<Item = (Arc<str>, Option<Range<usize>>)>,
    count: usize,
    arena: &Bytes,
) -> Headers {
    if count == 0 {
        return Headers::new();
    }
    from.take(count).map(|(name, value)| (name, value.map(|range| arena.slice(range)))).collect()
}
