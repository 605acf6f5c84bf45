//! What the simulations fold: projections, seeded events, and the plain fold that each run must end in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use foldline_api::expiry::Horizon;
use foldline_api::model::{Key, Row};
use foldline_api::record::{Record, TopicPartition};
use foldline_language::config::env::Env;
use foldline_language::converter::{Decoder, Format};
use foldline_language::projection::{Effects, Projection, StateRef, States};
use foldline_testkit::{MemoryLog, Rng};

use crate::clock::simulated;
use crate::config;
use crate::task::Decoders;

const CONFIG: &str = r#"
[sources.events]
type = "kafka"
bootstrap_servers = "localhost:1"
[projections.accounts]
topics = ["events"]
key    = { id = "event.id" }
[projections.accounts.fields]
id    = "bigint"
n     = { type = "bigint", default = 0 }
sum   = { type = "numeric(12,2)", default = 0 }
p0    = "text"
p1    = "text"
p2    = "text"
[[projections.accounts.on]]
when  = "event.kind == 'add' && event.v < 90"
add   = { n = 1, sum = "event.v" }
patch = { p0 = "event.p0", p1 = "event.p1", p2 = "event.p2" }
[[projections.accounts.on]]
when   = "event.kind == 'many'"
for_each = "event.ids"
key    = { id = "item" }
add    = { n = 1 }
[[projections.accounts.on]]
when  = "event.kind == 'touch' && exists"
add   = { n = 100 }
[projections.solo]
topics = ["events"]
key    = { id = "string(partition) + ':' + string(event.id)" }
[projections.solo.fields]
id    = "text"
n     = { type = "bigint", default = 0 }
sum   = "numeric(12,2)"
last  = "text"
seen  = "text[]"
[[projections.solo.on]]
when   = "event.kind == 'drop'"
delete = true
[[projections.solo.on]]
when  = "event.kind == 'touch' && !exists"
ignore = true
[[projections.solo.on]]
when  = "event.kind != 'many'"
add   = { n = 1 }
merge = { sum = "event.v" }
set   = { last = "string(offset)" }
[projections.forks]
topics = ["events"]
key    = { id = "string(partition) + ':' + string(event.id)" }
[projections.forks.fields]
id    = "text"
n     = { type = "bigint", default = 0 }
small = { type = "smallint", default = 0 }
[[projections.forks.on]]
when = "event.kind == 'many' && state.n % 3 != 0"
for_each = "event.ids"
key  = { id = "string(partition) + ':' + string(item)" }
add  = { n = 1, small = 7000 }
continue = true
[[projections.forks.on]]
when = "event.kind == 'add' && state.n % 2 == 0"
add  = { n = 1 }
[[projections.forks.on]]
when = "event.kind == 'add' && state.n % 5 != 4"
key  = { id = "string(partition) + ':' + string((event.id + 5) % 12)" }
add  = { n = 10 }
set  = { small = 0 }
[[projections.forks.on]]
key  = { id = "string(partition) + ':' + string((event.id + 7) % 12)" }
add  = { n = 100 }
[projections.hot]
topics = ["events"]
key    = { id = "event.id" }
[projections.hot.fields]
id    = "bigint"
n     = { type = "bigint", default = 0 }
[[projections.hot.on]]
add   = { n = "event.misspelt == null ? 1 : 2" }
[projections.grown]
topics = ["events"]
key    = { id = "event.id" }
[projections.grown.fields]
id    = "bigint"
s     = "text"
[[projections.grown.on]]
when  = "size(coalesce(state.s, '')) < 60000"
set   = { s = "coalesce(state.s, 'xxxxxxxxxxxxxxxx') + coalesce(state.s, 'xxxxxxxxxxxxxxxx')" }
[[projections.grown.on]]
set   = { s = "state.s" }
[projections.large]
topics = ["events"]
key    = { id = "string(partition) + ':' + string(event.id)" }
[projections.large.fields]
id    = "text"
n     = { type = "bigint", default = 0 }
s     = "text"
[[projections.large.on]]
when  = "event.kind == 'drop'"
delete = true
[[projections.large.on]]
add   = { n = 1 }
set   = { s = "coalesce(state.s, '') + event.p" }
[projections.heavy]
topics = ["events"]
key    = { id = "event.id" }
[projections.heavy.fields]
id    = "bigint"
n     = { type = "bigint", default = 0 }
s     = "text"
[[projections.heavy.on]]
for_each = "event.ids"
key   = { id = "item" }
add   = { n = 1 }
merge = { s = "event.s" }
[projections.order]
topics = ["events"]
key    = { id = "event.id" }
[projections.order.fields]
id    = "bigint"
seen  = "bigint[]"
[[projections.order.on]]
append = { seen = "event.n" }
[projections.hours]
topics = ["events"]
key    = { hour = "window(timestamp(event.at), duration('1h'))", id = "string(partition) + ':' + string(event.id)" }
expire = { field = "hour", after = "6h" }
[projections.hours.fields]
hour  = "timestamptz"
id    = "text"
n     = { type = "bigint", default = 0 }
last  = "text"
[[projections.hours.on]]
when   = "event.kind == 'drop'"
delete = true
[[projections.hours.on]]
when  = "event.kind == 'many' && state.n % 3 != 0"
for_each = "event.ids"
key   = { hour = "window(timestamp(event.at), duration('1h'))", id = "string(partition) + ':' + string(item)" }
add   = { n = 10 }
[[projections.hours.on]]
add   = { n = "event.v" }
set   = { last = "string(offset)" }
[sinks.s]
type = "sqlite"
path = "unused.db"
"#;

