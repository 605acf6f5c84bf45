//! Reads one partition's file: big reads, and lines that are slices of what was read.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::{Error, Result};

use crate::groups::io;
use crate::index::{FileId, LineIndex, changed, newline};
use crate::line;

/// The longest line that is read.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where a partition's file is read.
#[derive(Debug)]
pub(crate) struct PartitionReader {
    place: TopicPartition,
    path: PathBuf,
    file: File,
    id: FileId,
    byte: u64,
    line: i64,
    chunk: usize,
}

impl PartitionReader {
    /// At `position`, which the index finds. `chunk` is the size of a read in bytes.
    pub(crate) fn open(
        (place, path): (TopicPartition, PathBuf),
        position: Position,
        index: &mut LineIndex,
        chunk: usize,
    ) -> Result<Self> {
        let file = File::open(&path).map_err(|error| io("open", &path, error))?;
        let metadata = file.metadata().map_err(|error| io("read", &path, error))?;
        let high = index.extend(&file, &path)?;
        let Some(byte) = index.byte_of(position.0, &file, &path)? else {
            return Err(Error::config(format!(
                "{} has {high} lines, and the next to read is line {position}: the log has lost its end; \
                 put the file back, or rebuild",
                path.display()
            )));
        };
        let id = FileId::of(&metadata);
        Ok(PartitionReader { place, path, file, id, byte, line: position.0, chunk })
    }

    /// The next offset to read.
    pub(crate) fn position(&self) -> Position {
        Position(self.line)
    }

    /// The next records; none where there is no complete line. May be empty where lines are blank.
    pub(crate) fn read(&mut self) -> Result<Option<Vec<Record>>> {
        let Some(chunk) = self.read_lines()? else {
            self.check_file()?;
            return Ok(None);
        };
        let mut records = Vec::with_capacity(chunk.len() / 96);
        let mut rest = 0;
        while let Some(length) = newline(chunk.get(rest..).unwrap_or_default()) {
            let line = chunk.slice(rest..rest + length);
            rest += length + 1;
            if let Some(line) = line::read(&line) {
                records.push(Record {
                    topic: Arc::clone(&self.place.topic),
                    partition: self.place.partition,
                    offset: self.line,
                    timestamp: line.timestamp,
                    key: line.key,
                    value: line.value,
                    headers: line.headers,
                });
            }
            self.line += 1;
        }
        self.byte += chunk.len() as u64;
        Ok(Some(records))
    }

    /// Bytes up to the end of a line; at least one line, however long.
    fn read_lines(&mut self) -> Result<Option<Bytes>> {
        let mut size = self.chunk;
        loop {
            let mut buffer = BytesMut::zeroed(size);
            let count = self.fill(&mut buffer)?;
            buffer.truncate(count);
            if let Some(last) = buffer.iter().rposition(|byte| *byte == b'\n') {
                buffer.truncate(last + 1);
                return Ok(Some(buffer.freeze()));
            }
            if count < size {
                return Ok(None);
            }
            if size >= LINE_BYTES_MAX {
                return Err(Error::config(format!(
                    "line {} of {} is longer than 64 MiB, the most that is read",
                    self.line,
                    self.path.display()
                )));
            }
            size = (size * 4).min(LINE_BYTES_MAX);
        }
    }

    fn fill(&self, buffer: &mut [u8]) -> Result<usize> {
        let mut count = 0;
        while let Some(room) = buffer.get_mut(count..).filter(|room| !room.is_empty()) {
            match self.file.read_at(room, self.byte + count as u64) {
                Ok(0) => break,
                Ok(read) => count += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(io("read", &self.path, error)),
            }
        }
        Ok(count)
    }

    /// At the end: whether the file is still the one that stands there, and no shorter than was read.
    fn check_file(&self) -> Result<()> {
        let open = self.file.metadata().map_err(|error| io("read", &self.path, error))?;
        if open.len() < self.byte {
            return Err(changed(&self.path, "became shorter"));
        }
        match fs::metadata(&self.path) {
            Ok(there) if FileId::of(&there) == self.id => Ok(()),
            Ok(_) => Err(changed(&self.path, "was replaced")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(changed(&self.path, "was deleted"))
            }
            Err(error) => Err(io("read", &self.path, error)),
        }
    }
}
