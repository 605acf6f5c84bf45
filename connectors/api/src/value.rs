//! Values: what an event holds, what an expression yields and what a column keeps.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::decimal::Decimal;
use crate::time::{Date, Duration, Time, Timestamp};

/// One value. Cheap to clone: everything of unbounded size is behind an `Arc`.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// SQL's and JSON's null.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// A 64-bit integer.
    Int(i64),
    /// An exact decimal, or an integer beyond 64 bits.
    Decimal(Decimal),
    /// A binary floating point number; only `real` and `double precision` columns and `double()` make one.
    Double(f64),
    /// Text.
    Text(Arc<str>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A moment.
    Timestamp(Timestamp),
    /// A calendar date.
    Date(Date),
    /// A time of day.
    Time(Time),
    /// A span of time.
    Duration(Duration),
    /// A UUID.
    Uuid([u8; 16]),
    /// A list.
    List(Arc<[Value]>),
    /// An object, its keys sorted and unique.
    Map(Arc<Map>),
}

/// An object: keys sorted bytewise and unique, so that what a store returns in another order is the
/// same value.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Map(Vec<(Arc<str>, Value)>);

impl Map {
    /// From entries in any order; of a key given twice the last wins, as in `jsonb`.
    #[must_use]
    pub fn from_entries(mut entries: Vec<(Arc<str>, Value)>) -> Self {
        if entries.windows(2).all(|pair| matches!(pair, [a, b] if a.0 < b.0)) {
            return Map(entries);
        }
        // The sort is stable: among equals the last written stays last, and wins.
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let mut unique: Vec<(Arc<str>, Value)> = Vec::with_capacity(entries.len());
        for entry in entries {
            match unique.last_mut() {
                Some(last) if last.0 == entry.0 => *last = entry,
                _ => unique.push(entry),
            }
        }
        Map(unique)
    }

    /// The value under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        let at = self.0.binary_search_by(|entry| (*entry.0).cmp(key)).ok()?;
        self.0.get(at).map(|entry| &entry.1)
    }

    /// Sets `key`; replaces what stood there.
    pub fn insert(&mut self, key: Arc<str>, value: Value) {
        match self.0.binary_search_by(|entry| entry.0.cmp(&key)) {
            Ok(at) => {
                if let Some(entry) = self.0.get_mut(at) {
                    entry.1 = value;
                }
            }
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    /// Entries in key order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Value)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// How many entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Arc<str>, Value)> for Map {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Value)>>(entries: I) -> Self {
        Map::from_entries(entries.into_iter().collect())
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Value {
    /// A text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Value::Text(Arc::from(text))
    }

    /// A list.
    #[must_use]
    pub fn list(items: Vec<Value>) -> Self {
        Value::List(Arc::from(items))
    }

    /// An object from entries in any order.
    #[must_use]
    pub fn map(entries: Vec<(Arc<str>, Value)>) -> Self {
        Value::Map(Arc::new(Map::from_entries(entries)))
    }

    /// Whether this is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// What error messages call it.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Decimal(_) => "a decimal",
            Value::Double(_) => "a double",
            Value::Text(_) => "a text",
            Value::Bytes(_) => "bytes",
            Value::Timestamp(_) => "a timestamp",
            Value::Date(_) => "a date",
            Value::Time(_) => "a time",
            Value::Duration(_) => "a duration",
            Value::Uuid(_) => "a uuid",
            Value::List(_) => "a list",
            Value::Map(_) => "an object",
        }
    }

    /// By how many bytes it is larger than `before`; the same value in the same place is not looked at.
    #[must_use]
    pub fn grown_from(&self, before: &Value) -> isize {
        let same = match (self, before) {
            (Value::Text(now), Value::Text(before)) => Arc::ptr_eq(now, before),
            (Value::List(now), Value::List(before)) => Arc::ptr_eq(now, before),
            (Value::Map(now), Value::Map(before)) => Arc::ptr_eq(now, before),
            _ => false,
        };
        if same { 0 } else { self.heap_bytes().cast_signed() - before.heap_bytes().cast_signed() }
    }

    /// Bytes on the heap, roughly: what a cache or a queue counts.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        const ARC: usize = 16;
        match self {
            Value::Text(text) => ARC + text.len(),
            Value::Bytes(bytes) => ARC + bytes.len(),
            Value::Decimal(decimal) => decimal.heap_bytes(),
            Value::List(items) => {
                ARC + items.iter().map(|v| size_of::<Value>() + v.heap_bytes()).sum::<usize>()
            }
            Value::Map(map) => {
                let entry = |(k, v): (&Arc<str>, &Value)| {
                    size_of::<(Arc<str>, Value)>() + ARC + k.len() + v.heap_bytes()
                };
                ARC + map.iter().map(entry).sum::<usize>()
            }
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Double(_)
            | Value::Timestamp(_)
            | Value::Date(_)
            | Value::Time(_)
            | Value::Duration(_)
            | Value::Uuid(_) => 0,
        }
    }
}

