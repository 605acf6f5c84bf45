//! How the states of a topic are written as values, and read back.
//!
//! **Written** as the config says: as JSON, or as Avro by one schema, which the columns make and which a registry has under
//! `TOPIC-value`. A record names it by the id that the registry gave, behind Confluent's frame. What an id stands for is kept in
//! the books before any row is written by it, as it is for what is read: so a registry that was filled anew is found out.
//!
//! **Read** as each record says: Avro's frame begins with 00 and JSON with a brace, so a topic whose values are written as
//! Avro from some day on is read whole.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldline_api::budget::Budget;
use foldline_api::model::{Model, Row};
use foldline_api::schemas::{KeptSchema, KeptSchemas};
use foldline_api::sink::TargetSpec;
use foldline_api::value::{Map, Value};
use foldline_api::{Error, ErrorClass, Result, json};
use foldline_language::converter::SchemaId;
use foldline_language::converter::avro::{Compiled, Reference, Schema};
use foldline_language::converter::schema::{Answer, Register, Registered};
use foldline_language::event::Mask;
use tokio::runtime::Handle;

use crate::avro;

/// How a topic's values are written.
#[derive(Clone, Debug, Default)]
pub enum ValueFormat {
    /// A JSON object of all columns.
    #[default]
    Json,
    /// Avro, by a schema that this registry is handed.
    Avro(StateRegistry),
}

/// A registry of the config.
#[derive(Clone, Debug)]
pub struct StateRegistry {
    /// Its name there.
    pub name: String,
    /// What asks it.
    pub registry: Arc<dyn Register>,
}

/// What stands before a value: 00 and the id of its schema.
const FRAME: u8 = 0;

/// See the module.
pub(crate) struct Values {
    avro: Option<Avro>,
}

struct Avro {
    registry: StateRegistry,
    subject: String,
    schema: Registered,
    /// What the registry called it last; 0 before it was asked.
    id: AtomicU32,
    known: Mutex<HashMap<u32, Arc<Compiled>>>,
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").field("avro", &self.avro.is_some()).finish()
    }
}

/// The subject of a topic's values.
fn subject(topic: &str) -> String {
    format!("{topic}-value")
}

/// What the values of a state topic are, for `foldline plan`.
pub(crate) fn plan(format: &ValueFormat, spec: &TargetSpec) -> String {
    match format {
        ValueFormat::Json => {
            let columns = spec.model.columns.iter();
            let columns = columns.map(|column| format!("{} ({})", column.name, column.ty));
            let columns = columns.collect::<Vec<_>>().join(", ");
            format!("value: a JSON object of {columns}; none where the row is deleted")
        }
        ValueFormat::Avro(registry) => {
            let schema = avro::schema(&spec.target, &spec.model);
            format!(
                "value: Avro, subject {} of the registry {}, schema {}; none where the row is deleted",
                subject(&spec.target),
                registry.name,
                schema.unwrap_or_else(|error| error.message().to_owned())
            )
        }
    }
}

impl Values {
    /// Those of a state topic.
    ///
    /// # Errors
    /// A config error where the columns make no schema.
    pub(crate) fn new(format: ValueFormat, spec: &TargetSpec) -> Result<Self> {
        let ValueFormat::Avro(registry) = format else { return Ok(Values { avro: None }) };
        let schema = Registered {
            kind: Some("AVRO".to_owned()),
            text: avro::schema(&spec.target, &spec.model)?,
            references: Vec::new(),
        };
        let subject = subject(&spec.target);
        let (id, known) = (AtomicU32::new(0), Mutex::default());
        Ok(Values { avro: Some(Avro { registry, subject, schema, id, known }) })
    }

    /// Sees that the registry has the schema, and that the books say what its id stands for.
    ///
    /// # Errors
    /// Of class Retriable where the registry cannot tell; of class Config where it refuses the schema, or its id was another's.
    pub(crate) async fn settle(&self, kept: &dyn KeptSchemas) -> Result<()> {
        let Some(avro) = &self.avro else { return Ok(()) };
        // Asked at each opening: it may have been emptied since.
        let id = avro.register().await?;
        let wanted = avro.kept(id)?;
        let (registry, name) = (&wanted.registry, &wanted.id);
        let has = |kept: &KeptSchema| kept.registry == *registry && kept.id == *name;
        let there = kept.keep(std::slice::from_ref(&wanted)).await?.into_iter().find(has);
        let there = there.map(|there| read_kept(&there)).transpose()?;
        if there.is_some_and(|there| !there.is_same(&avro.schema)) {
            let (topic, name) = (avro.topic(), &avro.registry.name);
            return Err(Error::config(format!(
                "the schema registry {name:?} gives the states of `{topic}` the schema {id}, which was another one before: it was \
                 emptied and filled anew, and what was written by that id cannot be told from what would be. Restore the registry, \
                 or delete the topics `{topic}` and `{topic}-foldline`, which are built anew then"
            )));
        }
        Ok(())
    }

