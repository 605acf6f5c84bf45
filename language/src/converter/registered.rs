//! Keys and values whose schema a registry has: by the id of each record, compiled once for the mask of its decoder.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::budget::Budget;
use foldline_api::value::Value;

use super::avro::{self, Compiled, Reference};
use super::framing::{Frame, Framing, Part, SchemaId, told, unframe};
use super::schema::{Answer, Encoded, Registered, SchemaConverter, Schemas};
use super::{ConvertError, Filled};
use crate::event::Mask;

/// Schemas of one type, as a registry has them, compiled for the mask of a decoder.
pub trait RegisteredFormat: fmt::Debug + Send + Sync + Sized {
    /// The type's name in a registry.
    const KIND: &'static str;

    /// Compiles.
    ///
    /// # Errors
    /// When it is no such schema, as a sentence says that goes on after its id.
    fn parse(schema: &Registered, mask: &Mask) -> std::result::Result<Self, String>;

    /// The value of a frame, whole.
    ///
    /// # Errors
    /// When it is not what the schema says, with the hint.
    fn decode(
        &self,
        frame: &Frame<'_>,
        budget: &Budget,
        hint: impl FnOnce() -> Option<String>,
    ) -> std::result::Result<Value, ConvertError>;

    /// Fills the slots that the mask names.
    ///
    /// # Errors
    /// As [`RegisteredFormat::decode`].
    fn fill(
        &self,
        frame: &Frame<'_>,
        slots: &mut [Option<Value>],
        budget: &Budget,
        hint: impl FnOnce() -> Option<String>,
    ) -> std::result::Result<Filled, ConvertError>;
}

/// Avro by schemas of a registry.
pub type RegistryAvro = ByRegistry<Compiled>;
/// Protobuf by schemas of a registry.
#[cfg(feature = "protobuf")]
pub type RegistryProtobuf = ByRegistry<super::protobuf::Messages>;

/// What reads by the schemas of a registry.
#[derive(Debug)]
pub struct ByRegistry<R> {
    schemas: Arc<dyn Schemas>,
    framing: Framing,
    part: Part,
    mask: Mask,
    known: RwLock<HashMap<SchemaId, Known<R>>>,
}

/// What an id stands for.
#[derive(Clone, Debug)]
enum Known<R> {
    Schema(Arc<R>),
    /// Nothing that can be read: its records are bad, as this sentence says.
    Unreadable(Arc<str>),
    /// Nothing there is. It is asked for again with each batch that names it, and the registry decides how often.
    Gone(Arc<str>),
}

impl<R: RegisteredFormat> ByRegistry<R> {
    /// Of these schemas, for the decoder of one mask.
    #[must_use]
    pub fn new(schemas: Arc<dyn Schemas>, framing: Framing, part: Part, mask: &Mask) -> Self {
        ByRegistry { schemas, framing, part, mask: mask.clone(), known: RwLock::default() }
    }

    fn is_compiled(&self, id: SchemaId) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        matches!(known.get(&id), Some(Known::Schema(_) | Known::Unreadable(_)))
    }

    fn compile(&self, id: SchemaId, answer: Answer) -> Known<R> {
        match answer {
            Answer::Gone(why) => Known::Gone(why),
            Answer::Schema(schema) => match parse(id, &schema, &self.mask) {
                Ok(compiled) => Known::Schema(Arc::new(compiled)),
                Err(why) => Known::Unreadable(why.into()),
            },
        }
    }

    fn by<'a>(
        &self,
        encoded: Encoded<'a>,
    ) -> std::result::Result<(Arc<R>, Frame<'a>), ConvertError> {
        let frame = unframe(self.framing, self.part, encoded)?;
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        match known.get(&frame.id) {
            Some(Known::Schema(compiled)) => Ok((Arc::clone(compiled), frame)),
            Some(Known::Unreadable(why) | Known::Gone(why)) => Err(told(Arc::clone(why))),
            None => Err(ConvertError::NotPrepared(frame.id.to_string())),
        }
    }
}

