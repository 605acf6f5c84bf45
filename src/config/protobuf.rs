//! `{ type = "protobuf", schema = "order.proto", message = "shop.Order" }`: Protobuf by a schema from a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldline_language::converter::Framing;
use foldline_language::converter::protobuf::{Reference, Schema};

use super::schema_file::{SchemaFile, UNASKED};
use super::source::ConverterKind;

/// A message of a schema from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtobufFile {
    /// Where it stands.
    pub path: PathBuf,
    /// What the file holds.
    pub schema: Arc<Schema>,
    /// Which message of it.
    pub message: String,
    /// What stands before a value.
    pub framing: Framing,
}

impl ProtobufFile {
    /// The message's name, where at the end of this path its field is its type's default where it was not set.
    pub(super) fn hides_unset(&self, path: &[Arc<str>]) -> Option<&str> {
        self.schema.hides_unset(&self.message, path).then_some(&self.message)
    }
}

pub(super) fn read(file: &SchemaFile<'_>) -> Option<ConverterKind> {
    let framing = file.framing(&UNASKED)?;
    let path = file.schema.file_path()?;
    let schema = Arc::new(schema(file, &path)?);
    let names = schema.names();
    let message = match (&file.message, names.as_slice()) {
        (Some(message), names) => message.reference("message", names.iter().copied())?,
        (None, [only]) => (*only).to_owned(),
        (None, names) => {
            file.schema.problem(format!(
                "{} has {} messages: `message` says which one it is",
                path.display(),
                names.len()
            ));
            return None;
        }
    };
    Some(ConverterKind::ProtobufFile(ProtobufFile { path, schema, message, framing }))
}

fn schema(file: &SchemaFile<'_>, path: &Path) -> Option<Schema> {
    let references = file.references()?;
    let shown = path.display();
    if path.extension().is_some_and(|extension| extension == "proto") {
        let references: Vec<Reference<'_>> =
            references.iter().map(|(name, text)| Reference { name, text }).collect();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let made = Schema::parse(&name, &file.text(path)?, &references);
        return made
            .map_err(|error| file.schema.problem(format!("{shown} is no Protobuf schema: {error}")))
            .ok();
    }
    if !references.is_empty() {
        file.schema.problem(format!(
            "{shown} is read as a set of descriptors, which holds what it imports: leave out `references`"
        ));
        return None;
    }
    let bytes = std::fs::read(path);
    let bytes =
        bytes.map_err(|e| file.schema.problem(format!("{shown} cannot be read: {e}"))).ok()?;
    let made = Schema::of_descriptors(&bytes);
    made.map_err(|error| {
        file.schema.problem(format!(
            "{shown} is neither named .proto nor a set of descriptors (protoc --include_imports --descriptor_set_out): {error}"
        ));
    })
    .ok()
}
