//! What converters need from outside: schemas.
//!
//! Decoding is pure and cannot wait, so what keys and values name (a schema, by its id) is asked for before, once a batch
//! for all its records together: [`Decoder::prepare`](super::Decoder::prepare). Whoever runs the fold does so where
//! records come from, and decodes nothing of a batch before it went through.
//!
//! What follows from an error is its class. Of `prepare`: Retriable is an outage, so the batch waits and is asked about
//! again, for ever; Config is what waiting does not cure (a refused login), so the connector stops. Of `decode`: Record,
//! the record is bad, also where its schema does not exist; Config where it was not prepared, which is a fault of
//! whoever decodes and must not make a record bad.

use std::fmt;

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::budget::Budget;
use foldline_api::value::Value;

use super::ConvertError;

/// A converter whose keys or values name schemas that stand elsewhere.
#[async_trait]
pub trait SchemaConverter: fmt::Debug + Send + Sync {
    /// Gets the schemas that `encoded` names, those only that are not known yet. What was prepared stays for as long as
    /// the converter: a batch may be decoded again. Bytes that name none, and a schema that does not exist, are no
    /// errors here: `decode` tells them of the record. May be dropped and called again.
    ///
    /// # Errors
    /// Of class Retriable or Config, see the module.
    async fn prepare(&self, encoded: &[&[u8]]) -> Result<()>;

    /// The value, by a schema that was prepared.
    ///
    /// # Errors
    /// See [`ConvertError::class`].
    fn decode(&self, encoded: &[u8], budget: &Budget) -> std::result::Result<Value, ConvertError>;
}
