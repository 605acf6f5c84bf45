//! A converter's schema from a file. It is read with the config, so that `validate` tells what is wrong with it.

use std::path::Path;

use foldline_language::config::form::{Choice, FilePath, KeyForm, Text, TextList};
use foldline_language::config::key::{Key, Or};
use foldline_language::config::reader::{Field, Reader};
use foldline_language::converter::Framing;

use super::source::ConverterKind;
use super::{avro, protobuf};

pub(super) const SCHEMA: Key<FilePath> = Key::new(
    "schema",
    FilePath,
    "The schema's file, in place of a registry: Avro's JSON; Protobuf's `.proto`, or a set of descriptors",
);
pub(super) const REFERENCES: Key<TextList> = Key::new(
    "references",
    TextList,
    "Files that the schema refers to; Avro's each after those that it names",
);
pub(super) const MESSAGE: Key<Text> =
    Key::new("message", Text, "Protobuf: which message of the schema's file it is");
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
/// Where the frame says which schema it is.
pub(super) const OF_REGISTRY: Choice<Framing> = Choice(&[
    ("auto", Framing::Auto),
    ("single-object", Framing::SingleObject),
    ("confluent", Framing::Confluent),
    ("headers", Framing::Headers),
    ("apicurio-8-byte", Framing::Apicurio8),
]);
/// Where the schema is not asked for.
pub(super) const UNASKED: Choice<Framing> =
    Choice(&[("none", Framing::None), ("auto", Framing::Auto), ("confluent", Framing::Confluent)]);

/// The keys of a converter that say it.
#[derive(Default)]
pub(super) struct Keys<'a> {
    schema: Option<Field<'a>>,
    references: Option<Field<'a>>,
    message: Option<Field<'a>>,
    pub(super) framing: Option<Field<'a>>,
}

/// What such a file is read with.
pub(super) struct SchemaFile<'a> {
    pub(super) schema: Field<'a>,
    references: Option<Field<'a>>,
    pub(super) message: Option<Field<'a>>,
    framing: Option<Field<'a>>,
}

impl<'a> Keys<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Self {
        Keys {
            schema: reader.field(&SCHEMA),
            references: reader.field(&REFERENCES),
            message: reader.field(&MESSAGE),
            framing: reader.field(&FRAMING),
        }
    }

    /// Whether they name a file.
    pub(super) fn are_of_file(&self) -> bool {
        self.schema.is_some() || self.references.is_some() || self.message.is_some()
    }
}

pub(super) fn read<'a>(
    name: &Field<'_>,
    keys: Keys<'a>,
    registry: Option<Field<'_>>,
) -> Option<ConverterKind> {
    let Keys { schema, references, message, framing } = keys;
    let Some(schema) = schema else {
        let beside = "stands beside `schema`";
        references.inspect(|field| field.problem(format!("`references` {beside}")));
        message.inspect(|field| field.problem(format!("`message` {beside}")));
        framing.inspect(|field| field.problem(format!("`framing` {beside}")));
        return None;
    };
    let read = match name.node.as_str() {
        Some("avro") => avro::read,
        Some("protobuf") => protobuf::read,
        _ => {
            name.problem("only `avro` and `protobuf` read by a `schema` from a file");
            return None;
        }
    };
    if let Some(registry) = registry {
        registry.problem("the schema is from a file: leave out `registry` or `schema`");
        return None;
    }
    read(&SchemaFile { schema, references, message, framing })
}

impl SchemaFile<'_> {
    /// What stands before a value.
    pub(super) fn framing(&self, choice: &Choice<Framing>) -> Option<Framing> {
        self.framing.as_ref().map_or(Some(FRAMING.default()), |field| choice.read(field))
    }

    /// The references' names as they are written, and what they hold.
    pub(super) fn references(&self) -> Option<Vec<(String, String)>> {
        let Some(field) = &self.references else { return Some(Vec::new()) };
        let one = |path: Field<'_>| {
            let text = text_of(&path, &path.file_path()?)?;
            Some((path.text()?, text))
        };
        field.list("a list of files")?.into_iter().map(one).collect()
    }

    /// The schema's text.
    pub(super) fn text(&self, path: &Path) -> Option<String> {
        text_of(&self.schema, path)
    }
}

fn text_of(field: &Field<'_>, path: &Path) -> Option<String> {
    let read = std::fs::read_to_string(path);
    read.map_err(|error| field.problem(format!("{} cannot be read: {error}", path.display()))).ok()
}
