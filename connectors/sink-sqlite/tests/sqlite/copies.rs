//! Copies of a log: the contract, and a fold by several workers whose transactions are lost, fenced and left without an answer.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use foldline_api::model::{Key, Row};
use foldline_api::record::Position;
use foldline_api::sink::{Acquired, Flush, RowWrite, Target, TargetSpec, Version, Writer, Written};
use foldline_api::value::Value;
use foldline_api::{Error, ErrorClass, Result};
use foldline_sink_sqlite::{Changes, Entry, Journal, Replica, Rows, SqliteTarget, Stands};
use foldline_testkit::Rng;
use foldline_testkit::contract::{claim, model_of, row, spec_of};

type State = (Key, Option<Row>);

/// What a transaction made durable.
#[derive(Clone, Debug, Default)]
struct Done {
    entries: Vec<Entry>,
    states: Vec<State>,
}

/// A log that keeps whole transactions of whoever began last.
#[derive(Debug, Default)]
struct Log {
    done: Vec<Done>,
    charge: u64,
}

impl Log {
    fn states(&self) -> BTreeMap<Key, Row> {
        let mut out = BTreeMap::new();
        for (key, row) in self.done.iter().flat_map(|done| &done.states) {
            match row {
                Some(row) => out.insert(key.clone(), row.clone()),
                None => out.remove(key),
            };
        }
        out
    }
}

#[derive(Default)]
struct Place {
    entries: usize,
    states: usize,
    charge: Option<u64>,
}

/// One process at the log.
struct Process {
    log: Arc<Mutex<Log>>,
    place: Mutex<Place>,
    /// Of a thousand transactions so many fail, one half of them after they were made durable.
    faults: u64,
    rng: Mutex<Rng>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Process")
    }
}

impl Process {
    fn new(log: &Arc<Mutex<Log>>, faults: u64, seed: u64) -> Arc<Self> {
        let (log, rng) = (Arc::clone(log), Mutex::new(Rng::new(seed)));
        Arc::new(Process { log, place: Mutex::default(), faults, rng })
    }

    fn read_entries(place: &mut Place, log: &Log, replica: &Replica<'_>) -> Result<()> {
        for entry in log.done.iter().skip(place.entries).flat_map(|done| &done.entries) {
            replica.put_entry(&entry.table, &entry.key, entry.row.as_deref())?;
        }
        if log.done.len() > place.entries {
            place.charge = place.charge.filter(|mine| *mine == log.charge);
        }
        place.entries = log.done.len();
        if replica.settle(Stands::Same)? {
            place.states = 0;
        }
        Ok(())
    }

    fn read_states(place: &mut Place, log: &Log, replica: &Replica<'_>) -> Result<()> {
        if replica.has_table()? {
            for done in log.done.iter().skip(place.states) {
                replica.put_rows(&done.states)?;
            }
        }
        place.states = log.done.len();
        Ok(())
    }
}

impl Journal for Process {
    fn forget(&self) {
        *self.place.lock().unwrap() = Place::default();
    }

    fn has_charge(&self) -> bool {
        self.place.lock().unwrap().charge.is_some()
    }

    fn is_current(&self) -> Result<bool> {
        Ok(self.place.lock().unwrap().charge == Some(self.log.lock().unwrap().charge))
    }

    fn follow(&self, replica: &Replica<'_>) -> Result<()> {
        Self::read_entries(&mut self.place.lock().unwrap(), &self.log.lock().unwrap(), replica)
    }

    fn take_charge(&self, replica: &Replica<'_>) -> Result<()> {
        let (mut place, mut log) = (self.place.lock().unwrap(), self.log.lock().unwrap());
        log.charge += 1;
        place.charge = None;
        Self::read_entries(&mut place, &log, replica)?;
        Self::read_states(&mut place, &log, replica)?;
        place.charge = Some(log.charge);
        Ok(())
    }

    fn read_on(&self, replica: &Replica<'_>, _: bool) -> Result<()> {
        let (mut place, log) = (self.place.lock().unwrap(), self.log.lock().unwrap());
        if place.charge == Some(log.charge) {
            Self::read_states(&mut place, &log, replica)?;
        }
        Ok(())
    }

