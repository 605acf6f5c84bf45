//! `[projections.NAME.fields]`: the read model.

use indexmap::IndexMap;

use super::projection::{FieldConfig, Located};
use super::reader::{Field, Reader};

/// Foldline's own metadata field, and what begins like it.
const RESERVED: &str = "_foldline";

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

fn plain(ty: String) -> FieldConfig {
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
        return field.text().map(plain);
    }
    let mut reader = field.table("field")?;
    let ty = reader.required("type", "\"text\"").and_then(|field| field.text());
    let mut config = plain(ty.clone().unwrap_or_default());
    config.index = reader.flag("index", false);
    config.default = reader.get("default").map(|field| field.node.to_value());
    config.computed = reader.text("computed");
    config.by = reader.text("by");
    config.lookup = reader.text("lookup");
    config.via = reader.text("via");
    config.fields = read_child_fields(reader.entries("fields"));
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
            let Some(mut reader) = field.table("child_field") else { continue };
            let ty = reader.required("type", "\"text\"").and_then(|field| field.text());
            let default = reader.get("default").map(|field| field.node.to_value());
            reader.finish();
            ty.map(|ty| FieldConfig { default, ..plain(ty) })
        } else {
            field.text().map(plain)
        };
        let Some(config) = config else { continue };
        if config.ty == "children" {
            field.problem("children have no children of their own");
        }
        fields.insert(name.to_owned(), Located { path: field.path, value: config });
    }
    fields
}
