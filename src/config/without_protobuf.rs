//! What stands for Protobuf in a build without it.

use std::sync::Arc;

use super::schema_file::SchemaFile;
use super::source::ConverterKind;
use super::unsupported::lacks;

/// There is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtobufFile {}

impl ProtobufFile {
    pub(super) fn hides_unset(&self, _: &[Arc<str>]) -> Option<&str> {
        match *self {}
    }
}

pub(super) fn read(file: &SchemaFile<'_>) -> Option<ConverterKind> {
    file.schema.problem(lacks("protobuf").message());
    None
}
