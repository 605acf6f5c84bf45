//! The config's JSON Schema, for editors: draft 7, and plain enough for those that know less.
//!
//! Each kind of table is a definition, made of the keys that its reader takes; a test holds the lists of keys against those that the
//! loader asks for.

use foldline_language::config::key::Section;
use foldline_language::config::schema::of;
use foldline_language::config::schema_projection;
use foldline_language::config::secret::SECRET;
use foldline_language::config::table_kind::TableKind;
use serde_json::{Map, Value, json};

use super::connector::keys as connector;
use super::sink::{self, KINDS, lacking};
use super::{load, registry, source, worker};

/// The JSON Schema of the whole config.
pub fn json_schema() -> Value {
    let mut definitions: Map<String, Value> =
        SECTIONS.iter().map(|section| (section.name.to_owned(), section.schema())).collect();
    definitions.insert("converter_or_name".to_owned(), source::converter_schema());
    for (name, schema) in schema_projection::definitions() {
        definitions.insert(name.to_owned(), schema);
    }
    let mut sinks: Vec<TableKind> = KINDS.iter().map(|kind| kind.table()).collect();
    let doc = "A store that this build lacks.";
    sinks.extend(lacking().map(|name| TableKind { of: "sink", name, doc, keys: &[] }));
    sinks.push(sink::KAFKA_TABLE);
    kinds("registry", &[registry::CONFLUENT, registry::TOPIC], &mut definitions);
    kinds("source", &[source::KAFKA, source::FILE], &mut definitions);
    kinds("sink", &sinks, &mut definitions);
    for name in lacking() {
        // Its keys are not known here, and not looked at.
        definitions[&format!("sink.{name}")]["additionalProperties"] = true.into();
    }
    let mut schema = load::ROOT.schema();
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["definitions"] = definitions.into();
    schema
}

/// The tables of one kind each.
const SECTIONS: [&Section; 9] = [
    &SECRET,
    &worker::WORKER,
    &source::CONVERTER,
    &source::TOPIC,
    &source::INGEST_TABLE,
    &connector::CONNECTOR,
    &connector::BATCH_TABLE,
    &connector::ERRORS_TABLE,
    &connector::START_TABLE,
];

/// The definitions of a table of several kinds, and one that is any of them.
fn kinds(of_what: &str, kinds: &[TableKind], definitions: &mut Map<String, Value>) {
    let each: Vec<Value> = kinds.iter().map(|kind| of(&kind.definition())).collect();
    definitions.insert(of_what.to_owned(), json!({ "oneOf": each }));
    definitions.extend(kinds.iter().map(|kind| (kind.definition(), kind.schema())));
}
