//! What stands for Protobuf's converters in a build without them.

use std::sync::Arc;

use foldline_api::error::Result;
use foldline_language::converter::schema::Schemas;
use foldline_language::converter::{Format, Framing, Part};
use foldline_language::event::Mask;

use crate::config::{ProtobufFile, lacks};

pub(super) fn by_file(file: &ProtobufFile, _: &Mask) -> Result<Format> {
    match *file {}
}

pub(super) fn by_registry(_: Arc<dyn Schemas>, _: Framing, _: Part, _: &Mask) -> Result<Format> {
    Err(lacks("protobuf"))
}
