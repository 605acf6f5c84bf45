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
use serde::{Deserialize, Serialize};

use super::avro::{self, Reference};
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

    /// Whether it answers, and takes the login.
    ///
    /// # Errors
    /// Of class Retriable: why it cannot tell now.
    async fn reach(&self) -> Result<()> {
        Ok(())
    }

    /// Whether the registry itself has told what this id stands for, so that it need not be asked again with each batch.
    fn is_sure(&self, _id: SchemaId) -> bool {
        true
    }

    /// What it said of this id is not to be believed: it is asked for anew the next time.
    fn doubt(&self, _id: SchemaId) {}
}

/// A registry that takes schemas too.
#[async_trait]
pub trait Register: Schemas {
    /// The id of a schema under a subject, where it is registered if it is not there yet.
    ///
    /// # Errors
    /// Of class Retriable: it cannot be told now. Of class Config: the registry refuses the schema, in its own words.
    async fn register(&self, subject: &str, schema: &Registered) -> Result<u32>;
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// `AVRO`, `PROTOBUF`, `JSON`; none where the registry does not say.
    pub kind: Option<String>,
    /// Its text.
    pub text: String,
    /// By which name each reference is known to those that it stands before, and its text.
    pub references: Vec<(String, String)>,
}

impl Registered {
    /// Whether both are the same schema: written with other spaces or its members in another order maybe, as a registry writes it
    /// that took it over from another, or with other words that say nothing of how values are read.
    #[must_use]
    pub fn is_same(&self, other: &Registered) -> bool {
        self.is_same_text(other) || self.reads_as(other)
    }

    /// Whether both are schemas of Avro that read any bytes as the same value: what differs is documentation, defaults, aliases.
    fn reads_as(&self, other: &Registered) -> bool {
        let is_avro = |one: &Registered| one.kind.as_deref() == Some("AVRO");
        let read = |one: &Registered| {
            let references: Vec<Reference<'_>> =
                one.references.iter().map(|(name, text)| Reference { name, text }).collect();
            avro::Schema::parse(&one.text, &references).ok()
        };
        is_avro(self) && is_avro(other) && read(self).is_some_and(|one| Some(one) == read(other))
    }

    fn is_same_text(&self, other: &Registered) -> bool {
        let names = |schema: &Registered| -> Vec<String> {
            schema.references.iter().map(|(name, _)| name.clone()).collect()
        };
        let texts = self.references.iter().zip(&other.references);
        self.kind == other.kind
            && names(self) == names(other)
            && is_same_text(&self.text, &other.text)
            && texts.into_iter().all(|((_, text), (_, other))| is_same_text(text, other))
    }
}

fn is_same_text(text: &str, other: &str) -> bool {
    let json = |text| serde_json::from_str::<serde_json::Value>(text).ok();
    text == other || json(text).is_some_and(|json_of| Some(json_of) == json(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_the_same_where_values_are_read_alike_by_it() {
        let schema = |amount: &str, more: &str, kind: &str| Registered {
            kind: Some(kind.to_owned()),
            text: format!(
                r#"{{"type":"record","name":"A",{more}"fields":[{{"name":"a",{more}"type":{amount}}}]}}"#
            ),
            references: Vec::new(),
        };
        let decimal = |scale| {
            format!(r#"{{"type":"bytes","logicalType":"decimal","precision":9,"scale":{scale}}}"#)
        };
        let one = schema(&decimal(2), "", "AVRO");
        assert!(one.is_same(&schema(&decimal(2), r#""doc":"d","aliases":["B"],"#, "AVRO")));
        // One fingerprint, and other values.
        assert!(!one.is_same(&schema(&decimal(4), "", "AVRO")));
        assert!(!one.is_same(&schema("\"bytes\"", "", "AVRO")));
        // Of other types every word may say something.
        let other = schema(&decimal(2), "", "JSON");
        assert!(!other.is_same(&schema(&decimal(2), r#""doc":"d","#, "JSON")));
        let broken = schema("7", "", "AVRO");
        assert!(!broken.is_same(&schema("8", "", "AVRO")) && broken.is_same(&broken.clone()));
    }

    #[test]
    fn a_schema_is_the_same_however_it_is_spaced() {
        let schema = |text: &str, reference: &str| Registered {
            kind: Some("AVRO".to_owned()),
            text: text.to_owned(),
            references: vec![("a".to_owned(), reference.to_owned())],
        };
        let one = schema(r#"{"type":"fixed","size":7}"#, "\"int\"");
        assert!(one.is_same(&schema("{ \"size\": 7,\n \"type\": \"fixed\" }", " \"int\"")));
        assert!(!one.is_same(&schema(r#"{"type":"fixed","size":8}"#, "\"int\"")));
        assert!(!one.is_same(&schema(r#"{"type":"fixed","size":7}"#, "\"long\"")));
        let fewer = Registered { references: vec![], ..one.clone() };
        assert!(!one.is_same(&fewer) && !fewer.is_same(&one));
        assert!(!one.is_same(&Registered { kind: None, ..one.clone() }));
        let proto = schema("message A {}", "");
        assert!(proto.is_same(&proto.clone()) && !proto.is_same(&schema("message B {}", "")));
    }
}