/// One decoder for all topics.
#[derive(Debug)]
pub(crate) struct OneDecoder(pub(crate) Decoder);

impl Decoders for OneDecoder {
    fn of(&self, _topic: &Arc<str>) -> &Decoder {
        &self.0
    }

    fn need_schemas(&self) -> bool {
        self.0.needs_schemas()
    }
}

/// A projection of the simulation's config.
pub(crate) fn projection(name: &str) -> Arc<Projection> {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), CONFIG).unwrap();
    let config = config::load(file.path(), &Env::new([("A", "b")])).unwrap();
    Arc::new(Projection::compile(&config.projections[name]).unwrap())
}

/// Its decoder.
pub(crate) fn decoder(projection: &Projection) -> Decoder {
    Decoder {
        key: Some(Format::Text),
        value: Format::Json,
        mask: projection.mask().clone(),
        slots: projection.slots(),
        opener: None,
    }
}

/// So many partitions feed the rows.
pub(crate) const PARTITIONS: i32 = 3;

/// Appends some records of this projection's, and now and then a transaction's marker.
pub(crate) fn produce(rng: &mut Rng, projection: &str, log: &MemoryLog) {
    for _ in 0..rng.below(30) {
        let partition = i32::try_from(rng.below(3)).unwrap();
        let offset = rng.next_u64();
        let value = value(rng, projection, partition, offset % 1_000);
        let record = (Some(Bytes::from_static(b"k")), Some(Bytes::from(value)));
        log.append_record("events", partition, record, Vec::new(), Some(0));
        if rng.chance(20) {
            log.append_marker("events", partition);
        }
    }
}

