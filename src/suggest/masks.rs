//! What stands in a test instead of what was sampled: values of the same kind, the same for the same.

use std::collections::HashMap;
use std::sync::Arc;

use foldline_api::json;
use foldline_api::value::{Map, Value};

use super::kinds::{Kind, kind};

/// Replacements so far.
#[derive(Debug, Default)]
pub(super) struct Masks {
    /// By what a value is in JSON; an integer and the text of it are one.
    seen: HashMap<String, usize>,
}

impl Masks {
    /// What stands for `value`. What tells nothing of anybody stays: null and a boolean.
    pub(super) fn value(&mut self, value: &Value) -> Value {
        match value {
            Value::List(items) => Value::List(items.iter().map(|item| self.value(item)).collect()),
            Value::Map(map) => {
                let entry =
                    |(name, value): (&Arc<str>, &Value)| (Arc::clone(name), self.value(value));
                Value::Map(Arc::new(map.iter().map(entry).collect::<Map>()))
            }
            value => match kind(value) {
                None | Some(Kind::Bool) => value.clone(),
                Some(kind) => self.scalar(kind, value),
            },
        }
    }

    fn number(&mut self, value: &Value) -> usize {
        let text = match value {
            Value::Text(text) => text.to_string(),
            other => json::to_string(other),
        };
        let next = self.seen.len() + 1;
        *self.seen.entry(text).or_insert(next)
    }

    fn scalar(&mut self, kind: Kind, value: &Value) -> Value {
        let n = self.number(value);
        match kind {
            Kind::Int => Value::Int(i64::try_from(n).unwrap_or(i64::MAX)),
            Kind::Double => Value::Double(n as f64 + 0.5),
            Kind::Decimal => {
                format!("{n}.5").parse().map_or_else(|_| value.clone(), Value::Decimal)
            }
            Kind::NumberText => Value::text(&match value {
                Value::Text(text) if text.contains('.') => format!("{n}.5"),
                _ => n.to_string(),
            }),
            Kind::Moment | Kind::MomentText => Value::text(&moment(n)),
            Kind::Date | Kind::DateText => {
                Value::text(moment(n).split('T').next().unwrap_or_default())
            }
            Kind::Time => {
                Value::text(moment(n).trim_end_matches('Z').rsplit('T').next().unwrap_or_default())
            }
            Kind::Uuid | Kind::UuidText => Value::text(&format!("00000000-0000-4000-8000-{n:012}")),
            Kind::Bytes => Value::Bytes(Arc::from(n.to_string().into_bytes())),
            Kind::Text | Kind::Bool | Kind::Nested => match value {
                Value::Text(text) if text.is_empty() => value.clone(),
                _ => Value::text(&format!("text-{n}")),
            },
        }
    }
}

/// A moment of its own for each number.
fn moment(n: usize) -> String {
    format!("2026-{:02}-{:02}T{:02}:00:00Z", n / 28 / 24 % 12 + 1, n / 24 % 28 + 1, n % 24)
}
