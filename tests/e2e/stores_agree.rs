//! The language means the same in every store: random projections over random events give the same rows, as typed values, in
//! PostgreSQL, Elasticsearch, SQLite and a plain fold of one event at a time; whatever the sizes of batches and caches, and
//! with the worker killed and stopped in between.
//!
//! A failing seed prints itself; `FOLDLINE_SEED=N` runs it alone, `FOLDLINE_SEEDS=N` runs that many.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldline::config::{Config, load, process_env};
use foldline_api::model::Key;
use foldline_api::record::Record;
use foldline_language::converter::{Decoder, Format};
use foldline_language::projection::{Effects, Projection, StateRef, States};
use foldline_source_file::FileProducer;
use foldline_testkit::Rng;

use crate::support::random::Case;
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, file_source, postgres_sink, sqlite_sink,
};
use crate::support::typed::{self, Typed};
use crate::support::use_servers;

/// Projections that one worker runs, each into three stores.
const CASES: usize = 4;
const SINKS: [&str; 3] = ["warehouse", "search", "file"];
/// The log comes in so many parts, with a restart after each but the last.
const PARTS: usize = 4;

struct Plain(Typed);

impl States for Plain {
    fn get(&self, key: &Key) -> Option<StateRef<'_>> {
        Some(StateRef { row: self.0.get(key) })
    }
}

/// The plain fold: one event, then the next, no batch and no cache. Returns rows, and how many records are bad.
fn plain(projection: &Projection, records: &[Record]) -> (Typed, u64) {
    let decoder = Decoder {
        key: projection.reads_key().then_some(Format::Text),
        value: Format::Json,
        mask: projection.mask().clone(),
        slots: projection.slots(),
        opener: None,
    };
    let (mut rows, mut bad) = (Plain(BTreeMap::new()), 0);
    for record in records {
        let effects = decoder.decode(record).map_err(|_| ()).and_then(|event| {
            let prepared = projection.prepare(&event).map_err(|_| ())?;
            projection.apply(&event, &prepared, &rows).map_err(|_| ())
        });
        match effects {
            Err(()) => bad += 1,
            Ok(Effects::Filtered { .. }) => {}
            Ok(Effects::Applied { writes, .. }) => {
                for (key, row) in writes {
                    match row {
                        Some(row) => rows.0.insert(key, row),
                        None => rows.0.remove(&key),
                    };
                }
            }
        }
    }
    (rows.0, bad)
}

/// One run: its cases, and where their logs stand.
struct Run {
    setup: Setup,
    rng: Rng,
    cases: Vec<(String, Case)>,
    producer: FileProducer,
    /// Every record produced so far, by case.
    log: Vec<Vec<Record>>,
    ends: BTreeMap<(String, i32), i64>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let setup = Setup::new();
        let mut rng = Rng::new(seed);
        let cases: Vec<(String, Case)> = (0..CASES)
            .map(|at| {
                let name = setup.name(&format!("p{at}"));
                let records = 200 + rng.below(1_800);
                let case = Case::new(&mut rng, &name, records);
                (name, case)
            })
            .collect();
        let producer = FileProducer::new(&setup.path("log"));
        for (_, case) in &cases {
            for topic in &case.topics {
                producer.create_topic(topic, 3).unwrap();
            }
        }
        let log = vec![Vec::new(); CASES];
        Run { setup, rng, cases, producer, log, ends: BTreeMap::new() }
    }

    /// Writes the config, with other batches and other caches each time.
    fn configure(&mut self) -> Config {
        let memory = if self.rng.chance(500) { "16MiB" } else { "256MiB" };
        let mut parts = vec![
            format!("memory = {memory:?}\n"),
            file_source(&self.setup.path("log")),
            postgres_sink(),
            elasticsearch_sink(),
            sqlite_sink(&self.setup.path("rows.db")),
        ];
        for (name, case) in &self.cases {
            parts.push(case.toml.clone());
            for sink in SINKS {
                let rows = [1, 2, 7, 60, 50_000][usize::try_from(self.rng.below(5)).unwrap()];
                let batch =
                    format!("batch = {{ rows = {rows}, age = \"{}ms\" }}", self.rng.below(20));
                parts.push(connector(&format!("{name}-{sink}"), name, sink, name, &batch));
            }
        }
        self.setup.config(&parts);
        load(&self.setup.path("config"), &process_env())
            .unwrap_or_else(|problems| panic!("{problems:#?}"))
    }

    /// Appends part `part` of every case's records.
    fn produce(&mut self, part: usize) {
        for ((_, case), log) in self.cases.iter().zip(&mut self.log) {
            let size = case.records.len().div_ceil(PARTS);
            for (topic, record) in case.records.iter().skip(part * size).take(size) {
                let partition = self.producer.append(topic, record.clone()).unwrap();
                let end = self.ends.entry((topic.clone(), partition)).or_default();
                log.push(Record {
                    topic: Arc::from(topic.as_str()),
                    partition,
                    offset: *end,
                    timestamp: record.timestamp,
                    key: record.key.clone(),
                    value: record.value.clone(),
                    headers: record.headers.clone(),
                });
                *end += 1;
            }
        }
        self.producer.sync().unwrap();
    }

    async fn compare(&self, config: &Config) -> (usize, u64) {
        let (mut rows, mut bad) = (0, 0);
        for ((name, _), log) in self.cases.iter().zip(&self.log) {
            let projection = Projection::compile(&config.projections[name]).unwrap();
            let model = projection.model();
            let (expected, faults) = plain(&projection, log);
            rows += expected.len();
            bad += faults;
            let file = self.setup.path("rows.db");
            typed::assert_same("PostgreSQL", model, &expected, &typed::postgres(name, model).await);
            typed::assert_same("SQLite", model, &expected, &typed::sqlite(&file, name, model));
            let found = typed::elasticsearch(name, model).await;
            typed::assert_same("Elasticsearch", model, &expected, &found);
        }
        (rows, bad)
    }
}

async fn run_seed(seed: u64) {
    let mut run = Run::new(seed);
    let mut config = run.configure();
    for part in 0..PARTS {
        run.produce(part);
        let daemon = run.setup.start().await;
        let connectors: Vec<String> = run
            .cases
            .iter()
            .flat_map(|(name, _)| SINKS.map(|sink| format!("{name}-{sink}")))
            .collect();
        if part + 1 == PARTS {
            for ((_, case), names) in run.cases.iter().zip(connectors.chunks(SINKS.len())) {
                for name in names {
                    daemon.idle(name, 3 * case.topics.len() as u64).await.assert_balanced(name);
                }
            }
            let (rows, bad) = run.compare(&config).await;
            println!("seed {seed}: {rows} rows, {bad} bad records, the same in every store");
            daemon.stop().await;
            break;
        }
        // Somewhere in the middle of its work, or at its end.
        let one = &connectors[usize::try_from(run.rng.below(connectors.len() as u64)).unwrap()];
        daemon.metric(one, "records_consumed_total", |consumed| consumed > 0).await;
        if run.rng.chance(600) {
            daemon.kill9();
        } else {
            daemon.stop().await;
        }
        config = run.configure();
    }
    run.setup.clean().await;
}

/// Says which seed a panic is of.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("seed {seed} failed; run it alone with FOLDLINE_SEED={seed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_projections_give_the_same_rows_in_every_store() {
    let _servers = use_servers().await;
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("FOLDLINE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FOLDLINE_SEEDS").unwrap_or(4),
    };
    for seed in seeds {
        let _named = Named(seed);
        run_seed(seed).await;
    }
}
