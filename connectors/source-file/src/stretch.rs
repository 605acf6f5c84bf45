//! Reads stretches of partitions beside the group.

use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::source::{Chunk, Reader, Stretch};

use crate::log::{Inner, blocking};
use crate::reader::PartitionReader;

/// No read is smaller, in bytes.
const CHUNK_MIN: usize = 64 * 1024;

/// Opens the file anew for each read: nothing is held in between.
#[derive(Debug)]
pub(crate) struct FileReader(pub(crate) Arc<Inner>);

#[async_trait]
impl Reader for FileReader {
    async fn read(&mut self, wanted: &[Stretch], bytes: usize) -> Result<Chunk> {
        let Some(first) = wanted.first().cloned() else { return Ok(Chunk::default()) };
        let log = Arc::clone(&self.0);
        blocking(move || read(&log, first, bytes)).await
    }
}

fn read(log: &Inner, wanted: Stretch, bytes: usize) -> Result<Chunk> {
    let Stretch { partition: place, from, to } = wanted;
    if from >= to {
        return Ok(Chunk { of: 0, records: Vec::new(), next: from });
    }
    let path = log.file_of(&place);
    let index = log.index_of(&place);
    let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
    let mut reader = PartitionReader::open((place, path), from, &mut index, bytes.max(CHUNK_MIN))?;
    let Some(mut records) = reader.read()? else {
        return Ok(Chunk { of: 0, records: Vec::new(), next: to });
    };
    records.retain(|record| record.offset < to.0);
    Ok(Chunk { of: 0, records, next: reader.position().min(to) })
}
