//! Tables of several kinds: `type` says which one, and by it what the other keys are.

use serde_json::Value;

use super::key::{Keys, required};
use super::reader::{Field, Reader};
use super::schema::{choice, object};
use super::tree::Item;

/// One kind of a table: a definition of its own in the JSON Schema.
#[derive(Clone, Copy, Debug)]
pub struct TableKind {
    /// What it is a kind of: `sink`.
    pub of: &'static str,
    /// Its name: `type = "…"`.
    pub name: &'static str,
    /// What tables of this kind are.
    pub doc: &'static str,
    /// The keys beside `type`.
    pub keys: Keys,
}

impl TableKind {
    /// The definition's name.
    pub fn definition(&self) -> String {
        format!("{}.{}", self.of, self.name)
    }

    /// Its definition.
    pub fn schema(&self) -> Value {
        let kind = choice(&format!("What kind of {}.", self.of), &[self.name]);
        let keys = self.keys.iter().map(|key| (key.name(), key.schema()));
        let keys: Vec<_> = [("type", kind)].into_iter().chain(keys).collect();
        let required: Vec<&str> = ["type"].into_iter().chain(required(self.keys)).collect();
        object(self.doc, &required, &keys)
    }

    /// The table of a field, whose `type` is read already.
    pub fn reader<'a>(&self, field: &Field<'a>) -> Option<Reader<'a>> {
        let mut reader = field.table(self.definition())?;
        reader.know("type");
        Some(reader)
    }
}

/// What `type` of a table says.
pub fn read_type<T: Clone>(field: &Field<'_>, kinds: &[(&str, T)]) -> Option<T> {
    let Item::Table(table) = &field.node.item else { return field.wrong_kind("a table") };
    let Some(node) = table.get("type") else {
        field.problem_with_help("`type` is missing", format!("type = {}", one_of(kinds)));
        return None;
    };
    Field { cx: field.cx, path: format!("{}.type", field.path), node }.choice(kinds)
}

/// `"a", "b" or "c"`.
fn one_of<T>(kinds: &[(&str, T)]) -> String {
    let names: Vec<String> = kinds.iter().map(|(name, _)| format!("{name:?}")).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}
