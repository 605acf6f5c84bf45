//! What the config's JSON Schema is made of.

use serde_json::{Map, Value, json};

/// A table with these keys and no others.
pub fn object(description: &str, required: &[&str], keys: &[(&str, Value)]) -> Value {
    let properties: Map<String, Value> =
        keys.iter().map(|(key, schema)| ((*key).to_owned(), schema.clone())).collect();
    json!({
        "type": "object",
        "description": description,
        "required": required,
        "properties": properties,
        "additionalProperties": false,
    })
}

/// A table whose keys are names.
pub fn named(description: &str, entry: &Value) -> Value {
    json!({ "type": "object", "description": description, "additionalProperties": entry })
}

/// Another definition.
pub fn of(definition: &str) -> Value {
    json!({ "$ref": format!("#/definitions/{definition}") })
}

/// The same, said what it is for here. Draft 7 looks at no key beside `$ref`, but editors show this one.
pub fn refer(description: &str, definition: &str) -> Value {
    let mut schema = of(definition);
    schema["description"] = description.into();
    schema
}

/// A text that is not empty.
pub fn text(description: &str) -> Value {
    json!({ "type": "string", "minLength": 1, "description": description })
}

/// A path.
pub fn file_path(description: &str) -> Value {
    text(description)
}

/// A list of texts.
pub fn texts(description: &str) -> Value {
    json!({ "type": "array", "items": { "type": "string" }, "description": description })
}

/// A secret: a text, or where it is.
pub fn secret(description: &str) -> Value {
    json!({
        "description": description,
        "anyOf": [{ "type": "string", "minLength": 1 }, of("secret")],
    })
}

/// An integer, or a text with a variable in it.
pub fn integer(description: &str, min: i64) -> Value {
    json!({
        "description": description,
        "anyOf": [
            { "type": "integer", "minimum": min },
            { "type": "string", "pattern": "\\$\\{" },
        ],
    })
}

/// `true` or `false`, or a text with a variable in it.
pub fn flag(description: &str) -> Value {
    json!({
        "description": description,
        "anyOf": [{ "type": "boolean" }, { "type": "string", "pattern": "\\$\\{" }],
    })
}

/// One of these names.
pub fn choice(description: &str, names: &[&str]) -> Value {
    json!({ "type": "string", "enum": names, "description": description })
}

/// A duration, or a text with a variable in it.
pub fn duration(description: &str) -> Value {
    json!({
        "type": "string",
        "pattern": "^[0-9]+(ms|s|m|h|d)$|\\$\\{",
        "description": format!("{description} A duration such as 250ms, 10s, 5m, 1h or 30d."),
    })
}

/// A size, or a text with a variable in it.
pub fn size(description: &str) -> Value {
    json!({
        "type": "string",
        "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)$|\\$\\{",
        "description": format!("{description} A size such as 64KiB, 8MiB or 1GiB."),
    })
}

/// A list of such items.
pub fn list(description: &str, item: &Value) -> Value {
    json!({ "type": "array", "items": item, "description": description })
}
