//! The part of the JSON Schema that describes projections.

use serde_json::{Value, json};

use super::schema::{Definitions, choice, duration, flag, integer, named, object, of, text};

/// The definitions of a projection and of what is below it.
pub fn definitions() -> Definitions {
    let mut all = vec![("projection", projection()), ("expire", expire())];
    all.extend(forms());
    all.extend(fields());
    all.push(("handler", handler()));
    all.extend(tests());
    all
}

fn list_of(description: &str, item: &Value) -> Value {
    json!({ "type": "array", "items": item, "description": description })
}

fn projection() -> Value {
    let envelopes = ["debezium", "cloudevents"];
    let index = json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 });
    let keys = [
        ("topics", of("names")),
        ("envelope", choice("What stands around the event.", &envelopes)),
        ("event_type", of("operand")),
        ("key", named("Key columns and their expressions.", &of("operand"))),
        ("fields", named("The read model; order is column order.", &of("field_or_type"))),
        ("indexes", list_of("Secondary indexes over several columns.", &index)),
        ("expire", of("expire")),
        ("on", list_of("Handlers; the first that matches applies.", &of("handler"))),
        ("tests", list_of("Cases for `foldline test`.", &of("test"))),
    ];
    object("A fold of topics into rows or documents.", &["topics", "key", "fields", "on"], &keys)
}

fn expire() -> Value {
    let keys = [
        ("field", text("A key column that holds a time.")),
        ("after", duration("Age at which the row goes.")),
    ];
    object("Deletes rows by the clock.", &["field", "after"], &keys)
}

/// Short forms that several keys share.
fn forms() -> Definitions {
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
    vec![("names", names), ("operand", operand), ("assignments", assignments)]
}

fn fields() -> Definitions {
    let default = json!({ "description": "The value of a new row." });
    let child = [("type", text("PostgreSQL's name.")), ("default", default.clone())];
    let child_or_type = json!({ "anyOf": [{ "type": "string" }, of("child_field")] });
    let field = [
        ("type", text("PostgreSQL's name, or children.")),
        ("index", flag("A secondary index on this column alone.")),
        ("default", default),
        ("computed", text("A CEL expression over the state, after each event.")),
        ("by", text("Children: the child's key field.")),
        ("fields", named("Children: the child's fields.", &child_or_type)),
        ("lookup", text("projection.field to show; on children, a projection.")),
        ("via", text("The column whose value is the other row's key.")),
    ];
    vec![
        ("field", object("A field of the read model.", &["type"], &field)),
        ("child_field", object("A field of a child.", &["type"], &child)),
        ("field_or_type", json!({ "anyOf": [{ "type": "string" }, of("field")] })),
    ]
}

fn handler() -> Value {
    let operands = |description: &str| named(description, &of("operand"));
    let keys = [
        ("topic", of("names")),
        ("event", of("names")),
        ("when", of("operand")),
        ("key", operands("Another key for this handler, same columns.")),
        ("for_each", of("operand")),
        ("set", of("assignments")),
        ("merge", of("assignments")),
        ("patch", of("assignments")),
        ("add", operands("Adds; null adds nothing.")),
        ("min", operands("Keeps the smaller; null leaves it.")),
        ("max", operands("Keeps the larger; null leaves it.")),
        ("append", operands("Adds to the end of a list.")),
        ("remove", operands("Takes equal elements out of a list.")),
        ("put", named("Sets what it names of a child.", &of("assignments"))),
        ("take", operands("Takes the child with that key out.")),
        ("delete", flag("Deletes the row.")),
        ("ignore", flag("Filters the event.")),
        ("continue", flag("Goes on to the next handlers.")),
    ];
    object("What events do to a row.", &[], &keys)
}

fn tests() -> Definitions {
    let row = json!({ "description": "A table, or JSON text.", "type": ["object", "string"] });
    let record = [
        ("topic", text("Else the projection's first.")),
        ("key", json!({ "description": "The record's key." })),
        ("value", json!({ "description": "A text is JSON; none is a tombstone." })),
        ("headers", named("Header texts.", &json!({ "type": ["string", "number", "boolean"] }))),
        ("timestamp", json!({ "description": "A time; else the epoch." })),
        ("event", text("The converter's name for the event.")),
    ];
    // A table without any of the record's keys is a value, so both forms are one to an editor.
    let given = json!({ "type": ["object", "string"], "description": "A record, or its value." });
    let test = [
        ("name", text("Shown in the report.")),
        ("given", list_of("Records, in order.", &given)),
        ("expect", list_of("These rows and no others.", &row)),
        ("bad", integer("How many records are bad; 0 unless given.", 0)),
        ("filtered", integer("How many are filtered; any unless given.", 0)),
        ("order", choice("Runs only the order that is written.", &["given"])),
    ];
    let required = ["name", "given", "expect"];
    vec![
        ("record", object("A record of a test.", &[], &record)),
        ("test", object("A case for `foldline test`.", &required, &test)),
    ]
}