/// One record's value. A few are bad; `exists` is only asked where one partition feeds the key.
fn value(rng: &mut Rng, projection: &str, partition: i32, offset: u64) -> String {
    if projection == "hours" {
        return value_of_an_hour(rng);
    }
    let id = rng.below(12);
    if projection == "large" {
        let (kind, length) = (if rng.chance(20) { "drop" } else { "add" }, rng.below(2_000));
        let text = "x".repeat(usize::try_from(length).unwrap());
        return format!(r#"{{"id":{id},"kind":"{kind}","p":"{text}"}}"#);
    }
    let v = format!("{}.{:02}", rng.below(100), rng.below(100));
    match rng.below(20) {
        0 => r#"{"id":"none","kind":"add","v":1}"#.to_owned(),
        1 => "{".to_owned(),
        2 => format!(r#"{{"id":{id},"kind":"other"}}"#),
        3 | 4 if projection != "solo" => {
            let ids: Vec<String> = (0..rng.below(4)).map(|_| rng.below(12).to_string()).collect();
            format!(r#"{{"kind":"many","id":0,"ids":[{}]}}"#, ids.join(","))
        }
        3 | 4 => format!(r#"{{"id":{id},"kind":"drop"}}"#),
        // Bad, and their keys are known.
        7 if rng.chance(300) => format!(r#"{{"id":{id},"kind":"add","v":1,"p{partition}":{{}}}}"#),
        8 if rng.chance(300) && projection == "solo" => {
            format!(r#"{{"id":{id},"kind":"add","v":"bad"}}"#)
        }
        5 | 6 if projection == "solo" => format!(r#"{{"id":{id},"kind":"touch"}}"#),
        _ => format!(r#"{{"id":{id},"kind":"add","v":{v},"p{partition}":"{offset}"}}"#),
    }
}

/// An event of the last ten hours by the simulated clock. Those that are older than six are late.
fn value_of_an_hour(rng: &mut Rng) -> String {
    let ago = i64::try_from(rng.below(600)).unwrap() * 60_000;
    let at = Horizon(simulated::now() - ago);
    let kind = ["drop", "many", "many", "add"];
    let kind = kind[usize::try_from(rng.below(20)).unwrap().min(3)];
    let v = if rng.chance(30) { "\"bad\"" } else { "1" };
    let ids: Vec<String> = (0..rng.below(3)).map(|_| rng.below(4).to_string()).collect();
    let (id, ids) = (rng.below(4), ids.join(","));
    format!(r#"{{"id":{id},"at":"{at}","kind":"{kind}","v":{v},"ids":[{ids}]}}"#)
}

/// What the plain fold gives.
#[derive(Default)]
pub(super) struct Expect {
    pub(super) rows: BTreeMap<Key, Row>,
    /// Bad, and not parked.
    pub(super) bad: u64,
    /// The places of what is parked.
    pub(super) parked: Vec<(TopicPartition, i64)>,
}

/// The rows of the plain fold, and how many records are bad.
pub(crate) fn oracle(projection: &Projection, records: &[Record]) -> (BTreeMap<Key, Row>, u64) {
    let Expect { rows, bad, .. } = plain_fold(projection, records, None);
    (rows, bad)
}

/// The plain fold, partition after partition: handlers commute across partitions. Where bad records are parked,
/// one takes its keys' later events of the partition along; those before these offsets were dropped.
pub(super) fn plain_fold(
    projection: &Projection,
    records: &[Record],
    parks: Option<&BTreeMap<TopicPartition, i64>>,
) -> Expect {
    struct Plain(BTreeMap<Key, Row>);
    impl States for Plain {
        fn get(&self, key: &Key) -> Option<StateRef<'_>> {
            Some(StateRef { row: self.0.get(key) })
        }
    }
    let decoder = decoder(projection);
    let mut plain = Plain(BTreeMap::new());
    let mut expect = Expect::default();
    let mut waiting: BTreeMap<TopicPartition, BTreeSet<Key>> = BTreeMap::new();
    let mut cleared = BTreeSet::new();
    for record in records {
        let partition = record.topic_partition();
        let dropped = parks.and_then(|dropped| dropped.get(&partition)).copied().unwrap_or(0);
        let mine = waiting.entry(partition.clone()).or_default();
        if record.offset >= dropped && cleared.insert(partition.clone()) {
            mine.clear();
        }
        let decoded = decoder.decode(record).ok();
        let decoded = decoded.and_then(|event| Some((projection.prepare(&event).ok()?, event)));
        let Some((prepared, event)) = decoded else {
            expect.bad += 1;
            continue;
        };
        let keys = prepared.keys();
        let waits = parks.is_some() && keys.iter().any(|key| mine.contains(key));
        let effects = projection.apply(&event, &prepared, &plain);
        if waits || (effects.is_err() && parks.is_some() && !keys.is_empty()) {
            mine.extend(keys.iter().cloned());
            if record.offset >= dropped {
                expect.parked.push((partition, record.offset));
            }
            continue;
        }
        match effects {
            Err(_) => expect.bad += 1,
            Ok(Effects::Filtered { .. }) => {}
            Ok(Effects::Applied { writes, .. }) => {
                for (key, row) in writes {
                    match row {
                        Some(row) => plain.0.insert(key, row),
                        None => plain.0.remove(&key),
                    };
                }
            }
        }
    }
    expect.parked.sort();
    Expect { rows: plain.0, ..expect }
}
