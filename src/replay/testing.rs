//! A connector in memory for the tests of what stands on a replay.

use std::sync::Arc;

use foldline_api::model::Key;
use foldline_api::parked::ParkedEvent;
use foldline_api::record::Position;
use foldline_api::sink::{
    Advance, Beginning, Flush, OnChange, RowWrite, StoredVerdict, Target, Version,
};
use foldline_api::source::{Log, Stretch};
use foldline_language::config::env::Env;
use foldline_language::projection::Projection;
use foldline_testkit::contract::spec_of;
use foldline_testkit::{MemoryLog, MemoryStore};

use super::{Outcome, Parts};
use crate::config;
use crate::maps::HashSet;
use crate::policy::OnBadRecord;
use crate::task::simulation::{OneDecoder, decoder};

const CONFIG: &str = r#"
[sources.events]
type = "kafka"
bootstrap_servers = "localhost:1"
[projections.sums]
topics = ["events"]
key    = { id = "event.id" }
[projections.sums.fields]
id   = "bigint"
n    = { type = "bigint", default = 0 }
last = "text"
[[projections.sums.on]]
when   = "has(event.ids)"
for_each = "event.ids"
key    = { id = "item" }
add    = { n = 100 }
[[projections.sums.on]]
when = "event.v != 'skip'"
add  = { n = 1 }
set  = { last = "event.v" }
[projections.single]
topics = ["events"]
key    = { id = "key" }
[projections.single.fields]
id   = "text"
n    = { type = "bigint", default = 0 }
last = "text"
[[projections.single.on]]
when   = "event.v == 'drop'"
delete = true
[[projections.single.on]]
when = "event.v != 'skip'"
add  = { n = "event.n" }
set  = { last = "event.v" }
[sinks.s]
type = "sqlite"
path = "unused.db"
"#;

/// A log, a store, and what folds the one into the other.
pub(crate) struct Bench {
    pub(crate) log: MemoryLog,
    pub(crate) store: MemoryStore,
    pub(crate) parts: Parts,
    /// Offsets in partition 0 of what is set aside when it is written.
    pub(crate) parks: Vec<i64>,
    reached: Vec<Position>,
}

impl Bench {
    /// `projection` is `sums` (several keys an event) or `single` (the record's key).
    pub(crate) async fn new(projection: &str, store: MemoryStore, partitions: i32) -> Self {
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        std::fs::write(file.path(), CONFIG).unwrap();
        let config = config::load(file.path(), &Env::new([("A", "b")])).unwrap();
        let projection = Arc::new(Projection::compile(&config.projections[projection]).unwrap());
        let log = MemoryLog::new("log-1");
        log.create_topic("events", partitions);
        let mut spec = spec_of("t", (**projection.model()).clone());
        spec.fingerprint = projection.fingerprint().to_owned();
        let target = store.target(spec);
        let generation = target.open().await.unwrap().generation;
        let group = log.group("g", &["events"]);
        let beginning = |info: foldline_api::source::PartitionInfo| Beginning {
            partition: info.partition,
            topic_id: info.topic_id,
            position: info.low,
        };
        let beginnings: Vec<Beginning> =
            group.partitions().await.unwrap().into_iter().map(beginning).collect();
        target.begin(generation, &beginnings).await.unwrap();
        let decoder = decoder(&projection);
        let parts = Parts {
            connector: "t".to_owned(),
            projection,
            decoders: Arc::new(OneDecoder(decoder)),
            log: group,
            target,
            on_bad_record: OnBadRecord::DeadLetter,
            memory: 1 << 20,
        };
        let reached = vec![Position(0); usize::try_from(partitions).unwrap()];
        Bench { log, store, parts, parks: Vec::new(), reached }
    }

    /// Appends an event with this timestamp.
    pub(crate) fn append(&self, partition: i32, key: &str, value: &str, at: i64) -> i64 {
        let bytes = |text: &str| bytes::Bytes::copy_from_slice(text.as_bytes());
        let record = (Some(bytes(key)), Some(bytes(value)));
        self.log.append_record("events", partition, record, Vec::new(), Some(at))
    }

    /// Another projection carries the generation on.
    pub(crate) async fn carry_on(&mut self) {
        let mut spec = spec_of("t", (**self.parts.projection.model()).clone());
        (spec.fingerprint, spec.on_change) = ("another".to_owned(), OnChange::Continue);
        self.parts.target = self.store.target(spec);
        self.parts.target.open().await.unwrap();
    }

    pub(crate) fn key(&self, text: &str) -> Key {
        self.parts.projection.model().parse_key(text).unwrap()
    }

    /// Writes what the log gives by now, with these verdicts. With `moves`, positions too.
    pub(crate) async fn write(&mut self, verdicts: &[StoredVerdict], moves: bool) {
        let (mut merge, mut fold) = self.parts.start().unwrap();
        fold.repeat(verdicts);
        let infos = self.parts.log.partitions().await.unwrap();
        let stretch = |info: &foldline_api::source::PartitionInfo| Stretch {
            partition: info.partition.clone(),
            from: info.low,
            to: info.high,
        };
        merge.extend(&infos.iter().map(stretch).collect::<Vec<_>>());
        let mut flush = Flush { verdicts: verdicts.to_vec(), ..Flush::default() };
        let mut keys = HashSet::default();
        while let Some(record) = merge.next().await.unwrap() {
            if record.partition == 0 && self.parks.contains(&record.offset) {
                let (keys, reason) = (Vec::new(), Some("bad".to_owned()));
                flush.parking.park.push(ParkedEvent { record, keys, reason });
                continue;
            }
            if let Outcome::Applied(written) = fold.fold(&record).unwrap().outcome {
                keys.extend(written);
            }
        }
        let generation = self.parts.target.status().await.unwrap().generation;
        let writer = self.parts.target.writer(generation).await.unwrap();
        for key in keys {
            let state = fold.state(&key).unwrap();
            let version = writer.load(std::slice::from_ref(&key)).await.unwrap().remove(0).version;
            if state.row.is_none() && version == Version::Absent && !writer.keeps_marks() {
                continue;
            }
            let marks = if writer.keeps_marks() { state.marks } else { Default::default() };
            flush.writes.push(RowWrite { key, row: state.row, version, marks });
        }
        for (info, reached) in infos.iter().zip(&mut self.reached) {
            if moves {
                let epoch = self.store.positions("t")[0].epoch;
                let (partition, from) = (info.partition.clone(), *reached);
                flush.advances.push(Advance { partition, epoch, from, to: info.high });
                *reached = info.high;
            }
        }
        let written = writer.write(&flush).await.unwrap();
        assert!(matches!(written, foldline_api::sink::Written::Durable(_)), "{written:?}");
    }
}
