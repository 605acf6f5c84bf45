//! The records of a topic `t`, folded one by one.

use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use foldline_api::json::to_string;
use foldline_api::model::{Key, Row};
use foldline_api::record::{Headers, Record};
use foldline_api::value::Value;
use hashbrown::HashMap;

use crate::converter::{Decoder, Format};
use crate::projection::{Effects, Projection, StateRef, States};

#[derive(Default)]
pub(super) struct Rows(pub(super) HashMap<Key, Row>);

impl States for Rows {
    fn get(&self, key: &Key) -> Option<StateRef<'_>> {
        Some(StateRef { row: self.0.get(key) })
    }
}

/// A log being folded: what became of each record, and the rows.
pub(super) struct Log {
    pub(super) projection: Projection,
    pub(super) decoder: Decoder,
    pub(super) rows: Rows,
    offset: i64,
}

impl Log {
    pub(super) fn new(projection: Projection) -> Self {
        let opener = Arc::clone(projection.opener("t").unwrap());
        let (mask, slots) = (opener.mask().clone(), opener.width());
        let (key, value) = (Some(Format::Json), Format::Json);
        let decoder = Decoder { key, value, mask, slots, opener: Some(opener) };
        Log { projection, decoder, rows: Rows::default(), offset: 0 }
    }

    /// `applied`, `filtered`, or why it is bad.
    pub(super) fn fold(&mut self, key: Option<&str>, value: Option<&str>) -> String {
        self.fold_with(key, value.map(str::as_bytes), Vec::new())
    }

    /// The same with headers. In place and by copy it comes to the same.
    pub(super) fn fold_with(
        &mut self,
        key: Option<&str>,
        value: Option<&[u8]>,
        headers: Headers,
    ) -> String {
        self.offset += 1;
        let record = Record {
            topic: Arc::from("t"),
            partition: 0,
            offset: self.offset,
            timestamp: None,
            key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
            value: value.map(Bytes::copy_from_slice),
            headers,
        };
        let prepared =
            pin!(self.decoder.prepare(&[&record])).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(prepared, Poll::Ready(Ok(()))), "{prepared:?}");
        let event = match self.decoder.decode(&record) {
            Ok(event) => event,
            Err(error) => return error.to_string(),
        };
        let prepared = match self.projection.prepare(&event) {
            Ok(prepared) => prepared,
            Err(bad) => return bad.reason,
        };
        let in_place = prepared.single().map(|key| {
            let mut row = self.rows.0.get(key).cloned();
            let done = self.projection.apply_single(&event, &prepared, &mut row);
            (key.clone(), row, done.map_err(|bad| (bad.reason, bad.read)))
        });
        let applied = self.projection.apply(&event, &prepared, &self.rows);
        let outcome = match applied {
            Err(bad) => {
                if let Some((_, _, done)) = &in_place {
                    assert_eq!(done.clone().unwrap_err(), (bad.reason.clone(), bad.read));
                }
                return bad.reason;
            }
            Ok(Effects::Filtered { .. }) => "filtered",
            Ok(Effects::Applied { writes, .. }) => {
                for (key, row) in writes {
                    match row {
                        Some(row) => self.rows.0.insert(key, row),
                        None => self.rows.0.remove(&key),
                    };
                }
                "applied"
            }
        };
        if let Some((key, row, _)) = in_place {
            assert_eq!(self.rows.0.get(&key), row.as_ref(), "in place and by copy");
        }
        outcome.to_owned()
    }

    /// The rows in JSON, by key.
    pub(super) fn rows(&self) -> Vec<String> {
        let mut rows: Vec<String> = self.rows.0.values().map(|row| json(row.values())).collect();
        rows.sort();
        rows
    }
}

fn json(values: &[Value]) -> String {
    let texts: Vec<String> = values.iter().map(to_string).collect();
    texts.join(" ")
}
