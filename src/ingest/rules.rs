//! What a topic asks of the records that are posted to it.

use std::sync::Arc;

use bytes::Bytes;
use foldline_api::error::{Error, Result};
use foldline_api::json;
use foldline_api::producer::NewRecord;
use foldline_source_file::Posted;

use super::schema::Schema;
use crate::config::{ConverterKind, IngestConfig, SourceConfig};

/// The rules of one topic.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Its values are read as JSON, so they must be some.
    json: bool,
    schema: Option<Schema>,
    /// The header that an event's name is written as.
    event_header: Arc<str>,
}

impl Rules {
    /// Those of a topic that the config opens, or else of any other.
    ///
    /// # Errors
    /// Class Config: what is wrong with the schema, or that values are not written as they are read.
    pub(crate) fn of(source: &SourceConfig, topic: &str) -> Result<Self> {
        let opened = source.topic(topic).and_then(|own| own.ingest.as_ref());
        let own = opened.cloned().unwrap_or_default();
        let (_, value) = source.converters(topic);
        let json = matches!(value, ConverterKind::Json | ConverterKind::ConnectJson);
        let plain = json || matches!(value, ConverterKind::Text | ConverterKind::Bytes);
        if opened.is_some() && !plain {
            return Err(Error::config(format!(
                "what is posted is written as it stands, and the values of this topic are read as {}",
                value.name()
            )));
        }
        let IngestConfig { schema, event_header } = own;
        let schema = schema.map(|path| Schema::read(&path)).transpose()?;
        Ok(Rules { json, schema, event_header: Arc::from(event_header) })
    }

    /// The record as it is written.
    ///
    /// # Errors
    /// Which part of it is wrong and why.
    pub(crate) fn admit(&self, posted: Posted) -> Result<NewRecord, String> {
        let Posted { mut record, event } = posted;
        if let Some(event) = event {
            let header = &self.event_header;
            if record.headers.iter().any(|(name, _)| name == header) {
                return Err(format!(
                    "`event`: the headers have `{header}` already, which stands for it"
                ));
            }
            record.headers.push((Arc::clone(header), Some(Bytes::from(event))));
        }
        // A tombstone has no value to check.
        let Some(value) = record.value.as_deref() else { return Ok(record) };
        if self.json {
            json::parse(value).map_err(|error| format!("`value`: {error}"))?;
        }
        if let Some(schema) = &self.schema {
            schema.check(value).map_err(|why| format!("`value`: {why}"))?;
        }
        Ok(record)
    }
}
