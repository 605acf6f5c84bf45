//! What can be said of a record before the states of its keys are known: the event, and the keys that it may touch.

use std::sync::Arc;

use foldline_api::error::ErrorClass;
use foldline_api::record::Record;
use foldline_language::converter::Decoder;
use foldline_language::event::Event;
use foldline_language::projection::{BadRecord, Prepared, Projection};

/// The stage of a record that was read without what its converter needs. It is not bad: whoever decoded it is at fault.
pub(crate) const UNPREPARED: &str = "unprepared";

/// What became of decoding one record.
pub(crate) type Decoded = Result<(Event, Prepared), BadRecord>;

/// Which decoder a topic takes.
pub(crate) trait Decoders: Send + Sync + std::fmt::Debug {
    /// The decoder of `topic`.
    fn of(&self, topic: &Arc<str>) -> &Decoder;

    /// Whether some topic's converters need schemas.
    fn need_schemas(&self) -> bool;
}

/// Decodes a record and names its keys.
pub(crate) fn decode(projection: &Projection, decoders: &dyn Decoders, record: &Record) -> Decoded {
    decode_with(projection, decoders.of(&record.topic), record)
}

/// The same, by the decoder of its topic.
pub(crate) fn decode_with(projection: &Projection, decoder: &Decoder, record: &Record) -> Decoded {
    let event = decoder.decode(record).map_err(|error| BadRecord {
        stage: match (error.error.class(), error.part) {
            (ErrorClass::Record, "key") => "key_converter",
            (ErrorClass::Record, _) => "value_converter",
            _ => UNPREPARED,
        },
        reason: error.to_string(),
        read: Vec::new(),
    })?;
    let prepared = projection.prepare(&event)?;
    Ok((event, prepared))
}
