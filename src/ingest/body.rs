//! The body of a post: one record, or many.

use std::collections::HashMap;

use bytes::Bytes;
use foldline_source_file::Posted;
use serde_json::value::RawValue;

/// A body's bytes. A topic takes far less for one record unless its `max.message.bytes` says more.
pub(crate) const BODY_MAX: usize = 8 << 20;
/// Records of one body.
const RECORDS_MAX: usize = 10_000;
/// Where many records stand, by the name that Confluent's REST Proxy has for it.
const RECORDS: &str = "records";

/// A body that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// As a whole.
    Body(String),
    /// One of its records.
    Record(String),
}

/// Reads a body: a record in the form of a line of `foldline produce`, or `{"records": […]}` with some.
///
/// # Errors
/// What is wrong, with the record's index and the name in it.
pub(crate) fn records(body: &Bytes) -> Result<Vec<Posted>, Wrong> {
    let texts = texts(body)?;
    let read = |(at, text): (usize, Bytes)| match Posted::from_line(&text) {
        Ok(Some(posted)) => Ok(posted),
        Ok(None) => Err(wrong(at, "nothing stands there")),
        Err(error) => Err(wrong(at, error.message())),
    };
    texts.into_iter().enumerate().map(read).collect()
}

/// Something wrong with the record at `at`.
pub(crate) fn wrong(at: usize, why: &str) -> Wrong {
    Wrong::Record(format!("records[{at}]: {why}; nothing was sent"))
}

/// The text of each record.
fn texts(body: &Bytes) -> Result<Vec<Bytes>, Wrong> {
    let not = |error: serde_json::Error| {
        // Its own words may quote what was sent.
        let (line, column) = (error.line(), error.column());
        Wrong::Body(format!("the body is no JSON object (line {line}, column {column})"))
    };
    let names: HashMap<String, &RawValue> = serde_json::from_slice(body).map_err(not)?;
    let Some(many) = names.get(RECORDS) else { return Ok(vec![body.clone()]) };
    if let Some(other) = names.keys().find(|name| *name != RECORDS) {
        return Err(Wrong::Body(format!("`{other}` does not stand beside `{RECORDS}`")));
    }
    let many: Vec<&RawValue> = serde_json::from_str(many.get())
        .map_err(|_| Wrong::Body(format!("`{RECORDS}` is no list")))?;
    match many.len() {
        0 => Err(Wrong::Body(format!("`{RECORDS}` is empty"))),
        count if count > RECORDS_MAX => {
            Err(Wrong::Body(format!("{count} records: {RECORDS_MAX} at most in one body")))
        }
        _ => Ok(many.into_iter().map(|raw| body.slice_ref(raw.get().as_bytes())).collect()),
    }
}
