//! The read model: what a projection folds into and a sink stores.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::column::{ColumnType, scalar_text};
use crate::value::Value;

/// One column of the read model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: Arc<str>,
    /// Its type.
    pub ty: ColumnType,
    /// A secondary index on it alone.
    pub index: bool,
    /// What a new row holds; null unless the config says otherwise. Already of the column's type.
    pub default: Value,
}

/// Columns in order, which of them are the key, and secondary indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// All columns, key columns too, in column order.
    pub columns: Vec<Column>,
    /// Indexes into `columns` of the key columns, in key order.
    pub key: Vec<usize>,
    /// Secondary indexes over several columns, as indexes into `columns`.
    pub indexes: Vec<Vec<usize>>,
}

impl Model {
    /// The key columns, in key order.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().filter_map(|&at| self.columns.get(at))
    }

    /// The position of a column by name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| &*column.name == name)
    }

    /// Takes a row's key out of it.
    #[must_use]
    pub fn key_of(&self, row: &Row) -> Key {
        Key::new(self.key.iter().map(|&at| row.get(at).clone()).collect())
    }
}

/// A key: the key columns' values in key order, each of its column's type and none null.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Arc<[Value]>);

impl Key {
    /// From values that already are of their columns' types.
    #[must_use]
    pub fn new(values: Vec<Value>) -> Self {
        Key(Arc::from(values))
    }

    /// Like [`Key::new`], without a copy.
    #[must_use]
    pub fn from_shared(values: Arc<[Value]>) -> Self {
        Key(values)
    }

    /// The values, in key order.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.0
    }

    /// Bytes on the heap, roughly.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        16 + self.0.iter().map(|v| size_of::<Value>() + v.heap_bytes()).sum::<usize>()
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for value in self.0.iter() {
            value.hash(state);
        }
    }
}

/// The key as one id: its texts joined by `:`, with `:` and `%` in them as `%3A` and `%25`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [value] = &*self.0 {
            return f.write_str(&scalar_text_of(value));
        }
        for (at, value) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(":")?;
            }
            let text = scalar_text_of(value);
            f.write_str(&text.replace('%', "%25").replace(':', "%3A"))?;
        }
        Ok(())
    }
}

fn scalar_text_of(value: &Value) -> String {
    match value {
        Value::Bytes(_) => {
            let quoted = crate::json::to_string(value);
            quoted.trim_matches('"').to_owned()
        }
        other => scalar_text(other),
    }
}

/// One row: a value per column of the model, each of its column's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(Arc<[Value]>);

impl Row {
    /// From values in column order.
    #[must_use]
    pub fn new(values: Vec<Value>) -> Self {
        Row(Arc::from(values))
    }

    /// The value of the column at `at`; null beyond the end.
    #[must_use]
    pub fn get(&self, at: usize) -> &Value {
        static NULL: Value = Value::Null;
        self.0.get(at).unwrap_or(&NULL)
    }

    /// All values in column order.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.0
    }

    /// All values, to be changed in place; a row that is shared (by a cache, say) is copied first.
    pub fn values_mut(&mut self) -> &mut [Value] {
        Arc::make_mut(&mut self.0)
    }

    /// Bytes on the heap, roughly.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        16 + self.0.iter().map(|v| size_of::<Value>() + v.heap_bytes()).sum::<usize>()
    }
}