    fn publish(&self, replica: &Replica<'_>, changes: &Changes<'_>) -> Result<()> {
        let (mut place, mut log) = (self.place.lock().unwrap(), self.log.lock().unwrap());
        let Some(charge) = place.charge.take() else { unreachable!("without the charge") };
        if charge != log.charge {
            return Err(Error::fenced("somebody took over"));
        }
        let mut rng = self.rng.lock().unwrap();
        let fails = rng.below(1_000) < self.faults;
        if fails && rng.chance(500) {
            return Err(Error::retriable("it was lost"));
        }
        let states = match changes.rows {
            Rows::These(rows) => rows.iter().map(|it| (it.key.clone(), it.row.clone())).collect(),
            Rows::Any => {
                let (mut stands, mut states) = (log.states(), Vec::new());
                replica.each_row(|key, row| {
                    if stands.remove(&key).as_ref() != Some(&row) {
                        states.push((key, Some(row)));
                    }
                    Ok(())
                })?;
                states.extend(stands.into_keys().map(|key| (key, None)));
                states
            }
        };
        log.done.push(Done { entries: changes.entries.clone(), states });
        if fails {
            return Err(Error::retriable("nobody heard the answer"));
        }
        (place.entries, place.states) = (log.done.len(), log.done.len());
        place.charge = Some(charge);
        Ok(())
    }
}

/// Logs by the names of targets; each connection has a copy.
struct Copies {
    folder: tempfile::TempDir,
    next: AtomicU64,
    logs: Mutex<BTreeMap<String, Arc<Mutex<Log>>>>,
}

