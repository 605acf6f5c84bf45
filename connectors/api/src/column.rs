//! Column types: their names, and how a value is brought to one just as the store would return it.

mod name;

use std::sync::Arc;

use crate::decimal::Decimal;
use crate::json;
use crate::time::Timestamp;
use crate::value::{Map, Value};

/// The type of a field; names are PostgreSQL's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// 64-bit integer.
    BigInt,
    /// 32-bit integer.
    Integer,
    /// 16-bit integer.
    SmallInt,
    /// Double precision floating point.
    DoublePrecision,
    /// Single precision floating point.
    Real,
    /// Exact decimal; with precision and scale where both are given.
    Numeric(Option<(u16, u16)>),
    /// True or false.
    Boolean,
    /// Text of any length.
    Text,
    /// Text of at most so many characters.
    Varchar(u32),
    /// A moment, in microseconds.
    TimestampTz,
    /// A calendar date.
    Date,
    /// A time of day.
    Time,
    /// A UUID.
    Uuid,
    /// Bytes; in JSON they are base64.
    Bytea,
    /// Any JSON.
    Jsonb,
    /// A one-dimensional array of a scalar type.
    Array(Box<ColumnType>),
    /// Objects inside the row, one per `by` and in its order.
    Children(Arc<Children>),
}

/// The shape of the objects of a `children` field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Children {
    /// The child's key: the name of one of `fields`.
    pub by: String,
    /// The child's fields, in order.
    pub fields: Vec<(Arc<str>, ColumnType)>,
}

/// Why a value does not fit a column. Names the value's type, never its content: payloads stay out of
/// logs and dead-letter headers say only what an operator needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} does not fit {wanted}{}", detail.map(|d| format!(": {d}")).unwrap_or_default())]
pub struct CoerceError {
    /// The type of what was found.
    pub found: &'static str,
    /// The column's type.
    pub wanted: String,
    /// What is wrong with it, where the types alone do not say.
    pub detail: Option<&'static str>,
}

/// PostgreSQL's limit on a name.
pub const IDENTIFIER_BYTES_MAX: usize = 63;

impl ColumnType {
    /// Whether a column of this type can be part of a key: its equality must be the same here and in
    /// every store.
    #[must_use]
    pub fn can_be_key(&self) -> bool {
        !matches!(
            self,
            ColumnType::DoublePrecision
                | ColumnType::Real
                | ColumnType::Jsonb
                | ColumnType::Array(_)
                | ColumnType::Children(_)
        )
    }

    fn refuse(&self, value: &Value, detail: Option<&'static str>) -> CoerceError {
        CoerceError { found: value.type_name(), wanted: self.to_string(), detail }
    }

