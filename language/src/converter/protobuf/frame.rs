//! What stands before a message in a record's bytes. A registry's frame says which schema it is, and by indexes which message
//! of that schema's file; no message begins with a byte 00 or 01, as those frames do.

use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::value::Value;
use smallvec::{SmallVec, smallvec};

use super::{Compiled, Schema};
use crate::converter::framing::{Frame, Framing, SchemaId, confluent, met, unframed};
use crate::converter::registered::RegisteredFormat;
use crate::converter::schema::Registered;
use crate::converter::{ConvertError, Filled};
use crate::event::Mask;

/// The indexes that lead to a message, from its file inwards.
type Indexes = SmallVec<[u32; 4]>;

/// Protobuf by a message of one schema, for the decoder of one mask.
#[derive(Clone, Debug)]
pub struct Protobuf {
    compiled: Compiled,
    framing: Framing,
}

impl Protobuf {
    /// Of this message, framed like that; none where the schema has none of that name.
    #[must_use]
    pub fn new(schema: Arc<Schema>, message: &str, framing: Framing, mask: &Mask) -> Option<Self> {
        Some(Protobuf { compiled: Compiled::new(schema, message, mask)?, framing })
    }

    pub(in crate::converter) fn fill(
        &self,
        bytes: &[u8],
        slots: &mut [Option<Value>],
        budget: &Budget,
    ) -> Result<Filled, ConvertError> {
        let value = self.unframed(bytes)?;
        self.compiled.fill(value, slots, budget, || met(value))
    }

    pub(in crate::converter) fn decode(
        &self,
        bytes: &[u8],
        budget: &Budget,
    ) -> Result<Value, ConvertError> {
        let value = self.unframed(bytes)?;
        self.compiled.decode(value, budget, || met(value))
    }

    #[inline]
    fn unframed<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], ConvertError> {
        if self.framing == Framing::None {
            return Ok(bytes);
        }
        match (self.framing, confluent(bytes)) {
            (_, Some((id, framed))) => self.of_own_message(id, framed),
            (Framing::Confluent, None) => Err(unframed(self.framing, bytes)),
            (_, None) => Ok(bytes),
        }
    }

    /// The frame's schema is not asked for, but it must name the message that is read.
    fn of_own_message<'a>(&self, id: SchemaId, framed: &'a [u8]) -> Result<&'a [u8], ConvertError> {
        let Some((indexes, value)) = indexes(framed) else { return Err(no_indexes(id)) };
        let own = self.compiled.schema.indexes(self.compiled.message);
        // Of a set of descriptors it is not known which file the frame means.
        if own.is_none_or(|own| own == indexes.as_slice()) {
            return Ok(value);
        }
        let name = self.compiled.message().map(|message| &*message.name).unwrap_or_default();
        Err(ConvertError::Schema(format!(
            "is of {id}, of the message {:?} of its file, which is not {name}: by a registry each is read as what it is",
            indexes.as_slice()
        )))
    }
}

/// The messages of a file that a registry has, for the decoder of one mask.
#[derive(Clone, Debug)]
pub struct Messages(Vec<(Vec<u32>, Compiled)>);

impl Messages {
    fn of(&self, id: SchemaId, indexes: &[u32]) -> Result<&Compiled, ConvertError> {
        let found = self.0.iter().find(|(known, _)| known == indexes);
        found.map(|(_, compiled)| compiled).ok_or_else(|| {
            ConvertError::Schema(format!(
                "is of the message {indexes:?} of {id}, which has none there"
            ))
        })
    }

    /// The message that a frame names, and its bytes.
    fn by<'a>(&self, frame: &Frame<'a>) -> Result<(&Compiled, &'a [u8]), ConvertError> {
        let id = frame.id;
        let (indexes, value) = match (frame.id, frame.of_header) {
            (SchemaId::GlobalId(_) | SchemaId::ContentId(_), Some(_)) => {
                return Err(ConvertError::Schema(format!(
                    "is of {id} in Apicurio's own headers, which do not say of which message it is: \
                     let its serializer write Confluent's frame (as-confluent)"
                )));
            }
            // A header without indexes is of the first message.
            (_, Some([])) => (smallvec![0], frame.value),
            (_, Some(rest)) => match indexes(rest) {
                Some((indexes, [])) => (indexes, frame.value),
                _ => return Err(no_indexes(id)),
            },
            (_, None) => indexes(frame.value).ok_or_else(|| no_indexes(id))?,
        };
        Ok((self.of(id, &indexes)?, value))
    }
}

impl RegisteredFormat for Messages {
    const KIND: &'static str = "PROTOBUF";

    fn parse(schema: &Registered, mask: &Mask) -> Result<Self, String> {
        let references: Vec<super::Reference<'_>> =
            schema.references.iter().map(|(name, text)| super::Reference { name, text }).collect();
        let made = Schema::parse("schema.proto", &schema.text, &references);
        let schema = Arc::new(made.map_err(|error| format!("no Protobuf schema: {error}"))?);
        let compiled = schema.own.iter().filter_map(|(indexes, at)| {
            Some((indexes.clone(), Compiled::of(Arc::clone(&schema), *at, mask)?))
        });
        Ok(Messages(compiled.collect()))
    }

    fn decode(
        &self,
        frame: &Frame<'_>,
        budget: &Budget,
        hint: impl FnOnce() -> Option<String>,
    ) -> Result<Value, ConvertError> {
        let (compiled, value) = self.by(frame)?;
        compiled.decode(value, budget, hint)
    }