/// Of an error, by which schema the value was read.
fn hint(id: SchemaId) -> Option<String> {
    Some(format!("read by {id}"))
}

fn parse<R: RegisteredFormat>(
    id: SchemaId,
    schema: &Registered,
    mask: &Mask,
) -> std::result::Result<R, String> {
    if let Some(kind) = schema.kind.as_ref().filter(|kind| *kind != R::KIND) {
        let (kind, wanted) = (kind.to_lowercase(), R::KIND.to_lowercase());
        return Err(format!("{id} is of type {kind} and not of {wanted}"));
    }
    R::parse(schema, mask).map_err(|error| format!("{id} is {error}"))
}

impl RegisteredFormat for Compiled {
    const KIND: &'static str = "AVRO";

    fn parse(schema: &Registered, mask: &Mask) -> std::result::Result<Self, String> {
        let references: Vec<Reference<'_>> =
            schema.references.iter().map(|(name, text)| Reference { name, text }).collect();
        let made = avro::Schema::parse(&schema.text, &references);
        let schema = made.map_err(|error| format!("no Avro schema: {error}"))?;
        Ok(Compiled::new(Arc::new(schema), mask))
    }

    fn decode(
        &self,
        frame: &Frame<'_>,
        budget: &Budget,
        hint: impl FnOnce() -> Option<String>,
    ) -> std::result::Result<Value, ConvertError> {
        self.decode(frame.value, budget, hint)
    }

    fn fill(
        &self,
        frame: &Frame<'_>,
        slots: &mut [Option<Value>],
        budget: &Budget,
        hint: impl FnOnce() -> Option<String>,
    ) -> std::result::Result<Filled, ConvertError> {
        self.fill(frame.value, slots, budget, hint)
    }
}

#[async_trait]
impl<R: RegisteredFormat> SchemaConverter for ByRegistry<R> {
    async fn prepare(&self, encoded: &[Encoded<'_>]) -> Result<()> {
        let named = |encoded: &Encoded<'_>| {
            unframe(self.framing, self.part, *encoded).map(|frame| frame.id).ok()
        };
        let mut wanted: BTreeSet<SchemaId> = encoded.iter().filter_map(named).collect();
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            wanted.retain(|id| {
                matches!(known.get(id), None | Some(Known::Gone(_))) || !self.schemas.is_sure(*id)
            });
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let wanted: Vec<SchemaId> = wanted.into_iter().collect();
        let answers = self.schemas.get(&wanted).await?;
        for (id, answer) in wanted.into_iter().zip(answers) {
            if self.is_compiled(id) {
                // It is the same as before: another schema would be an error.
                continue;
            }
            let compiled = self.compile(id, answer);
            self.known.write().unwrap_or_else(PoisonError::into_inner).insert(id, compiled);
        }
        Ok(())
    }

    fn decode(
        &self,
        encoded: Encoded<'_>,
        budget: &Budget,
    ) -> std::result::Result<Value, ConvertError> {
        let (compiled, frame) = self.by(encoded)?;
        compiled.decode(&frame, budget, || hint(frame.id))
    }

    fn fill(
        &self,
        encoded: Encoded<'_>,
        _: &Mask,
        slots: &mut [Option<Value>],
        budget: &Budget,
    ) -> std::result::Result<Filled, ConvertError> {
        let (compiled, frame) = self.by(encoded)?;
        compiled.fill(&frame, slots, budget, || hint(frame.id))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};

    use bytes::Bytes;
    use foldline_api::{Error, ErrorClass};
    use uuid::Uuid;

    use super::*;

    const SCHEMA: &str = r#"{"type":"record","name":"A","fields":[{"name":"n","type":"long"}]}"#;

    /// What it has, and what it was asked for.
    #[derive(Debug, Default)]
    struct Double {
        has: Mutex<HashMap<SchemaId, (&'static str, &'static str)>>,
        away: Mutex<bool>,
        asked: Mutex<Vec<SchemaId>>,
    }