    /// Brings `value` to this type, just as the store would return it after a write. Null stays null.
    ///
    /// # Errors
    /// When it does not fit: wrong type, out of range, too long, a NUL in text. The record is bad then.
    pub fn coerce(&self, value: Value) -> Result<Value, CoerceError> {
        if value.is_null() {
            return Ok(Value::Null);
        }
        match self {
            ColumnType::BigInt => self.coerce_int(value, i64::MIN, i64::MAX),
            ColumnType::Integer => self.coerce_int(value, i32::MIN.into(), i32::MAX.into()),
            ColumnType::SmallInt => self.coerce_int(value, i16::MIN.into(), i16::MAX.into()),
            ColumnType::DoublePrecision => self.coerce_double(value).map(Value::Double),
            ColumnType::Real => self.coerce_real(value),
            ColumnType::Numeric(bounds) => self.coerce_numeric(value, *bounds),
            ColumnType::Boolean => self.coerce_bool(value),
            ColumnType::Text => self.coerce_text(value, None),
            ColumnType::Varchar(max) => self.coerce_text(value, Some(*max)),
            ColumnType::TimestampTz => match &value {
                Value::Timestamp(_) => Ok(value),
                Value::Text(text) => match text.parse::<Timestamp>() {
                    Ok(timestamp) => Ok(Value::Timestamp(timestamp)),
                    Err(_) => Err(self.refuse(&value, Some("not RFC 3339 with a zone"))),
                },
                Value::Int(_) | Value::Decimal(_) => Err(self.refuse(
                    &value,
                    Some("a number is no time until timestampMillis() makes it one"),
                )),
                _ => Err(self.refuse(&value, None)),
            },
            ColumnType::Date => match &value {
                Value::Date(_) => Ok(value),
                Value::Text(text) => match text.parse() {
                    Ok(date) => Ok(Value::Date(date)),
                    Err(_) => Err(self.refuse(&value, Some("not YYYY-MM-DD"))),
                },
                Value::Timestamp(_) => {
                    Err(self.refuse(&value, Some("a moment is a date in a zone: date(t, 'UTC')")))
                }
                _ => Err(self.refuse(&value, None)),
            },
            ColumnType::Time => match &value {
                Value::Time(_) => Ok(value),
                Value::Text(text) => match text.parse() {
                    Ok(time) => Ok(Value::Time(time)),
                    Err(_) => Err(self.refuse(&value, Some("not HH:MM:SS"))),
                },
                _ => Err(self.refuse(&value, None)),
            },
            ColumnType::Uuid => match &value {
                Value::Uuid(_) => Ok(value),
                Value::Text(text) => match uuid::Uuid::try_parse(text.trim()) {
                    Ok(uuid) => Ok(Value::Uuid(uuid.into_bytes())),
                    Err(_) => Err(self.refuse(&value, Some("not a UUID"))),
                },
                _ => Err(self.refuse(&value, None)),
            },
            ColumnType::Bytea => match &value {
                Value::Bytes(_) => Ok(value),
                Value::Text(text) => match json::parse_base64(text) {
                    Some(bytes) => Ok(Value::Bytes(Arc::from(bytes))),
                    None => Err(self.refuse(&value, Some("not base64"))),
                },
                _ => Err(self.refuse(&value, None)),
            },
            ColumnType::Jsonb => self.coerce_jsonb(value, 0),
            ColumnType::Array(item) => self.coerce_array(&value, item),
            ColumnType::Children(children) => self.coerce_children(&value, children),
        }
    }

    fn coerce_int(&self, value: Value, min: i64, max: i64) -> Result<Value, CoerceError> {
        let int = match &value {
            Value::Int(int) => Some(*int),
            Value::Decimal(decimal) => match decimal.to_i64() {
                Some(int) => Some(int),
                None if decimal.normalized().scale() > 0 => {
                    return Err(self.refuse(&value, Some("it has a fraction")));
                }
                None => None,
            },
            Value::Double(double) => Decimal::from_f64(*double)
                .filter(|_| double.fract() == 0.0)
                .and_then(|d| d.to_i64()),
            Value::Text(text) => match text.trim().parse::<Decimal>() {
                Ok(decimal) if decimal.normalized().scale() > 0 => {
                    return Err(self.refuse(&value, Some("it has a fraction")));
                }
                Ok(decimal) => decimal.to_i64(),
                Err(_) => return Err(self.refuse(&value, Some("not a number"))),
            },
            _ => return Err(self.refuse(&value, None)),
        };
        match int {
            Some(int) if (min..=max).contains(&int) => Ok(Value::Int(int)),
            _ => Err(self.refuse(&value, Some("out of range"))),
        }
    }

    fn coerce_double(&self, value: Value) -> Result<f64, CoerceError> {
        let double = match &value {
            Value::Double(double) => *double,
            Value::Int(int) => *int as f64,
            Value::Decimal(decimal) => decimal.to_f64(),
            Value::Text(text) => match text.trim().parse::<Decimal>() {
                Ok(decimal) => decimal.to_f64(),
                Err(_) => return Err(self.refuse(&value, Some("not a number"))),
            },
            _ => return Err(self.refuse(&value, None)),
        };
        if !double.is_finite() {
            return Err(self.refuse(&value, Some("out of range")));
        }
        // -0.0 and 0.0 are one number; JSON stores would not tell them apart.
        Ok(if double == 0.0 { 0.0 } else { double })
    }

