//! From files to descriptors: the text of a `.proto` file, the descriptor of one in base64 as some registries have it, or a set of
//! descriptors as `protoc --descriptor_set_out` writes it.

use std::path::Path;

use foldline_api::json::parse_base64;
use prost_reflect::DescriptorPool;
use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::FileDescriptorProto;
use protox::Compiler;
use protox::file::{File, FileResolver, GoogleFileResolver};

use super::build;
use super::schema::{Schema, SchemaError};

/// Another file, which the schema imports.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// Its path. An import is of the file of that path, or of the only one whose path ends with it.
    pub name: &'a str,
    /// What it holds, as text or as base64 of its descriptor.
    pub text: &'a str,
}

impl Schema {
    /// Reads a file, and what it imports of `references`. Google's own files need not be among those.
    ///
    /// # Errors
    /// When it is none, with the place.
    pub fn parse(
        name: &str,
        text: &str,
        references: &[Reference<'_>],
    ) -> Result<Schema, SchemaError> {
        let own = |text: &str| text.to_owned();
        let files = Files {
            name: own(name),
            text: own(text),
            references: references.iter().map(|r| (own(r.name), own(r.text))).collect(),
        };
        let mut compiler = Compiler::with_file_resolver(files);
        // Its text in the debugger's form begins with the file, the line and the column.
        compiler.open_file(name).map_err(|error| SchemaError(format!("{error:?}")))?;
        Ok(build::schema(&compiler.descriptor_pool(), Some(name)))
    }

    /// Reads a set of descriptors (`FileDescriptorSet`), which holds what its files import.
    ///
    /// # Errors
    /// When it is none.
    pub fn of_descriptors(bytes: &[u8]) -> Result<Schema, SchemaError> {
        let pool = DescriptorPool::decode(bytes).map_err(|error| SchemaError(error.to_string()))?;
        Ok(build::schema(&pool, None))
    }
}

/// Where imports are looked for.
struct Files {
    name: String,
    text: String,
    references: Vec<(String, String)>,
}

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == self.name {
            return file(name, &self.text);
        }
        if let Some((_, text)) = self.references.iter().find(|(known, _)| known == name) {
            return file(name, text);
        }
        let mut ending =
            self.references.iter().filter(|(known, _)| Path::new(known).ends_with(name));
        match (ending.next(), ending.next()) {
            (Some((_, text)), None) => file(name, text),
            (Some((one, _)), Some((other, _))) => Err(protox::Error::new(format!(
                "the import {name:?} is of several references: {one} and {other}"
            ))),
            (None, _) => GoogleFileResolver::new().open_file(name),
        }
    }
}

fn file(name: &str, text: &str) -> Result<File, protox::Error> {
    let decoded = parse_base64(text.trim());
    let descriptor = decoded.and_then(|bytes| FileDescriptorProto::decode(bytes.as_slice()).ok());
    match descriptor {
        Some(mut descriptor) => {
            // By which path its importers know it.
            descriptor.name = Some(name.to_owned());
            Ok(File::from_file_descriptor_proto(descriptor))
        }
        None => File::from_source(name, text),
    }
}
