//! A file source's log with the same content.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;

use super::orders::{Event, PARTITIONS};

/// Appends events to `<directory>/<topic>/<partition>.ndjson`.
pub(crate) fn append(directory: &Path, topic: &str, events: impl Iterator<Item = Event>) {
    let directory = directory.join(topic);
    std::fs::create_dir_all(&directory).unwrap();
    let open = |partition: i32| {
        let path = directory.join(format!("{partition}.ndjson"));
        BufWriter::new(OpenOptions::new().create(true).append(true).open(path).unwrap())
    };
    let mut files: Vec<BufWriter<File>> = (0..PARTITIONS).map(open).collect();
    for event in events {
        let Event { partition, key, timestamp, value } = event;
        let file = &mut files[partition as usize];
        writeln!(file, r#"{{"key":"{key}","value":{value},"timestamp":{timestamp}}}"#).unwrap();
    }
    for mut file in files {
        file.flush().unwrap();
    }
}
