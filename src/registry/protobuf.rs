//! Protobuf's converters.

use std::sync::Arc;

use foldline_api::error::{Error, Result};
use foldline_language::converter::protobuf::Protobuf;
use foldline_language::converter::schema::Schemas;
use foldline_language::converter::{Format, Framing, Part, RegistryProtobuf};
use foldline_language::event::Mask;

use crate::config::ProtobufFile;

/// By a schema from a file.
pub(super) fn by_file(file: &ProtobufFile, mask: &Mask) -> Result<Format> {
    let made = Protobuf::new(Arc::clone(&file.schema), &file.message, file.framing, mask);
    let missing = || Error::config(format!("{:?} is no message of the schema", file.message));
    Ok(Format::Protobuf(Arc::new(made.ok_or_else(missing)?)))
}

/// By the schemas of a registry.
pub(super) fn by_registry(
    schemas: Arc<dyn Schemas>,
    framing: Framing,
    part: Part,
    mask: &Mask,
) -> Result<Format> {
    Ok(Format::Schema(Arc::new(RegistryProtobuf::new(schemas, framing, part, mask))))
}