    fn coerce_real(&self, value: Value) -> Result<Value, CoerceError> {
        let double = self.coerce_double(value)?;
        let single = double as f32;
        if !single.is_finite() {
            return Err(self.refuse(&Value::Double(double), Some("out of range")));
        }
        Ok(Value::Double(f64::from(single)))
    }

    fn coerce_numeric(
        &self,
        value: Value,
        bounds: Option<(u16, u16)>,
    ) -> Result<Value, CoerceError> {
        let decimal = match &value {
            Value::Int(int) => Decimal::from(*int),
            Value::Decimal(decimal) => decimal.clone(),
            Value::Double(double) => match Decimal::from_f64(*double) {
                Some(decimal) => decimal,
                None => return Err(self.refuse(&value, Some("not a finite number"))),
            },
            Value::Text(text) => match text.trim().parse() {
                Ok(decimal) => decimal,
                Err(_) => return Err(self.refuse(&value, Some("not a number"))),
            },
            _ => return Err(self.refuse(&value, None)),
        };
        let Some((precision, scale)) = bounds else {
            // Without bounds PostgreSQL keeps the digits as written; a key must still be one value, so
            // trailing zeros go.
            let normal = decimal.normalized();
            if !normal.is_kept() {
                return Err(self.refuse(&value, Some("out of range")));
            }
            return Ok(Value::Decimal(normal));
        };
        let rounded = decimal.round(scale);
        if rounded.integer_digits() > u64::from(precision - scale) {
            return Err(self.refuse(&value, Some("out of range")));
        }
        Ok(Value::Decimal(rounded))
    }

    fn coerce_bool(&self, value: Value) -> Result<Value, CoerceError> {
        match &value {
            Value::Bool(_) => Ok(value),
            Value::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "t" => Ok(Value::Bool(true)),
                "false" | "f" => Ok(Value::Bool(false)),
                _ => Err(self.refuse(&value, Some("not true or false"))),
            },
            _ => Err(self.refuse(&value, None)),
        }
    }

    fn coerce_text(&self, value: Value, max: Option<u32>) -> Result<Value, CoerceError> {
        let text: Arc<str> = match &value {
            Value::Text(text) => Arc::clone(text),
            Value::Bool(_)
            | Value::Int(_)
            | Value::Decimal(_)
            | Value::Double(_)
            | Value::Timestamp(_)
            | Value::Date(_)
            | Value::Time(_)
            | Value::Duration(_)
            | Value::Uuid(_) => Arc::from(scalar_text(&value)),
            Value::List(_) | Value::Map(_) => {
                return Err(self.refuse(&value, Some("declare the field jsonb")));
            }
            Value::Null | Value::Bytes(_) => return Err(self.refuse(&value, None)),
        };
        if text.as_bytes().contains(&0) {
            return Err(self.refuse(&value, Some("it holds a NUL")));
        }
        if let Some(max) = max
            && text.len() > max as usize
            && text.chars().count() > max as usize
        {
            return Err(self.refuse(&value, Some("too long")));
        }
        Ok(Value::Text(text))
    }

    fn coerce_jsonb(&self, value: Value, depth: usize) -> Result<Value, CoerceError> {
        if depth > json::DEPTH_MAX {
            return Err(self.refuse(&value, Some("nested too deep")));
        }
        match &value {
            Value::Null | Value::Bool(_) | Value::Int(_) => Ok(value),
            // One spelling per number: a double, 1.50 and 1.5 read back as the same value.
            Value::Decimal(decimal) if !decimal.is_kept() => {
                Err(self.refuse(&value, Some("out of range")))
            }
            Value::Decimal(decimal) => Ok(json_number(decimal)),
            Value::Double(double) => match Decimal::from_f64(*double) {
                Some(decimal) => Ok(json_number(&decimal)),
                None => Err(self.refuse(&value, Some("JSON has no such number"))),
            },
            Value::Text(text) if text.as_bytes().contains(&0) => {
                Err(self.refuse(&value, Some("it holds a NUL")))
            }
            Value::Text(_) => Ok(value),
            Value::Bytes(bytes) => {
                let mut text = String::new();
                json::write_base64(bytes, &mut text);
                Ok(Value::Text(Arc::from(text)))
            }
            Value::Timestamp(_)
            | Value::Date(_)
            | Value::Time(_)
            | Value::Duration(_)
            | Value::Uuid(_) => Ok(Value::Text(Arc::from(scalar_text(&value)))),
            Value::List(items) => {
                let items: Result<Vec<_>, _> =
                    items.iter().map(|item| self.coerce_jsonb(item.clone(), depth + 1)).collect();
                Ok(Value::list(items?))
            }
            Value::Map(map) => {
                let mut entries = Vec::with_capacity(map.len());
                for (key, item) in map.iter() {
                    if key.as_bytes().contains(&0) {
                        return Err(self.refuse(&value, Some("a key holds a NUL")));
                    }
                    entries.push((Arc::clone(key), self.coerce_jsonb(item.clone(), depth + 1)?));
                }
                Ok(Value::map(entries))
            }
        }
    }

    fn coerce_array(&self, value: &Value, item: &ColumnType) -> Result<Value, CoerceError> {
        let Value::List(items) = value else {
            return Err(self.refuse(value, None));
        };
        items.iter().map(|v| item.coerce(v.clone())).collect::<Result<Vec<_>, _>>().map(Value::list)
    }

    fn coerce_children(&self, value: &Value, children: &Children) -> Result<Value, CoerceError> {
        let Value::List(items) = value else {
            return Err(self.refuse(value, None));
        };
        let mut rows: Vec<(Value, Value)> = Vec::with_capacity(items.len());
        for item in items.iter() {
            let Value::Map(map) = item else {
                return Err(self.refuse(item, Some("a child must be an object")));
            };
            let child = children.coerce(map)?;
            let Value::Map(typed) = &child else { continue };
            let by = typed.get(&children.by).cloned().unwrap_or_default();
            if by.is_null() {
                return Err(self.refuse(item, Some("a child has no key")));
            }
            rows.push((by, child));
        }
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        if rows.windows(2).any(|pair| matches!(pair, [a, b] if a.0 == b.0)) {
            return Err(self.refuse(value, Some("two children have the same key")));
        }
        Ok(Value::list(rows.into_iter().map(|(_, child)| child).collect()))
    }

    /// Reads what a store keeps as JSON (Elasticsearch's `_source`, `jsonb`, SQLite's text) back into
    /// the value that was written: the inverse of [`json::write`] for a value of this type.
    ///
    /// # Errors
    /// When someone else wrote what does not fit.
    pub fn from_json(&self, value: Value) -> Result<Value, CoerceError> {
        self.coerce(value)
    }
}

