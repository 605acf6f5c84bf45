//! What converters need from outside: schemas.
//!
//! Decoding is pure and cannot wait, so what keys and values name (a schema, by its id) is asked for before, once a batch
//! for all its records together: [`Decoder::prepare`](super::Decoder::prepare). Whoever runs the fold does so where
//! records come from, and decodes nothing of a batch before it went through.
//!
//! What follows from an error is its class. Of `prepare`: Retriable is an outage (a refused login too: a password may be
//! mended at the other end), so the batch waits and is asked about again, for ever; Config is what waiting does not cure
//! (one id with two schemas), so the connector stops. Of `decode`: Record, the record is bad, also where its schema does
//! not exist; Config where it was not prepared, which is a fault of whoever decodes and must not make a record bad.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use foldline_api::Result;
use foldline_api::budget::Budget;
use foldline_api::value::Value;

use super::framing::SchemaId;
use super::{ConvertError, Filled, Shape, take};
use crate::event::Mask;

/// A key or a value as it came.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The record's headers.
    pub headers: &'a [(Arc<str>, Option<Bytes>)],
}

/// A converter whose keys or values name schemas that stand elsewhere.
#[async_trait]
pub trait SchemaConverter: fmt::Debug + Send + Sync {
    /// Gets the schemas that `encoded` names, those only that are not known yet. What was prepared stays for as long as
    /// the converter: a batch may be decoded again. Bytes that name none, and a schema that does not exist, are no
    /// errors here: `decode` tells them of the record. May be dropped and called again.
    ///
    /// # Errors
    /// Of class Retriable or Config, see the module.
    async fn prepare(&self, encoded: &[Encoded<'_>]) -> Result<()>;

    /// The value, by a schema that was prepared.
    ///
    /// # Errors
    /// See [`ConvertError::class`].
    fn decode(
        &self,
        encoded: Encoded<'_>,
        budget: &Budget,
    ) -> std::result::Result<Value, ConvertError>;

    /// Fills the slots that the mask names. What is made for the mask of its decoder builds nothing else.
    ///
    /// # Errors
    /// As [`SchemaConverter::decode`].
    fn fill(
        &self,
        encoded: Encoded<'_>,
        mask: &Mask,
        slots: &mut [Option<Value>],
        budget: &Budget,
    ) -> std::result::Result<Filled, ConvertError> {
        let value = self.decode(encoded, budget)?;
        let shape = Shape::of(&value);
        if shape != Shape::Null {
            take(&value, mask, slots);
        }
        Ok(shape.into())
    }
}

/// Where schemas stand: a schema registry.
#[async_trait]
pub trait Schemas: fmt::Debug + Send + Sync {
    /// What there is under each of these ids, in their order. What it said once it says again, but that there is nothing.
    ///
    /// # Errors
    /// Of class Retriable: it cannot be told now.
    async fn get(&self, ids: &[SchemaId]) -> Result<Vec<Answer>>;
}

/// What a registry has under an id.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A schema.
    Schema(Arc<Registered>),
    /// None, as a sentence says.
    Gone(Arc<str>),
}

/// A schema as a registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// `AVRO`, `PROTOBUF`, `JSON`; none where the registry does not say.
    pub kind: Option<String>,
    /// Its text.
    pub text: String,
    /// By which name each reference is known to those that it stands before, and its text.
    pub references: Vec<(String, String)>,
}
