//! Where lines start: a mark every so many lines, so that a position is found without reading from
//! the beginning.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use foldline_api::{Error, Result};

use crate::groups::io;

/// Lines from one mark to the next: 16 bytes of memory each.
const STEP: i64 = 4_096;

/// Bytes that a scan reads at once.
const SCAN_BYTES: usize = 256 * 1024;

/// The marks of one file, as far as it has been scanned.
#[derive(Debug, Default)]
pub(crate) struct LineIndex {
    /// `marks[n]` is the first byte of line `n * STEP`, from `n` = 1.
    marks: Vec<u64>,
    /// Complete lines so far.
    lines: i64,
    scanned: u64,
    file: Option<FileId>,
}

/// Tells a file from another that took its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        FileId(metadata.dev(), metadata.ino())
    }
}

/// The first newline.
pub(crate) fn newline(bytes: &[u8]) -> Option<usize> {
    const WIDTH: usize = 32;
    let is_newline = |byte: &u8| *byte == b'\n';
    for (at, chunk) in bytes.chunks(WIDTH).enumerate() {
        // Without an early exit the compiler looks at the whole chunk at once.
        if chunk.iter().fold(false, |found, byte| found | is_newline(byte)) {
            return chunk.iter().position(is_newline).map(|within| at * WIDTH + within);
        }
    }
    None
}

/// What an operator reads when a log's file is not what it was.
pub(crate) fn changed(path: &Path, how: &str) -> Error {
    Error::config(format!(
        "{} {how} while it was read: a log's files only grow; put it back, or give the topic a new \
         name or folder and rebuild",
        path.display()
    ))
}

impl LineIndex {
    /// Scans what was appended since; the number of complete lines.
    pub(crate) fn extend(&mut self, file: &File, path: &Path) -> Result<i64> {
        let metadata = file.metadata().map_err(|error| io("read", path, error))?;
        let id = FileId::of(&metadata);
        if self.file != Some(id) {
            *self = LineIndex { file: Some(id), ..LineIndex::default() };
        }
        if metadata.len() < self.scanned {
            return Err(changed(path, "became shorter"));
        }
        let mut buffer = vec![0; SCAN_BYTES];
        while self.scanned < metadata.len() {
            let read = file.read_at(&mut buffer, self.scanned);
            let count = read.map_err(|error| io("read", path, error))?;
            if count == 0 {
                break;
            }
            let mut from = 0;
            while let Some(at) = newline(buffer.get(from..count).unwrap_or_default()) {
                from += at + 1;
                self.lines += 1;
                if self.lines % STEP == 0 {
                    self.marks.push(self.scanned + from as u64);
                }
            }
            self.scanned += count as u64;
        }
        Ok(self.lines)
    }

    /// The first byte of `line`; none where the file has fewer lines. Call [`LineIndex::extend`] first.
    pub(crate) fn byte_of(&self, line: i64, file: &File, path: &Path) -> Result<Option<u64>> {
        if !(0..=self.lines).contains(&line) {
            return Ok(None);
        }
        let mark = usize::try_from(line / STEP).unwrap_or(0);
        let mut byte = mark.checked_sub(1).and_then(|at| self.marks.get(at)).copied().unwrap_or(0);
        let mut left = line % STEP;
        let mut buffer = vec![0; SCAN_BYTES];
        while left > 0 {
            let read = file.read_at(&mut buffer, byte);
            let count = read.map_err(|error| io("read", path, error))?;
            if count == 0 {
                return Err(changed(path, "became shorter"));
            }
            let mut from = 0;
            while let Some(at) = newline(buffer.get(from..count).unwrap_or_default()) {
                from += at + 1;
                left -= 1;
                if left == 0 {
                    return Ok(Some(byte + from as u64));
                }
            }
            byte += count as u64;
        }
        Ok(Some(byte))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_line_is_found_however_the_file_grew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.ndjson");
        let (mut text, mut starts) = (String::new(), vec![]);
        let mut index = LineIndex::default();
        for line in 0..10_000usize {
            starts.push(text.len() as u64);
            text.push_str(&"x".repeat(line % 100));
            text.push('\n');
            if line % 3_000 == 0 {
                fs::write(&path, &text).unwrap();
                index.extend(&File::open(&path).unwrap(), &path).unwrap();
            }
        }
        starts.push(text.len() as u64);
        fs::write(&path, text.clone() + "torn").unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(index.extend(&file, &path).unwrap(), 10_000);
        for line in [0, 1, 4_095, 4_096, 4_097, 8_191, 8_192, 9_999, 10_000] {
            let found = index.byte_of(line, &file, &path).unwrap();
            assert_eq!(found, Some(starts[usize::try_from(line).unwrap()]), "line {line}");
        }
        assert_eq!(index.byte_of(10_001, &file, &path).unwrap(), None);
        fs::write(&path, "short\n").unwrap();
        assert!(index.extend(&file, &path).is_err());
    }
}