    #[async_trait]
    impl Schemas for Double {
        async fn get(&self, ids: &[SchemaId]) -> Result<Vec<Answer>> {
            self.asked.lock().unwrap().extend(ids);
            if *self.away.lock().unwrap() {
                return Err(Error::retriable("away"));
            }
            let has = self.has.lock().unwrap();
            let answer = |id: &SchemaId| match has.get(id) {
                Some((kind, text)) => Answer::Schema(Arc::new(Registered {
                    kind: Some((*kind).to_owned()),
                    text: (*text).to_owned(),
                    references: Vec::new(),
                })),
                None => Answer::Gone(format!("{id} does not exist").into()),
            };
            Ok(ids.iter().map(answer).collect())
        }
    }

    type Header = (Arc<str>, Option<Bytes>);

    fn header(name: &str, value: &[u8]) -> Header {
        (Arc::from(name), Some(Bytes::copy_from_slice(value)))
    }

    struct World {
        double: Arc<Double>,
        converter: RegistryAvro,
    }

    impl World {
        fn new(framing: Framing, part: Part) -> Self {
            let double = Arc::new(Double::default());
            let schemas = Arc::clone(&double) as Arc<dyn Schemas>;
            let converter = RegistryAvro::new(schemas, framing, part, &Mask::Whole(0));
            let world = World { double, converter };
            for id in [SchemaId::Id(7), SchemaId::GlobalId(7), SchemaId::ContentId(7)] {
                world.has(id, "AVRO", SCHEMA);
            }
            world.has(SchemaId::Guid(Uuid::from_bytes([9; 16])), "AVRO", SCHEMA);
            world
        }

        fn has(&self, id: SchemaId, kind: &'static str, text: &'static str) {
            self.double.has.lock().unwrap().insert(id, (kind, text));
        }

        fn prepare(&self, encoded: &[Encoded<'_>]) -> Result<()> {
            let asked = pin!(self.converter.prepare(encoded));
            match asked.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(done) => done,
                Poll::Pending => panic!("the double does not wait"),
            }
        }

        /// `n` of the record, once it is prepared.
        fn read(&self, bytes: &[u8], headers: &[Header]) -> std::result::Result<Value, String> {
            let encoded = Encoded { bytes, headers };
            self.prepare(&[encoded]).unwrap();
            let value = self.converter.decode(encoded, &Budget::default());
            let Value::Map(map) = value.map_err(|error| error.to_string())? else {
                return Err("no record".to_owned());
            };
            Ok(map.get("n").cloned().unwrap_or_default())
        }
    }

    #[test]
    fn every_frame_names_its_schema() {
        let guid = [&[1][..], &[9; 16]].concat();
        let headers = [
            header("__value_schema_id", &guid),
            header("__value_schema_id", &[0, 0, 0, 0, 7]),
            header("apicurio.value.globalId", &[0, 0, 0, 0, 0, 0, 0, 7]),
            header("apicurio.value.contentId", &[0, 0, 0, 0, 0, 0, 0, 7]),
        ];
        for header in &headers {
            for framing in [Framing::Auto, Framing::Headers] {
                let world = World::new(framing, Part::Value);
                // A long whose bytes look like a frame.
                let read = world.read(&[0], std::slice::from_ref(header));
                assert_eq!(read, Ok(Value::Int(0)), "{framing:?} {header:?}");
            }
            // The headers of values say nothing of keys.
            let error =
                World::new(Framing::Auto, Part::Key).read(&[14], std::slice::from_ref(header));
            assert!(error.unwrap_err().contains("no id of a schema before the value"));
        }
        for (framing, frame) in [
            (Framing::Auto, vec![0, 0, 0, 0, 7]),
            (Framing::Confluent, vec![0, 0, 0, 0, 7]),
            (Framing::Auto, guid.clone()),
            (Framing::Confluent, guid),
            (Framing::Apicurio8, vec![0, 0, 0, 0, 0, 0, 0, 0, 7]),
        ] {
            let world = World::new(framing, Part::Value);
            assert_eq!(world.read(&[&frame[..], &[14]].concat(), &[]), Ok(Value::Int(7)));
        }
    }

