//! An NDJSON event log on disk as a source: Kafka's shape without Kafka.
//!
//! ```text
//! <path>/.foldline-log-id            the log's identity, made once
//! <path>/.groups/<group>.json        committed offsets with their metadata
//! <path>/.groups/<group>.lock        one worker per group
//! <path>/<topic>/.topic-id           a topic recreated under its name has another
//! <path>/<topic>/<partition>.ndjson  one record a line; the offset is the line's number, from 0
//! ```
//!
//! A line is an object of these and no other names:
//!
//! - `value`: any JSON, handed on as the bytes that stand there, so that no digit is lost. Null or
//!   absent is a tombstone.
//! - `key`: a string, handed on as its text; any other JSON as the bytes that stand there.
//! - `value_base64`, `key_base64`: bytes that are no JSON.
//! - `headers`: an object of texts; null is a header without a value, `{"base64": "…"}` bytes.
//! - `timestamp`: milliseconds since the epoch, or RFC 3339.
//!
//! A line that is not JSON is still a record: the whole line is its value, which no JSON converter
//! takes, so it ends as a bad record with an offset. So does JSON that is no such object; what is
//! wrong is then put before it (`not a log line (…): `), since `{"vlaue":1}` must not pass for an event.
//! A blank line holds no record. A line without its end is not there yet.
//!
//! Files only grow. One that got shorter or was replaced while it was read is an error; so is a
//! position behind the end. What cannot be seen: a file rewritten while no worker ran, with as many
//! lines as before. A log has one host, and a group one worker ([`FileLog`]'s lock).

mod groups;
mod index;
mod line;
mod log;
mod partitioner;
mod produce;
mod reader;
mod source;
mod stretch;

pub use foldline_api::producer::NewRecord;
pub use log::{FileConfig, FileLog};
pub use partitioner::partition_of;
pub use produce::{FileDeadLetters, FileProducer, Posted};
pub use source::FileSource;
