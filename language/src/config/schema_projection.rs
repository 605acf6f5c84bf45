//! The part of the JSON Schema that describes projections.

use serde_json::{Value, json};

use super::cases::{RECORD, TEST};
use super::fields::{CHILD_FIELD, FIELD};
use super::handlers::HANDLER;
use super::key::Section;
use super::projections::{EXPIRE_TABLE, PROJECTION};
use super::schema::of;

const SECTIONS: [&Section; 7] =
    [&PROJECTION, &EXPIRE_TABLE, &FIELD, &CHILD_FIELD, &HANDLER, &TEST, &RECORD];

/// The definitions of a projection and of what is below it.
pub fn definitions() -> Vec<(&'static str, Value)> {
    let sections = SECTIONS.iter().map(|section| (section.name, section.schema()));
    sections.chain(forms()).collect()
}

/// Short forms that several keys share.
fn forms() -> [(&'static str, Value); 4] {
    let names = json!({
        "description": "A name, a list of names, or a regex that starts with ^.",
        "anyOf": [
            { "type": "string", "minLength": 1 },
            { "type": "array", "items": { "type": "string" }, "minItems": 1 },
        ],
    });
    let operand = json!({
        "description": "A text is a CEL expression; a number, boolean, date or list is itself.",
        "type": ["string", "number", "integer", "boolean", "array"],
    });
    let assignments = json!({
        "description": "Field by field, or one expression for all fields that are not mentioned.",
        "anyOf": [
            { "type": "string", "minLength": 1 },
            { "type": "object", "additionalProperties": of("operand") },
        ],
    });
    let field_or_type = json!({ "anyOf": [{ "type": "string" }, of(FIELD.name)] });
    [
        ("names", names),
        ("operand", operand),
        ("assignments", assignments),
        ("field_or_type", field_or_type),
    ]
}
