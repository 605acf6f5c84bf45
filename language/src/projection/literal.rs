//! TOML values as values.

use std::sync::Arc;

use foldline_api::column::ColumnType;
use foldline_api::decimal::Decimal;
use foldline_api::value::{Map, Value};

/// A TOML value as it stands: floats as the decimals they were written as, dates as moments, dates
/// or times.
///
/// # Errors
/// A sentence about what cannot be kept.
pub(super) fn literal(value: &toml::Value) -> Result<Value, String> {
    match value {
        toml::Value::String(text) => Ok(Value::text(text)),
        toml::Value::Integer(int) => Ok(Value::Int(*int)),
        toml::Value::Float(float) => Decimal::from_f64(*float)
            .map(Value::Decimal)
            .ok_or_else(|| "found a number that is not finite".to_owned()),
        toml::Value::Boolean(bool) => Ok(Value::Bool(*bool)),
        toml::Value::Datetime(datetime) => moment(datetime),
        toml::Value::Array(items) => {
            items.iter().map(literal).collect::<Result<Vec<_>, _>>().map(Value::list)
        }
        toml::Value::Table(table) => table
            .iter()
            .map(|(key, item)| Ok((Arc::from(key.as_str()), literal(item)?)))
            .collect::<Result<Vec<_>, String>>()
            .map(|entries| Value::Map(Arc::new(Map::from_entries(entries)))),
    }
}

fn moment(datetime: &toml::value::Datetime) -> Result<Value, String> {
    let text = Value::text(&datetime.to_string());
    let ty = match (datetime.date, datetime.time, datetime.offset) {
        (Some(_), Some(_), Some(_)) => ColumnType::TimestampTz,
        (Some(_), None, None) => ColumnType::Date,
        (None, Some(_), None) => ColumnType::Time,
        _ => {
            return Err(format!(
                "found {datetime}, a time without an offset: write {datetime}Z for UTC"
            ));
        }
    };
    ty.coerce(text).map_err(|error| format!("found {datetime}: {error}"))
}