/// Structural equality, for keys, caches and tests: doubles by their bits (so NaN equals itself),
/// decimals by their number, and never across variants. CEL's `==` is the expression evaluator's.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Decimal(a), Value::Decimal(b)) => a == b,
            (Value::Double(a), Value::Double(b)) => a.to_bits() == b.to_bits(),
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Value::Date(a), Value::Date(b)) => a == b,
            (Value::Time(a), Value::Time(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::Uuid(a), Value::Uuid(b)) => a == b,
            (Value::List(a), Value::List(b)) => a == b,
            (Value::Map(a), Value::Map(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Value::Null => {}
            Value::Bool(v) => v.hash(state),
            Value::Int(v) => v.hash(state),
            Value::Decimal(v) => v.hash(state),
            Value::Double(v) => v.to_bits().hash(state),
            Value::Text(v) => v.hash(state),
            Value::Bytes(v) => v.hash(state),
            Value::Timestamp(v) => v.hash(state),
            Value::Date(v) => v.hash(state),
            Value::Time(v) => v.hash(state),
            Value::Duration(v) => v.hash(state),
            Value::Uuid(v) => v.hash(state),
            Value::List(v) => v.hash(state),
            Value::Map(v) => v.hash(state),
        }
    }
}

/// A total order over values of one column, so that every writer locks rows in the same order.
impl Ord for Value {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            (Value::Decimal(a), Value::Decimal(b)) => a.cmp(b),
            (Value::Double(a), Value::Double(b)) => a.total_cmp(b),
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
            (Value::Date(a), Value::Date(b)) => a.cmp(b),
            (Value::Time(a), Value::Time(b)) => a.cmp(b),
            (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
            (Value::Uuid(a), Value::Uuid(b)) => a.cmp(b),
            (Value::List(a), Value::List(b)) => a.cmp(b),
            (Value::Map(a), Value::Map(b)) => a.0.cmp(&b.0),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Value {
    fn rank(&self) -> u8 {
        match self {
            Value::Null => 0,
            Value::Bool(_) => 1,
            Value::Int(_) => 2,
            Value::Decimal(_) => 3,
            Value::Double(_) => 4,
            Value::Text(_) => 5,
            Value::Bytes(_) => 6,
            Value::Timestamp(_) => 7,
            Value::Date(_) => 8,
            Value::Time(_) => 9,
            Value::Duration(_) => 10,
            Value::Uuid(_) => 11,
            Value::List(_) => 12,
            Value::Map(_) => 13,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::text(text)
    }
}

impl From<i64> for Value {
    fn from(int: i64) -> Self {
        Value::Int(int)
    }
}

impl From<bool> for Value {
    fn from(bool: bool) -> Self {
        Value::Bool(bool)
    }
}

impl From<Decimal> for Value {
    fn from(decimal: Decimal) -> Self {
        Value::Decimal(decimal)
    }
}