    /// Sees that rows can be encoded. Waits.
    ///
    /// # Errors
    /// As [`Values::settle`].
    pub(crate) fn get_ready(&self) -> Result<()> {
        match &self.avro {
            Some(avro) if avro.id().is_none() => {
                Handle::current().block_on(avro.register()).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// A row as a value.
    ///
    /// # Errors
    /// Where it cannot be one, or the registry was not asked yet.
    pub(crate) fn encode(&self, model: &Model, row: &Row, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        let Some(avro) = &self.avro else {
            let mut text = String::new();
            write_json(model, row, &mut text);
            out.extend_from_slice(text.as_bytes());
            return Ok(());
        };
        let Some(id) = avro.id() else {
            return Err(Error::retriable("the schema of a state topic was not registered yet"));
        };
        out.push(FRAME);
        out.extend(id.to_be_bytes());
        avro::encode(model, row, out)
    }

    /// The columns that a value has. `kept` tells what ids stood for.
    ///
    /// # Errors
    /// What is wrong with the value, which is no state, as a sentence within; or why it cannot be told.
    pub(crate) fn decode(
        &self,
        value: &[u8],
        kept: impl FnOnce() -> Result<Vec<KeptSchema>>,
    ) -> Result<std::result::Result<Arc<Map>, String>> {
        let map = |value| match value {
            Value::Map(map) => Some(map),
            _ => None,
        };
        let Some((id, datum)) = framed(value) else {
            let fields = json::parse(value).ok().and_then(map);
            return Ok(fields.ok_or_else(|| "its value is no JSON object".to_owned()));
        };
        let Some(avro) = &self.avro else {
            return Ok(Err(format!(
                "its value is framed as of schema {id}, and the topic has value = \"json\": value = {{ type = \"avro\", registry = \
                 \"…\" }} reads it"
            )));
        };
        let compiled = match avro.compiled(id, kept)? {
            Ok(compiled) => compiled,
            Err(why) => return Ok(Err(why)),
        };
        match compiled.decode(datum, &Budget::unlimited(), || None) {
            Ok(value) => Ok(map(value).ok_or_else(|| "its value is no record".to_owned())),
            Err(error) => Ok(Err(format!("its value: {error}"))),
        }
    }
}

#[cfg(test)]
impl Values {
    /// As after an opening; what the books have then.
    pub(crate) fn registered(&self) -> KeptSchema {
        let avro = self.avro.as_ref().unwrap();
        avro.id.store(0x0001_0203, Ordering::Relaxed);
        avro.kept(0x0001_0203).unwrap()
    }
}

/// The schema's id, and the value without its frame.
fn framed(value: &[u8]) -> Option<(u32, &[u8])> {
    let (id, datum) = value.strip_prefix(&[FRAME])?.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*id), datum))
}

/// A row as JSON: every column by its name, null ones too.
fn write_json(model: &Model, row: &Row, out: &mut String) {
    for (at, (column, value)) in model.columns.iter().zip(row.values()).enumerate() {
        out.push(if at == 0 { '{' } else { ',' });
        json::write(&Value::Text(Arc::clone(&column.name)), out);
        out.push(':');
        json::write(value, out);
    }
    out.push('}');
}

fn read_kept(kept: &KeptSchema) -> Result<Registered> {
    serde_json::from_str(&kept.schema).map_err(|error| {
        Error::config(format!(
            "the books hold what this version of Foldline cannot read of {} of the schema registry {:?}: run the version that \
             wrote it, or a newer one: {error}",
            kept.id, kept.registry
        ))
    })
}

