//! `{ type = "avro", schema = "order.avsc" }`: Avro by a schema from a file. It is read with the config, so that `validate` tells what
//! is wrong with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldline_language::config::form::{Choice, FilePath, KeyForm, TextList};
use foldline_language::config::key::{Key, Or};
use foldline_language::config::reader::{Field, Reader};
use foldline_language::converter::Framing;
use foldline_language::converter::avro::{Reference, Schema};

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

pub(super) const SCHEMA: Key<FilePath> =
    Key::new("schema", FilePath, "Avro: the schema's file, in place of a registry");
pub(super) const REFERENCES: Key<TextList> = Key::new(
    "references",
    TextList,
    "Files of types that the schema names, each after those that it names",
);
pub(super) const FRAMING: Key<Choice<Framing>, Or<Framing>> =
    Key::new("framing", FRAMINGS, "What stands before a value").or(Framing::Auto);
const FRAMINGS: Choice<Framing> = Choice(&[
    ("auto", Framing::Auto),
    ("none", Framing::None),
    ("single-object", Framing::SingleObject),
    ("confluent", Framing::Confluent),
    ("headers", Framing::Headers),
    ("apicurio-8-byte", Framing::Apicurio8),
]);
/// Where the schema is known.
const OF_FILE: Choice<Framing> = Choice(&[
    ("auto", Framing::Auto),
    ("none", Framing::None),
    ("single-object", Framing::SingleObject),
]);
/// Where the frame says which schema it is.
pub(super) const OF_REGISTRY: Choice<Framing> = Choice(&[
    ("auto", Framing::Auto),
    ("confluent", Framing::Confluent),
    ("headers", Framing::Headers),
    ("apicurio-8-byte", Framing::Apicurio8),
]);
/// Where the schema is not asked for.
pub(super) const OF_JSON: Choice<Framing> =
    Choice(&[("none", Framing::None), ("auto", Framing::Auto), ("confluent", Framing::Confluent)]);

/// The keys of a converter that say it.
#[derive(Default)]
pub(super) struct Keys<'a> {
    schema: Option<Field<'a>>,
    references: Option<Field<'a>>,
    pub(super) framing: Option<Field<'a>>,
}

impl<'a> Keys<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Self {
        Keys {
            schema: reader.field(&SCHEMA),
            references: reader.field(&REFERENCES),
            framing: reader.field(&FRAMING),
        }
    }

    /// Whether they name a file.
    pub(super) fn are_of_file(&self) -> bool {
        self.schema.is_some() || self.references.is_some()
    }
}

pub(super) fn read(
    name: &Field<'_>,
    is_avro: bool,
    keys: Keys<'_>,
    registry: Option<Field<'_>>,
) -> Option<AvroFile> {
    let Some(field) = keys.schema else {
        let beside = "stands beside `schema`";
        keys.references.inspect(|field| field.problem(format!("`references` {beside}")));
        keys.framing.inspect(|field| field.problem(format!("`framing` {beside}")));
        return None;
    };
    if !is_avro {
        name.problem("only `avro` reads by a `schema` from a file");
        return None;
    }
    if let Some(registry) = registry {
        registry.problem("the schema is from a file: leave out `registry` or `schema`");
        return None;
    }
    let framing = match keys.framing {
        Some(field) => OF_FILE.read(&field)?,
        None => FRAMING.default(),
    };
    let mut references = Vec::new();
    for path in keys.references.map_or(Some(Vec::new()), |f| f.list("a list of files"))? {
        let text = text_of(&path, &path.file_path()?)?;
        references.push((path.text()?, text));
    }
    let references: Vec<Reference<'_>> =
        references.iter().map(|(name, text)| Reference { name, text }).collect();
    let path = field.file_path()?;
    let text = text_of(&field, &path)?;
    match Schema::parse(&text, &references) {
        Ok(schema) => Some(AvroFile { path, schema: Arc::new(schema), framing }),
        Err(error) => {
            field.problem(format!("{} is no Avro schema: {error}", path.display()));
            None
        }
    }
}

fn text_of(field: &Field<'_>, path: &Path) -> Option<String> {
    let read = std::fs::read_to_string(path);
    read.map_err(|error| field.problem(format!("{} cannot be read: {error}", path.display()))).ok()
}