impl Copies {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Copies { folder, next: AtomicU64::new(0), logs: Mutex::default() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(format!("{}.db", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    fn log(&self, target: &str) -> Arc<Mutex<Log>> {
        Arc::clone(self.logs.lock().unwrap().entry(target.to_owned()).or_default())
    }

    fn copy(&self, spec: TargetSpec, faults: u64, seed: u64) -> SqliteTarget {
        let journal = Process::new(&self.log(&spec.target), faults, seed);
        SqliteTarget::copy(&self.path(), spec, journal).unwrap()
    }
}

/// A worker with its copy, and the partitions that it believes to hold.
struct Worker {
    target: SqliteTarget,
    writer: Arc<dyn Writer>,
    held: Option<Acquired>,
}

const PARTITIONS: i32 = 2;
const EVENTS: i64 = 40;
const KEYS: i64 = 3;

/// The key that an event counts for.
fn key_of(partition: i32, offset: i64) -> i64 {
    (offset * 7 + i64::from(partition)) % KEYS
}

struct World {
    copies: Copies,
    rng: Rng,
    spec: TargetSpec,
    seed: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let model = model_of(&[("id", "bigint"), ("changes", "bigint")], 1);
        World { copies: Copies::new(), rng: Rng::new(seed), spec: spec_of("sums", model), seed }
    }

    async fn worker(&mut self, faults: u64) -> Worker {
        let seed = self.seed.wrapping_add(self.rng.below(1 << 40));
        let target = self.copies.copy(self.spec.clone(), faults, seed);
        for _ in 0..1_000 {
            // What fails is tried again, as the worker does.
            if target.open().await.is_ok()
                && target.begin(1, &[claim(0, 0), claim(1, 0)]).await.is_ok()
                && let Ok(writer) = target.writer(1).await
            {
                return Worker { target, writer, held: None };
            }
        }
        unreachable!("seed {}: nobody can open it", self.seed)
    }

    /// One try to fold a few events of each partition; whether there was nothing left.
    async fn fold(&mut self, worker: &mut Worker) -> bool {
        let Some(held) = &mut worker.held else {
            worker.held = worker.writer.acquire(&[claim(0, 0), claim(1, 0)]).await.ok();
            return false;
        };
        let (mut flush, mut sums) = (Flush::default(), BTreeMap::new());
        for (number, lease) in (0..PARTITIONS).zip(&held.leases) {
            let from = lease.position.0;
            let to = EVENTS.min(from + self.rng.below(4).cast_signed());
            (from..to).for_each(|at| *sums.entry(key_of(number, at)).or_insert(0) += 1);
            flush.advances.push(foldline_api::sink::Advance {
                partition: lease.partition.clone(),
                epoch: lease.epoch,
                from: lease.position,
                to: Position(to),
            });
        }
        let keys: Vec<Key> = sums.keys().map(|id| Key::of(Value::Int(*id))).collect();
        let Ok(states) = worker.writer.load(&keys).await else { return false };
        for ((id, more), state) in sums.into_iter().zip(states) {
            let sum = state.row.as_ref().map_or(0, |row| match row.get(1) {
                Value::Int(sum) => *sum,
                other => unreachable!("{other:?}"),
            });
            let row = row(&self.spec.model, &[&id.to_string(), &(sum + more).to_string()]);
            flush.writes.push(RowWrite {
                key: Key::of(Value::Int(id)),
                row: Some(row),
                version: state.version,
                marks: foldline_api::sink::Marks::new(),
            });
        }
        match worker.writer.write(&flush).await {
            Ok(Written::Durable(_)) => {
                for (lease, step) in held.leases.iter_mut().zip(&flush.advances) {
                    lease.position = step.to;
                }
                held.leases.iter().all(|lease| lease.position.0 == EVENTS)
            }
            Ok(Written::Conflict { .. }) => false,
            // The outcome is unknown, or somebody else holds them.
            Ok(Written::Fenced) | Err(_) => {
                worker.held = None;
                false
            }
            Ok(Written::Rejected(error)) => unreachable!("{error}"),
        }
    }
}

fn seeds() -> std::ops::Range<u64> {
    let one = std::env::var("FOLDLINE_SEED").ok().and_then(|seed| seed.parse().ok());
    one.map_or(0..10, |seed| seed..seed + 1)
}

/// Each of the workers writes now and then, not only the one whose turn it is; they lose transactions, or their answers, and are
/// killed.
#[tokio::test]
async fn a_fold_over_copies_that_fence_each_other_is_the_plain_fold() {
    for seed in seeds() {
        let mut world = World::new(seed);
        let mut workers = Vec::new();
        for _ in 0..3 {
            workers.push(world.worker(150).await);
        }
        for _ in 0..120 {
            let at = usize::try_from(world.rng.below(3)).unwrap();
            if world.rng.chance(30) {
                workers[at] = world.worker(150).await;
            }
            world.fold(&mut workers[at]).await;
        }
        let mut last = world.worker(0).await;
        let mut left = 1_000;
        while !world.fold(&mut last).await {
            left -= 1;
            assert!(left > 0, "seed {seed}: it does not come to an end");
        }
        let mut expected = BTreeMap::new();
        for (number, at) in (0..PARTITIONS).flat_map(|n| (0..EVENTS).map(move |at| (n, at))) {
            *expected.entry(key_of(number, at)).or_insert(0_i64) += 1;
        }
        let log = world.copies.log("sums");
        let states = log.lock().unwrap().states();
        let found: BTreeMap<i64, i64> = (states.values())
            .map(|row| match (row.get(0), row.get(1)) {
                (Value::Int(id), Value::Int(sum)) => (*id, *sum),
                other => unreachable!("{other:?}"),
            })
            .collect();
        assert_eq!(found, expected, "seed {seed}");
        let positions = last.target.status().await.unwrap().positions;
        assert!(positions.iter().all(|stored| stored.position.0 == EVENTS), "seed {seed}");
        // What one has read of it is what all see.
        let loaded = workers[0].writer.load(&[Key::of(Value::Int(0))]).await.unwrap();
        assert_ne!(loaded[0].version, Version::Absent, "seed {seed}");
    }
}

#[tokio::test]
async fn a_worker_that_changes_nothing_takes_no_charge() {
    let copies = Copies::new();
    let spec = spec_of("quiet", model_of(&[("id", "bigint")], 1));
    let first = copies.copy(spec.clone(), 0, 1);
    first.open().await.unwrap();
    let charge = || copies.log("quiet").lock().unwrap().charge;
    let before = charge();
    let second = copies.copy(spec.clone(), 0, 2);
    second.open().await.unwrap();
    second.status().await.unwrap();
    let mut stranger = spec;
    stranger.connector = "stranger".to_owned();
    let stranger = copies.copy(stranger, 0, 3);
    let error = stranger.open().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    assert_eq!(charge(), before);
}
