//! The read model: what a projection folds into and a sink stores.

use std::cmp::Ordering;
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

    /// Reads a key back from its text, as [`Key`] shows it.
    ///
    /// # Errors
    /// A sentence that says what such a key looks like.
    pub fn parse_key(&self, text: &str) -> Result<Key, String> {
        let columns: Vec<&Column> = self.key_columns().collect();
        let parts: Vec<String> = if columns.len() == 1 {
            vec![text.to_owned()]
        } else {
            let part = |part: &str| part.replace("%3A", ":").replace("%25", "%");
            text.split(':').map(part).collect()
        };
        if parts.len() != columns.len() {
            let names: Vec<&str> = columns.iter().map(|column| &*column.name).collect();
            return Err(format!(
                "a key is {}, with : and % in a part as %3A and %25",
                names.join(":")
            ));
        }
        let value = |(column, part): (&&Column, &String)| {
            let wrong = |error| format!("key column {}: {error}", column.name);
            match column.ty.coerce(Value::text(part)).map_err(|e| wrong(e.to_string()))? {
                Value::Null => Err(wrong("it is null".to_owned())),
                value => Ok(value),
            }
        };
        columns.iter().zip(&parts).map(value).collect::<Result<_, _>>().map(Key::new)
    }

    /// Takes a row's key out of it.
    #[must_use]
    pub fn key_of(&self, row: &Row) -> Key {
        Key::new(self.key.iter().map(|&at| row.get(at).clone()).collect())
    }
}

/// A key: the key columns' values in key order, each of its column's type and none null.
#[derive(Clone, Debug)]
pub struct Key(Parts);

/// Most keys are of one value: it is kept in place, so that a look-up follows no pointer to it.
#[derive(Clone, Debug)]
enum Parts {
    One(Value),
    More(Arc<[Value]>),
}

impl Key {
    /// From values that already are of their columns' types.
    #[must_use]
    pub fn new(values: Vec<Value>) -> Self {
        match <[Value; 1]>::try_from(values) {
            Ok([value]) => Key(Parts::One(value)),
            Err(values) => Key(Parts::More(Arc::from(values))),
        }
    }

    /// Of one value, without an allocation.
    #[must_use]
    pub fn of(value: Value) -> Self {
        Key(Parts::One(value))
    }

    /// The values, in key order.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        match &self.0 {
            Parts::One(value) => std::slice::from_ref(value),
            Parts::More(values) => values,
        }
    }

    /// A number that orders the keys of one model, but not all of them: where it differs, it tells what to
    /// sort first without looking at the values.
    #[must_use]
    pub fn prefix(&self) -> u64 {
        let head = |bytes: &[u8]| {
            let mut head = [0; 8];
            head.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
            u64::from_be_bytes(head)
        };
        match self.values().first() {
            // The least number becomes the least.
            Some(Value::Int(int)) => int.cast_unsigned() ^ (1 << 63),
            Some(Value::Text(text)) => head(text.as_bytes()),
            Some(Value::Uuid(bytes)) => head(bytes),
            _ => 0,
        }
    }

    /// Bytes on the heap, roughly.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Parts::One(value) => value.heap_bytes(),
            Parts::More(values) => {
                // What counts the handles, and the allocation's head.
                32 + values.iter().map(|v| size_of::<Value>() + v.heap_bytes()).sum::<usize>()
            }
        }
    }
}

/// Another handle on the same values, for maps that make a key only where it is missing.
impl From<&Key> for Key {
    fn from(key: &Key) -> Self {
        key.clone()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            // The most frequent, in place.
            (Parts::One(Value::Int(one)), Parts::One(Value::Int(other))) => one == other,
            _ => self.values() == other.values(),
        }
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.values().cmp(other.values())
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for value in self.values() {
            value.hash(state);
        }
    }
}

/// The key as one id: its texts joined by `:`, with `:` and `%` in them as `%3A` and `%25`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [value] = self.values() {
            return f.write_str(&scalar_text_of(value));
        }
        for (at, value) in self.values().iter().enumerate() {
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

    /// By how many bytes it is larger than `before`, another state of it. What both share is not looked at.
    #[must_use]
    pub fn grown_from(&self, before: &Row) -> isize {
        let pairs = self.0.iter().zip(before.0.iter());
        pairs.map(|(now, before)| now.grown_from(before)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_its_text() {
        let column = |name: &str, ty: &str| Column {
            name: Arc::from(name),
            ty: ColumnType::parse(ty).unwrap(),
            index: false,
            default: Value::Null,
        };
        let columns = vec![column("a", "text"), column("b", "bigint"), column("c", "timestamptz")];
        let model = Model { columns, key: vec![0, 1, 2], indexes: Vec::new() };
        let at = ColumnType::TimestampTz.coerce(Value::text("2026-01-01T00:00:00.5Z")).unwrap();
        for text in ["plain", "a:b", "100%", "%3A", "%253A:", ""] {
            let key = Key::new(vec![Value::text(text), Value::Int(-7), at.clone()]);
            // A moment has colons of its own.
            assert_eq!(model.parse_key(&key.to_string()), Ok(key));
        }
        assert!(model.parse_key("1").unwrap_err().contains("a:b:c"));
        assert!(model.parse_key("x:y:z").unwrap_err().contains("key column b"));
        let one = Model { key: vec![0], ..model };
        assert_eq!(one.parse_key("a%3A:b"), Ok(Key::new(vec![Value::text("a%3A:b")])));
    }
}
