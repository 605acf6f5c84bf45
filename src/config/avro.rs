//! `{ type = "avro", schema = "order.avsc" }`: Avro by a schema from a file.

use std::path::PathBuf;
use std::sync::Arc;

use foldline_language::config::form::Choice;
use foldline_language::converter::Framing;
use foldline_language::converter::avro::{Reference, Schema};

use super::schema_file::SchemaFile;
use super::source::ConverterKind;

/// A schema from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvroFile {
    /// Where it stands.
    pub path: PathBuf,
    /// What it is.
    pub schema: Arc<Schema>,
    /// What stands before a value.
    pub framing: Framing,
}

const FRAMINGS: Choice<Framing> = Choice(&[
    ("auto", Framing::Auto),
    ("none", Framing::None),
    ("single-object", Framing::SingleObject),
]);

pub(super) fn read(file: &SchemaFile<'_>) -> Option<ConverterKind> {
    if let Some(message) = &file.message {
        message.problem("only `protobuf` has a `message`");
        return None;
    }
    let framing = file.framing(&FRAMINGS)?;
    let references = file.references()?;
    let references: Vec<Reference<'_>> =
        references.iter().map(|(name, text)| Reference { name, text }).collect();
    let path = file.schema.file_path()?;
    let text = file.text(&path)?;
    match Schema::parse(&text, &references) {
        Ok(schema) => {
            Some(ConverterKind::AvroFile(AvroFile { path, schema: Arc::new(schema), framing }))
        }
        Err(error) => {
            file.schema.problem(format!("{} is no Avro schema: {error}", path.display()));
            None
        }
    }
}
