//! A converter that needs schemas, of a registry that is slow, and away as the seed decides: what is folded, what is bad and
//! what is parked is what it is without one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use foldline_api::budget::Budget;
use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::json;
use foldline_api::value::Value;
use foldline_language::converter::{ConvertError, Decoder, Encoded, Format, SchemaConverter};
use foldline_testkit::{Faults, MemoryLog, MemoryStore, Rng, Script};

use super::events::{OneDecoder, decoder, oracle};
use super::{World, runtime};
use crate::prepared::prepared;
use crate::task::{BlockedBy, Decoders, Ended};

const SCHEMAS: u64 = 64;

/// What the registry does; shared by all that ask it.
#[derive(Clone, Debug)]
pub(crate) struct Registry(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    rng: Rng,
    /// Per mille of its answers that do not come.
    away: u32,
    /// It has another schema under an id than it had.
    changed: bool,
    /// A schema that does not exist.
    missing: Option<u64>,
    asked: u64,
}

impl Registry {
    pub(crate) fn new(seed: u64) -> Self {
        let rng = Rng::new(seed);
        let state = State { rng, away: 0, changed: false, missing: None, asked: 0 };
        Registry(Arc::new(Mutex::new(state)))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    /// So many of a thousand answers do not come from now on.
    pub(crate) fn away(&self, per_mille: u32) {
        self.with(|state| state.away = per_mille);
    }

    /// Decoders by this registry's schemas that know none of them yet.
    pub(crate) fn decoders(&self, plain: Decoder) -> Arc<dyn Decoders> {
        let converter = Numbered { registry: self.clone(), known: Mutex::default() };
        Arc::new(OneDecoder(Decoder { value: Format::Schema(Arc::new(converter)), ..plain }))
    }
}

/// JSON whose bytes decide the schema.
#[derive(Debug)]
struct Numbered {
    registry: Registry,
    known: Mutex<BTreeSet<u64>>,
}

fn number(encoded: &[u8]) -> u64 {
    encoded.iter().fold(7, |sum, byte| (sum * 31 + u64::from(*byte)) % SCHEMAS)
}

#[async_trait]
impl SchemaConverter for Numbered {
    async fn prepare(&self, encoded: &[Encoded<'_>]) -> Result<()> {
        let wanted: BTreeSet<u64> = encoded.iter().map(|encoded| number(encoded.bytes)).collect();
        for schema in wanted {
            if self.known.lock().unwrap().contains(&schema) {
                continue;
            }
            let (slow, away, changed) = self.registry.with(|state| {
                state.asked += 1;
                (state.rng.below(20), state.rng.chance(state.away), state.changed)
            });
            tokio::time::sleep(Duration::from_millis(slow)).await;
            if changed {
                return Err(Error::config("the schema registry has another schema under this id"));
            }
            if away {
                return Err(Error::retriable("the schema registry does not answer"));
            }
            self.known.lock().unwrap().insert(schema);
        }
        Ok(())
    }

    fn decode(
        &self,
        encoded: Encoded<'_>,
        budget: &Budget,
    ) -> std::result::Result<Value, ConvertError> {
        let schema = number(encoded.bytes);
        if !self.known.lock().unwrap().contains(&schema) {
            return Err(ConvertError::NotPrepared(format!("schema {schema}")));
        }
        if self.registry.with(|state| state.missing) == Some(schema) {
            return Err(ConvertError::Schema(format!("schema {schema} does not exist")));
        }
        Ok(json::parse_within(encoded.bytes, budget)?)
    }
}

/// A task of `hot` over 40 records, which the registry has the schemas of.
async fn world() -> World {
    let script = Script::new(3, Faults::default());
    let mut world = World::of("hot", MemoryStore::transactional(), Rng::new(3), script);
    world.by_schema = true;
    for event in 0..40 {
        let value = Bytes::from(format!(r#"{{"id":{event}}}"#));
        world.log.append_record("events", 0, (None, Some(value)), vec![], None);
    }
    world.begin().await;
    world
}

#[test]
fn an_outage_is_shown_and_waited_for_and_makes_no_record_bad() {
    runtime(3).block_on(async {
        let mut world = world().await;
        world.registry.away(1_000);
        world.start_task().await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(world.store.rows("t").is_empty() && world.letters.letters().is_empty());
        let trouble = world.status.snapshot().trouble.unwrap_or_default();
        assert!(trouble.contains("the schema registry does not answer"), "{trouble}");
        assert_eq!(world.status.snapshot().blocked_by(), Some(BlockedBy::Schemas));
        let asked = world.registry.with(|state| state.asked);
        assert!((15..60).contains(&asked), "asked {asked} times in ten minutes");
        // A revocation does not wait for it.
        world.start_task().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let assigned = world.metrics.connector("c").assigned;
        assert_eq!(assigned.get(), 3, "the new task took its part");
        world.registry.away(0);
        world.catch_up().await;
        let (expect, _) = oracle(&world.projection, &world.log.records("events"));
        assert_eq!(world.store.rows("t"), expect);
        assert!(world.letters.letters().is_empty());
        assert_eq!(world.status.snapshot().trouble, None);
    });
}

#[test]
fn an_id_with_two_schemas_stops_the_task_and_makes_no_record_bad() {
    runtime(3).block_on(async {
        let mut world = world().await;
        world.registry.with(|state| state.changed = true);
        world.start_task().await;
        let (task, _) = world.tasks.pop().unwrap();
        let error = task.await.unwrap().unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config);
        assert!(error.message().contains("another schema under this id"), "{error}");
        assert!(world.store.rows("t").is_empty() && world.letters.letters().is_empty());
    });
}

#[test]
fn only_records_of_a_schema_that_does_not_exist_are_bad() {
    runtime(3).block_on(async {
        let mut world = world().await;
        let records = world.log.records("events");
        let of = |record: &foldline_api::record::Record| number(record.value.as_deref().unwrap());
        let missing = of(&records[5]);
        world.registry.with(|state| state.missing = Some(missing));
        world.start_task().await;
        world.catch_up().await;
        let bad = records.iter().filter(|record| of(record) == missing).count();
        assert_eq!(world.letters.letters().len(), bad);
        assert_eq!(world.store.rows("t").len(), records.len() - bad);
        let (task, cancel) = world.tasks.pop().unwrap();
        cancel.cancel();
        assert_eq!(task.await.unwrap().unwrap(), Ended::Stopped);
    });
}

/// What `verify` and `explain` read the log by.
#[test]
fn a_replay_asks_before_it_decodes_and_gets_over_an_outage() {
    runtime(9).block_on(async {
        let log = MemoryLog::new("log-1");
        log.create_topic("events", 1);
        for event in 0..300 {
            log.append("events", 0, None, Some(&format!(r#"{{"id":{event}}}"#)));
        }
        let projection = super::projection("hot");
        let registry = Registry::new(9);
        let decoders = registry.decoders(decoder(&projection));
        let log = prepared(log.group("g", &["events"]), &decoders);
        registry.away(300);
        let mut merge = crate::replay::Merge::new(log.reader().unwrap(), 1);
        let all = log.partitions().await.unwrap().into_iter().map(|info| {
            let (from, to) = (info.low, info.high);
            foldline_api::source::Stretch { partition: info.partition, from, to }
        });
        merge.extend(&all.collect::<Vec<_>>());
        let (mut read, mut failed) = (0, 0);
        while read < 300 {
            match merge.next().await {
                Ok(record) => {
                    let decoded = decoders.of(&Arc::from("events")).decode(&record.unwrap());
                    decoded.unwrap_or_else(|error| panic!("record {read}: {error}"));
                    read += 1;
                }
                // After half a minute it says so, and may be asked again.
                Err(error) => {
                    assert_eq!(error.class(), ErrorClass::Retriable);
                    failed += 1;
                    assert!(failed < 100, "{error}");
                }
            }
        }
    });
}