impl Avro {
    fn topic(&self) -> &str {
        self.subject.strip_suffix("-value").unwrap_or(&self.subject)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u32, Arc<Compiled>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn register(&self) -> Result<u32> {
        let subject = &self.subject;
        let id = self.registry.registry.register(subject, &self.schema).await;
        let id = id.map_err(|error| match error.class() {
            ErrorClass::Config => Error::config(format!(
                "the schema of the states of `{}`: {}. Leave the fields' types as they are, or let the subject take it (PUT \
                 /config/{subject} with {{\"compatibility\": \"NONE\"}}), or give the connector another topic",
                self.topic(),
                error.message()
            )),
            _ => error,
        })?;
        self.id.store(id, Ordering::Relaxed);
        Ok(id)
    }

    fn id(&self) -> Option<u32> {
        Some(self.id.load(Ordering::Relaxed)).filter(|id| *id != 0)
    }

    fn kept(&self, id: u32) -> Result<KeptSchema> {
        let schema = serde_json::to_string(&self.schema);
        let schema = schema.map_err(|error| Error::config(error.to_string()))?;
        Ok(KeptSchema { registry: self.registry.name.clone(), id: SchemaId::Id(id).name(), schema })
    }

    /// The schema of this id, or why there is none.
    fn compiled(
        &self,
        id: u32,
        kept: impl FnOnce() -> Result<Vec<KeptSchema>>,
    ) -> Result<std::result::Result<Arc<Compiled>, String>> {
        if let Some(known) = self.known().get(&id) {
            return Ok(Ok(Arc::clone(known)));
        }
        let place = SchemaId::Id(id);
        let is_of = |one: &KeptSchema| one.registry == self.registry.name && one.id == place.name();
        let schema = match kept()?.iter().find(|one| is_of(one)) {
            Some(kept) => Arc::new(read_kept(kept)?),
            None => {
                let asked = Handle::current().block_on(self.registry.registry.get(&[place]))?;
                match asked.into_iter().next() {
                    Some(Answer::Schema(schema)) => schema,
                    Some(Answer::Gone(why)) => return Ok(Err(format!("its value {why}"))),
                    None => return Ok(Err(format!("its value is of {place}, which is unknown"))),
                }
            }
        };
        let references: Vec<Reference<'_>> =
            schema.references.iter().map(|(name, text)| Reference { name, text }).collect();
        let schema = match Schema::parse(&schema.text, &references) {
            Ok(schema) => schema,
            Err(error) => return Ok(Err(format!("its value is of {place}, no Avro: {error}"))),
        };
        let compiled = Arc::new(Compiled::new(Arc::new(schema), &Mask::Whole(0)));
        self.known().insert(id, Arc::clone(&compiled));
        Ok(Ok(compiled))
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use foldline_language::converter::schema::Schemas;
    use foldline_testkit::contract::{model_of, spec_of};

    use super::*;

    /// A registry that calls every schema 7, and knows none.
    #[derive(Debug)]
    struct Seven;

    #[async_trait]
    impl Schemas for Seven {
        async fn get(&self, _: &[SchemaId]) -> Result<Vec<Answer>> {
            Ok(vec![Answer::Gone("is gone".into())])
        }
    }

    #[async_trait]
    impl Register for Seven {
        async fn register(&self, subject: &str, _: &Registered) -> Result<u32> {
            assert_eq!(subject, "users-value");
            Ok(7)
        }
    }

    /// Books of nothing but schemas.
    #[derive(Default)]
    struct Books(Mutex<Vec<KeptSchema>>);

    #[async_trait]
    impl KeptSchemas for Books {
        async fn kept(&self) -> Result<Vec<KeptSchema>> {
            Ok(self.0.lock().unwrap().clone())
        }

        async fn keep(&self, schemas: &[KeptSchema]) -> Result<Vec<KeptSchema>> {
            let mut kept = self.0.lock().unwrap();
            for schema in schemas {
                let is_same =
                    |one: &KeptSchema| one.registry == schema.registry && one.id == schema.id;
                if !kept.iter().any(is_same) {
                    kept.push(schema.clone());
                }
            }
            Ok(kept.clone())
        }
    }

    fn values(registry: &str, model: &Model) -> Values {
        let registry = StateRegistry { name: registry.to_owned(), registry: Arc::new(Seven) };
        Values::new(ValueFormat::Avro(registry), &spec_of("users", model.clone())).unwrap()
    }

    #[tokio::test]
    async fn an_id_that_was_another_schemas_stops_the_connector() {
        let model = model_of(&[("id", "bigint")], 1);
        let (books, row) = (Books::default(), Row::new(vec![Value::Int(1)]));
        let first = values("main", &model);
        let mut out = Vec::new();
        let early = first.encode(&model, &row, &mut out).unwrap_err();
        assert_eq!(early.class(), ErrorClass::Retriable, "{early}");
        first.settle(&books).await.unwrap();
        first.encode(&model, &row, &mut out).unwrap();
        assert_eq!(out, [0, 0, 0, 0, 7, 2]);
        // The same again is the same, and another registry's ids are others.
        values("main", &model).settle(&books).await.unwrap();
        let other = model_of(&[("id", "bigint"), ("name", "text")], 1);
        values("other", &other).settle(&books).await.unwrap();
        let error = values("main", &other).settle(&books).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config, "{error}");
        assert!(error.message().contains("the schema 7, which was another one before"), "{error}");
        // What is kept is what states are read by, whatever the registry says.
        let kept = books.kept().await.unwrap();
        let read = tokio::task::spawn_blocking(move || first.decode(&out, || Ok(kept)));
        let fields = read.await.unwrap().unwrap().unwrap();
        assert_eq!(fields.get("id"), Some(&Value::Int(1)));
    }
}
