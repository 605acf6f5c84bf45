//! `[projections.NAME.fields]`: the read model.

use indexmap::IndexMap;
use serde_json::json;

use super::form::{Entries, Flag, Other, Text};
use super::key::{Key, Or, Required, Section};
use super::projection::{FieldConfig, Located};
use super::reader::{Field, Reader};
use super::schema::of;

/// Foldline's own metadata field, and what begins like it.
const RESERVED: &str = "_foldline";

pub(super) static FIELD: Section = Section {
    name: "field",
    doc: "A field of the read model.",
    keys: &[&TYPE, &INDEX, &DEFAULT, &COMPUTED, &BY, &FIELDS, &LOOKUP, &VIA],
};
pub(super) static CHILD_FIELD: Section =
    Section { name: "child_field", doc: "A field of a child.", keys: &[&CHILD_TYPE, &DEFAULT] };

const TYPE: Key<Text, Required> =
    Key::new("type", Text, "PostgreSQL's name, or children").required("\"text\"");
const CHILD_TYPE: Key<Text, Required> =
    Key::new("type", Text, "PostgreSQL's name").required("\"text\"");
const INDEX: Key<Flag, Or<bool>> =
    Key::new("index", Flag, "A secondary index on this column alone").or(false);
const DEFAULT: Key<Other> = Key::new(
    "default",
    Other(|description| json!({ "description": description })),
    "The value of a new row",
);
const COMPUTED: Key<Text> =
    Key::new("computed", Text, "A CEL expression over the state, after each event");
const BY: Key<Text> = Key::new("by", Text, "Children: the child's key field");
const FIELDS: Key<Entries> = Key::new(
    "fields",
    Entries(|| json!({ "anyOf": [{ "type": "string" }, of(CHILD_FIELD.name)] })),
    "Children: the child's fields",
);
const LOOKUP: Key<Text> =
    Key::new("lookup", Text, "projection.field to show; on children, a projection");
const VIA: Key<Text> = Key::new("via", Text, "The column whose value is the other row's key");

pub(super) fn read_fields(
    entries: Vec<(&str, Field<'_>)>,
) -> IndexMap<String, Located<FieldConfig>> {
    let mut fields = IndexMap::new();
    for (name, field) in entries {
        check_field_name(&field, name);
        if let Some(config) = read_field(&field) {
            fields.insert(name.to_owned(), Located { path: field.path, value: config });
        }
    }
    fields
}

fn check_field_name(field: &Field<'_>, name: &str) {
    let fault = if name.is_empty() || name.len() > 63 {
        "a field's name has 1 to 63 bytes"
    } else if name.starts_with(RESERVED) {
        "names that start with `_foldline` are Foldline's own"
    } else if name.contains(|c: char| c == '.' || c.is_control()) {
        "a field's name has no dot and no control character"
    } else {
        return;
    };
    field.problem(fault);
}

impl FieldConfig {
    /// A field that has a type and nothing else.
    #[must_use]
    pub fn plain(ty: String) -> Self {
        FieldConfig {
            ty,
            index: false,
            default: None,
            computed: None,
            by: None,
            fields: IndexMap::new(),
            lookup: None,
            via: None,
        }
    }
}

fn read_field(field: &Field<'_>) -> Option<FieldConfig> {
    if !field.is_table() {
        let Some(ty) = field.node.as_str() else {
            field.problem(format!(
                "found {}, expected a type such as `\"bigint\"` or `{{ type = \"bigint\" }}`",
                field.node.describe()
            ));
            return None;
        };
        if ty == "children" {
            field.problem_with_help("`children` need `by` and `fields`", CHILDREN_HELP);
        }
        return field.text().map(FieldConfig::plain);
    }
    let mut reader = field.table(&FIELD)?;
    let ty = reader.read(&TYPE);
    let config = FieldConfig {
        ty: ty.clone().unwrap_or_default(),
        index: reader.read(&INDEX),
        default: reader.read(&DEFAULT).map(|field| field.node.to_value()),
        computed: reader.read(&COMPUTED),
        by: reader.read(&BY),
        lookup: reader.read(&LOOKUP),
        via: reader.read(&VIA),
        fields: read_child_fields(reader.read(&FIELDS).unwrap_or_default()),
    };
    if ty.is_some() {
        check_field(&reader, &config);
    }
    reader.finish();
    ty.map(|_| config)
}

const CHILDREN_HELP: &str =
    "{ type = \"children\", by = \"line\", fields = { line = \"integer\", sku = \"text\" } }";

fn check_field(reader: &Reader<'_>, config: &FieldConfig) {
    match (&config.lookup, &config.via) {
        (Some(_), None) => reader.problem_with_help(
            "`lookup` needs `via`, the column that holds the other row's key",
            "via = \"author_id\"",
        ),
        (None, Some(_)) => reader.problem("`via` is only used with `lookup`"),
        _ => {}
    }
    let sources = [
        ("default", config.default.is_some()),
        ("computed", config.computed.is_some()),
        ("lookup", config.lookup.is_some()),
    ];
    let given: Vec<&str> = sources.iter().filter(|(_, given)| *given).map(|(n, _)| *n).collect();
    if let [first, second, ..] = given.as_slice() {
        reader.problem(format!("`{first}` and `{second}` exclude each other"));
    }
    if config.ty == "children" {
        check_children(reader, config);
    } else if config.by.is_some() || !config.fields.is_empty() {
        let message = format!("`by` and `fields` belong to `children`, not to `{}`", config.ty);
        reader.problem_with_help(message, CHILDREN_HELP);
    }
}

fn check_children(reader: &Reader<'_>, config: &FieldConfig) {
    if config.index || config.default.is_some() || config.computed.is_some() {
        reader.problem("`children` take no `index`, `default` or `computed`");
    }
    let Some(by) = &config.by else {
        reader.problem_with_help("`children` need `by`, the child's key field", CHILDREN_HELP);
        return;
    };
    if config.lookup.is_some() {
        if !config.fields.is_empty() {
            reader.problem("`fields` are those of the looked-up projection: leave them out");
        }
        return;
    }
    if config.fields.is_empty() {
        reader.problem_with_help("`children` need `fields`", CHILDREN_HELP);
    } else if !config.fields.contains_key(by) {
        let known = super::diagnostic::listed(config.fields.keys().map(String::as_str));
        reader.problem(format!("`by` is {by:?}, which is none of the child's fields: {known}"));
    }
}

/// A child's fields are folded and nothing else: no index, no computation, no children.
fn read_child_fields(entries: Vec<(&str, Field<'_>)>) -> IndexMap<String, Located<FieldConfig>> {
    let mut fields = IndexMap::new();
    for (name, field) in entries {
        check_field_name(&field, name);
        let config = if field.is_table() {
            let Some(mut reader) = field.table(&CHILD_FIELD) else { continue };
            let ty = reader.read(&CHILD_TYPE);
            let default = reader.read(&DEFAULT).map(|field| field.node.to_value());
            reader.finish();
            ty.map(|ty| FieldConfig { default, ..FieldConfig::plain(ty) })
        } else {
            field.text().map(FieldConfig::plain)
        };
        let Some(config) = config else { continue };
        if config.ty == "children" {
            field.problem("children have no children of their own");
        }
        fields.insert(name.to_owned(), Located { path: field.path, value: config });
    }
    fields
}
