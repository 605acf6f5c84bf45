//! Cursors: where a page ended, as a text that only means something to the same query.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use foldline_api::json;
use foldline_api::model::Model;
use foldline_api::query::{RowQuery, Sort};
use foldline_api::value::Value;
use sha2::{Digest, Sha256};

/// What still fits a request's line.
const BYTES_MAX: usize = 8_000;
const ANOTHER: &str = "cursor is none of this query: a cursor goes with the same filter, fields and sort that it was given for";

/// What tells a query from others: whose rows, which of them, and in what order. How many of them is another's business.
pub(super) fn print(connector: &str, query: &RowQuery) -> String {
    let of = format!("{connector} {:?} {:?} {:?}", query.filter, query.search, query.order);
    let hash = Sha256::digest(of.as_bytes());
    URL_SAFE_NO_PAD.encode(hash.get(..9).unwrap_or_default())
}

/// A cursor behind a row of these values.
///
/// # Errors
/// Where they are too long to be sent back.
pub(super) fn write(print: &str, values: &[Value]) -> Result<String, String> {
    let mut all = vec![Value::text(print)];
    all.extend_from_slice(values);
    let text = URL_SAFE_NO_PAD.encode(json::to_string(&Value::list(all)));
    if text.len() > BYTES_MAX {
        return Err(format!(
            "the next page begins behind a row whose values are longer than {BYTES_MAX} bytes in a cursor: sort by \
             other fields, or ask for more rows at once"
        ));
    }
    Ok(text)
}

/// The values of a cursor of the query that `print` tells.
///
/// # Errors
/// A sentence, where it is another's or none at all.
pub(super) fn read(
    text: &str,
    print: &str,
    model: &Model,
    order: &[Sort],
) -> Result<Vec<Value>, String> {
    let another = || ANOTHER.to_owned();
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| another())?;
    let Ok(Value::List(all)) = json::parse(&bytes) else { return Err(another()) };
    let Some((first, values)) = all.split_first() else { return Err(another()) };
    if *first != Value::text(print) || values.len() != order.len() {
        return Err(another());
    }
    let value = |(sort, value): (&Sort, &Value)| {
        let column = model.columns.get(sort.column).ok_or_else(another)?;
        let value = column.ty.coerce(value.clone()).map_err(|_| another())?;
        if value.is_null() && model.key.contains(&sort.column) {
            return Err(another());
        }
        Ok(value)
    };
    order.iter().zip(values).map(value).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use foldline_api::query::Filter;
    use foldline_testkit::contract::model;

    use super::*;

    fn query(filter: Filter, order: &[Sort]) -> RowQuery {
        let time = Duration::from_secs(1);
        let (search, order) = (None, order.to_vec());
        RowQuery { filter, search, order, max: 10, bytes_max: 10, time }
    }

    #[test]
    fn a_cursor_goes_with_the_query_that_it_was_given_for() {
        let model = model();
        let sort = |column| Sort { column, descending: true };
        let order = RowQuery::order(&model, &[sort(2), sort(4), sort(1)]).unwrap();
        let asked = query(Filter::all(), &order);
        let values = [
            Value::Decimal("-1.50".parse().unwrap()),
            Value::Timestamp("1969-12-31T23:59:59.999999Z".parse().unwrap()),
            Value::text("ä\"\u{0}:"),
            Value::Int(i64::MIN),
        ];
        let print = print("orders", &asked);
        let text = write(&print, &values[..3]).unwrap();
        assert!(read(&text, &print, &model, &order).is_err(), "too few values");
        let without_nul = [&values[..2], &[Value::text("ä\":")], &values[3..]].concat();
        let text = write(&print, &without_nul).unwrap();
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')));
        assert_eq!(read(&text, &print, &model, &order).unwrap(), without_nul);
        let others = [
            super::print("orders2", &asked),
            super::print("orders", &query(Filter::Null(1), &order)),
            super::print("orders", &query(Filter::all(), &order[1..])),
        ];
        for other in others {
            assert_eq!(read(&text, &other, &model, &order).unwrap_err(), ANOTHER);
        }
        // A limit may change from page to page.
        let more = RowQuery { max: 99, ..asked };
        assert_eq!(super::print("orders", &more), print);
        for nonsense in ["", "x", "!", "W10", "e30"] {
            assert_eq!(read(nonsense, &print, &model, &order).unwrap_err(), ANOTHER);
        }
        let null = [&values[..2], &[Value::Null, Value::Null]].concat();
        let text = write(&print, &null).unwrap();
        assert!(read(&text, &print, &model, &order).is_err(), "no key is null");
        let long = [&values[..2], &[Value::text(&"x".repeat(9_000)), Value::Int(1)]].concat();
        assert!(write(&print, &long).unwrap_err().contains("sort by other fields"));
    }
}