impl Children {
    /// Brings one child to its fields' types: all fields are there, null where absent.
    ///
    /// # Errors
    /// When a value does not fit its field.
    pub fn coerce(&self, map: &Map) -> Result<Value, CoerceError> {
        let mut entries = Vec::with_capacity(self.fields.len());
        for (name, ty) in &self.fields {
            let value = map.get(name).cloned().unwrap_or_default();
            entries.push((Arc::clone(name), ty.coerce(value)?));
        }
        Ok(Value::map(entries))
    }

    /// The type of the child's key.
    #[must_use]
    pub fn by_type(&self) -> Option<&ColumnType> {
        self.fields.iter().find(|(name, _)| **name == self.by).map(|(_, ty)| ty)
    }
}

fn json_number(decimal: &Decimal) -> Value {
    let normal = decimal.normalized();
    normal.to_i64().map_or(Value::Decimal(normal), Value::Int)
}

/// The text of a scalar, as PostgreSQL's cast to text gives it (moments as RFC 3339).
#[must_use]
pub fn scalar_text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.to_string(),
        Value::Timestamp(v) => v.to_string(),
        Value::Date(v) => v.to_string(),
        Value::Time(v) => v.to_string(),
        Value::Duration(v) => v.to_string(),
        Value::Uuid(v) => uuid::Uuid::from_bytes(*v).hyphenated().to_string(),
        Value::Double(v) if *v == v.trunc() && v.abs() < 1e15 => format!("{v:.0}"),
        Value::Double(v) => format!("{v}"),
        other => json::to_string(other),
    }
}

#[cfg(test)]
mod tests;
