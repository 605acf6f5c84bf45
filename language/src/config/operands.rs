//! Reads the right sides of assignments.

use indexmap::IndexMap;

use super::form::{Entries, Other};
use super::projection::{Located, Operand};
use super::reader::Field;
use super::schema::{of, refer};
use super::tree::Item;

/// The right side of an assignment: see [`read_operand`].
pub(super) const OPERAND: Other = Other(|description| refer(description, "operand"));
/// Right sides by name: see [`read_operands`].
pub(super) const OPERANDS: Entries = Entries(|| of("operand"));

/// A TOML text is an expression, all else but a table is itself.
pub(super) fn read_operand(field: &Field<'_>) -> Option<Located<Operand>> {
    let value = match &field.node.item {
        Item::Scalar(toml::Value::String(_)) => Operand::Expression(field.text()?),
        Item::Scalar(_) | Item::List(_) => Operand::Literal(field.node.to_value()),
        Item::Table(_) => {
            field.problem(
                "found a table, expected an expression (a text), a number, a boolean, a date or a \
                 list",
            );
            return None;
        }
    };
    Some(Located { path: field.path.clone(), value })
}

pub(super) fn read_operands(entries: &[(&str, Field<'_>)]) -> IndexMap<String, Located<Operand>> {
    let read = |(name, field): &(&str, Field<'_>)| Some(((*name).to_owned(), read_operand(field)?));
    entries.iter().filter_map(read).collect()
}