    fn fill(
        &self,
        frame: &Frame<'_>,
        slots: &mut [Option<Value>],
        budget: &Budget,
        hint: impl FnOnce() -> Option<String>,
    ) -> Result<Filled, ConvertError> {
        let (compiled, value) = self.by(frame)?;
        compiled.fill(value, slots, budget, hint)
    }
}

#[cold]
fn no_indexes(id: SchemaId) -> ConvertError {
    ConvertError::Schema(format!("is of {id}, but does not say of which of its messages"))
}

/// The indexes before a message, zigzag: how many there are, and each; the first message of all is the single byte 00.
fn indexes(bytes: &[u8]) -> Option<(Indexes, &[u8])> {
    let (count, mut rest) = zigzag(bytes)?;
    if count == 0 {
        return Some((smallvec![0], rest));
    }
    let mut found = Indexes::new();
    for _ in 0..count {
        let index;
        (index, rest) = zigzag(rest)?;
        found.push(index);
    }
    Some((found, rest))
}

fn zigzag(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut number = 0u64;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            // None of them is below zero.
            let number = u32::try_from(number >> 1).ok().filter(|_| number & 1 == 0)?;
            return Some((number, bytes.get(at + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use foldline_api::json;
    use uuid::Uuid;

    use super::*;

    const FILE: &str = r#"syntax = "proto3"; package shop;
        message Order { int64 id = 1; message Line { int64 id = 1; } message Part { int64 part = 1; } }
        message Gone { int64 gone = 1; }"#;

    fn registered(text: &str) -> Messages {
        let kind = Some("PROTOBUF".to_owned());
        let schema = Registered { kind, text: text.to_owned(), references: Vec::new() };
        Messages::parse(&schema, &Mask::Whole(0)).unwrap()
    }

    fn read(of_header: Option<&[u8]>, value: &[u8]) -> Result<String, String> {
        let frame = Frame { id: SchemaId::Id(7), of_header, value };
        let value = registered(FILE).decode(&frame, &Budget::default(), || None);
        value.map(|value| json::to_string(&value)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_registrys_frame_says_which_message_it_is() {
        // As Confluent's serializers write them, before the message or behind the id in its header.
        for (indexes, wanted) in [
            (&[0][..], "{\"id\":5}"),
            (&[2, 2], "{\"gone\":5}"),
            (&[4, 0, 0], "{\"id\":5}"),
            (&[4, 0, 2], "{\"part\":5}"),
        ] {
            let framed = [indexes, &[0x08, 5]].concat();
            assert_eq!(read(None, &framed), Ok(wanted.to_owned()), "{indexes:?}");
            assert_eq!(read(Some(indexes), &[0x08, 5]), Ok(wanted.to_owned()), "{indexes:?}");
        }
        assert_eq!(read(Some(&[]), &[0x08, 5]), Ok("{\"id\":5}".to_owned()));
        for (framed, says) in [
            (&[2, 4, 0x08, 5][..], "is of the message [2] of schema 7, which has none there"),
            (&[][..], "does not say of which of its messages"),
            (&[0x08, 2][..], "does not say of which of its messages"),
            (&[1], "does not say of which of its messages"),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "does not say of which of its messages"),
        ] {
            let error = read(None, framed).unwrap_err();
            assert!(error.contains(says), "{framed:?}: {error}");
        }
        let frame = Frame { id: SchemaId::GlobalId(7), of_header: Some(&[]), value: &[0x08, 5] };
        let error = registered(FILE).decode(&frame, &Budget::default(), || None).unwrap_err();
        assert!(error.to_string().contains("as-confluent"), "{error}");
    }

    #[test]
    fn a_frame_before_a_message_of_a_file_is_of_that_message() {
        let schema = Arc::new(Schema::parse("order.proto", FILE, &[]).unwrap());
        let read = |framing: Framing, bytes: &[u8]| {
            let of = Protobuf::new(Arc::clone(&schema), "shop.Gone", framing, &Mask::Whole(0));
            let value = of.unwrap().decode(bytes, &Budget::default());
            value.map(|value| json::to_string(&value)).map_err(|error| error.to_string())
        };
        let (bare, framed) = ([0x08, 5], [0, 0, 0, 0, 9, 2, 2, 0x08, 5]);
        let guid = [&[1][..], Uuid::max().as_bytes(), &[2, 2, 0x08, 5]].concat();
        let five = Ok("{\"gone\":5}".to_owned());
        for (framing, bytes) in [
            (Framing::None, &bare[..]),
            (Framing::Auto, &bare),
            (Framing::Auto, &framed),
            (Framing::Auto, &guid),
            (Framing::Confluent, &framed),
        ] {
            assert_eq!(read(framing, bytes), five, "{framing:?} {bytes:?}");
        }
        for (framing, bytes, says) in [
            (Framing::None, &framed[..], "a registry's frame does"),
            (Framing::None, &framed, "a field of number 0"),
            (Framing::Confluent, &bare, "no id of a schema before the value"),
            (
                Framing::Auto,
                &[0, 0, 0, 0, 9, 0, 0x08, 5],
                "of the message [0] of its file, which is not shop.Gone",
            ),
            (Framing::Auto, b"{\"gone\":5}", "it looks like JSON"),
        ] {
            let error = read(framing, bytes).unwrap_err();
            assert!(error.contains(says), "{says:?} in {error:?}");
        }
    }
}