    #[test]
    fn headers_come_before_the_bytes_and_the_last_of_a_name_counts() {
        let world = World::new(Framing::Auto, Part::Value);
        let first = header("__value_schema_id", &[0, 0, 0, 0, 8]);
        let last = header("__value_schema_id", &[0, 0, 0, 0, 7]);
        // By the bytes it would be schema 33686019.
        let error = world.read(&[0, 2, 2, 2, 3, 14], &[first, last]).unwrap_err();
        assert!(error.contains("5 bytes are left over") && error.contains("read by schema 7"));
        assert_eq!(*world.double.asked.lock().unwrap(), [SchemaId::Id(7)]);
    }

    #[test]
    fn a_wrong_guess_says_what_it_met() {
        let json = header("apicurio.value.encoding", b"JSON");
        let global = header("apicurio.value.globalId", &[0, 0, 0, 0, 0, 0, 0, 7]);
        let short = header("apicurio.value.globalId", &[7]);
        for (framing, bytes, headers, says) in [
            (Framing::Auto, &b"{\"n\":7}"[..], vec![], "it looks like JSON"),
            (Framing::Headers, &[0, 0, 0, 0, 7, 14], vec![], "00 and the number 7"),
            (Framing::Confluent, &[14], vec![global.clone()], "no id of a schema before"),
            (Framing::Auto, &[0, 0, 0, 0, 0, 0, 0, 0, 7, 14], vec![], "apicurio-8-byte"),
            (Framing::Apicurio8, &[0, 0, 0, 0, 7, 14], vec![], "00 and eight bytes"),
            (Framing::Auto, &[[3, 0].as_slice(), &[1; 20]].concat(), vec![], "AWS Glue"),
            (Framing::Auto, &[0xc3, 1, 1, 2, 3, 4, 5, 6, 7, 8, 14], vec![], "single-object"),
            (Framing::Auto, &[14], vec![global, json], "otherwise than BINARY"),
            (Framing::Auto, &[14], vec![short], "of 1 bytes, which is no id"),
        ] {
            let error = World::new(framing, Part::Value).read(bytes, &headers).unwrap_err();
            assert!(error.contains(says), "{framing:?} {error}");
        }
    }

    #[test]
    fn what_cannot_be_read_makes_records_bad_and_is_asked_for_once() {
        let world = World::new(Framing::Auto, Part::Value);
        world.has(SchemaId::Id(8), "AVRO", "{\"type\":\"nothing\"}");
        world.has(SchemaId::Id(9), "PROTOBUF", "syntax = \"proto3\";");
        for (id, says) in [(8, "no Avro schema"), (9, "of type protobuf"), (6, "does not exist")] {
            for _ in 0..2 {
                let error = world.read(&[0, 0, 0, 0, id, 14], &[]).unwrap_err();
                assert!(error.contains(says), "{error}");
            }
        }
        // What does not exist may come to be.
        let asked = [8, 9, 6, 6].map(SchemaId::Id);
        assert_eq!(*world.double.asked.lock().unwrap(), asked);
        world.has(SchemaId::Id(6), "AVRO", SCHEMA);
        assert_eq!(world.read(&[0, 0, 0, 0, 6, 14], &[]), Ok(Value::Int(7)));
    }

    #[test]
    fn an_outage_makes_no_record_bad() {
        let world = World::new(Framing::Auto, Part::Value);
        let encoded = Encoded { bytes: &[0, 0, 0, 0, 7, 14], headers: &[] };
        let unprepared = world.converter.decode(encoded, &Budget::default()).unwrap_err();
        assert_eq!(unprepared.class(), ErrorClass::Config);
        *world.double.away.lock().unwrap() = true;
        assert_eq!(world.prepare(&[encoded]).unwrap_err().class(), ErrorClass::Retriable);
        assert!(world.converter.known.read().unwrap().is_empty());
        *world.double.away.lock().unwrap() = false;
        assert_eq!(world.read(encoded.bytes, &[]), Ok(Value::Int(7)));
    }
}
