//! Dead letters: a bad record as it was, with Kafka Connect's context headers.

use std::sync::Arc;

use bytes::Bytes;
use foldline_api::record::{Headers, Record};
use foldline_api::source::{DeadLetter, LETTER_PREFIX};

/// Who sets records aside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The connector.
    pub connector: String,
    /// The task's number.
    pub task: u32,
}

/// Why a record is bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Where it failed.
    pub stage: &'static str,
    /// A sentence without payload.
    pub message: String,
}

/// The dead letter for `record`: its own bytes and headers, then `__connect.errors.*` as Connect's
/// `errors.deadletterqueue.context.headers.enable` writes them, and the record's timestamp in milliseconds beside
/// them, where it has one.
#[must_use]
pub fn letter(record: &Record, reason: &Reason, origin: &Origin) -> DeadLetter {
    let mut headers: Headers = record.headers.clone();
    // A letter that is folded again and fails again carries the newest reason only.
    headers.retain(|(name, _)| !name.starts_with(LETTER_PREFIX));
    let mut add = |name: &str, text: String| {
        headers.push((Arc::from(format!("{LETTER_PREFIX}{name}")), Some(Bytes::from(text))));
    };
    add("topic", record.topic.to_string());
    add("partition", record.partition.to_string());
    add("offset", record.offset.to_string());
    if let Some(timestamp) = record.timestamp {
        add("timestamp", timestamp.to_string());
    }
    add("connector.name", origin.connector.clone());
    add("task.id", origin.task.to_string());
    add("stage", reason.stage.to_ascii_uppercase());
    add("class.name", "foldline".to_owned());
    add("exception.class.name", "foldline.BadRecord".to_owned());
    add("exception.message", reason.message.clone());
    DeadLetter {
        partition: record.topic_partition(),
        offset: record.offset,
        key: record.key.clone(),
        value: record.value.clone(),
        headers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_says_where_it_came_from_and_why() {
        let record = Record {
            topic: Arc::from("orders"),
            partition: 3,
            offset: 41,
            timestamp: Some(5),
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"{")),
            headers: vec![(Arc::from("trace"), Some(Bytes::from_static(b"t")))],
        };
        let reason = Reason { stage: "value_converter", message: "malformed JSON".to_owned() };
        let origin = Origin { connector: "c".to_owned(), task: 1 };
        let letter = letter(&record, &reason, &origin);
        let header = |name: &str| {
            let found = letter.headers.iter().find(|(n, _)| **n == *name);
            found.and_then(|(_, v)| v.clone()).map(|v| String::from_utf8(v.to_vec()).unwrap())
        };
        assert_eq!(header("trace").as_deref(), Some("t"));
        assert_eq!(header("__connect.errors.topic").as_deref(), Some("orders"));
        assert_eq!(header("__connect.errors.partition").as_deref(), Some("3"));
        assert_eq!(header("__connect.errors.offset").as_deref(), Some("41"));
        assert_eq!(header("__connect.errors.timestamp").as_deref(), Some("5"));
        assert_eq!(header("__connect.errors.stage").as_deref(), Some("VALUE_CONVERTER"));
        assert_eq!(header("__connect.errors.exception.message").as_deref(), Some("malformed JSON"));
        assert_eq!(letter.value, record.value);
    }
}
