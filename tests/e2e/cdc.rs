//! A real change stream: Debezium reads PostgreSQL, Foldline folds what it writes, and the mirrored tables and indexes are the source's,
//! while the worker is killed.

use foldline_api::model::Model;
use foldline_testkit::Rng;
use foldline_testkit::contract::model_of;
use serde_json::{Value, json};

use crate::support::debezium::Debezium;
use crate::support::registry::Registry;
use crate::support::setup::{Setup, connector, elasticsearch_sink, postgres_sink};
use crate::support::stores::{query, query_with};
use crate::support::{servers, typed};
use crate::support::{use_servers, wait};

/// Of each kind of type; `toast` is stored out of line, so that an update which leaves it alone does not send it.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("id", "bigint primary key", "bigint"),
    ("name", "text not null", "text"),
    ("n", "integer not null default 7", "integer"),
    ("small", "smallint", "smallint"),
    ("price", "numeric(12,2)", "numeric(12,2)"),
    ("big", "numeric", "numeric"),
    ("ratio", "double precision", "double precision"),
    ("ok", "boolean", "boolean"),
    ("at", "timestamptz", "timestamptz"),
    ("local", "timestamp", "timestamptz"),
    ("millis", "timestamp(3)", "timestamptz"),
    ("day", "date", "date"),
    ("clock", "time", "time"),
    ("uid", "uuid", "uuid"),
    ("doc", "jsonb", "jsonb"),
    ("blob", "bytea", "bytea"),
    ("tags", "text[]", "text[]"),
    ("toast", "text", "text"),
];

/// `whole` has REPLICA IDENTITY FULL, `plain` has not.
const TABLES: [&str; 2] = ["whole", "plain"];

fn tables() -> String {
    let columns: Vec<String> =
        COLUMNS.iter().map(|(name, source, _)| format!("{name} {source}")).collect();
    let columns = columns.join(", ");
    let table = |name: &&str| {
        format!(
            "create table {name} ({columns}); alter table {name} alter toast set storage external;"
        )
    };
    let tables: String = TABLES.iter().map(table).collect();
    format!("{tables} alter table whole replica identity full;")
}

/// A value of a column, in SQL.
fn value(rng: &mut Rng, column: &str) -> String {
    let nullable = !matches!(column, "name" | "n");
    if nullable && rng.chance(150) {
        return "null".to_owned();
    }
    let n = rng.next_u64();
    let day = format!("20{:02}-{:02}-{:02}", n % 40, 1 + n / 7 % 12, 1 + n / 91 % 28);
    let clock = format!("{:02}:{:02}:{:02}", n % 24, n / 5 % 60, n / 11 % 60);
    match column {
        "name" => format!("'größer ''{}'' \\ \"{}\"'", n % 1_000, n % 7),
        "n" => format!("{}", n as i32),
        "small" => format!("{}", n as i16),
        "price" => format!(
            "{}{}.{:02}",
            if n.is_multiple_of(2) { "-" } else { "" },
            n % 10_000_000_000,
            n / 3 % 100
        ),
        "big" => format!("{n}{n}.{:07}", n % 10_000_000),
        "ratio" => format!("{}::double precision / 7", n as i32),
        "ok" => n.is_multiple_of(2).to_string(),
        "at" => format!("'{day} {clock}.{:06}+02'", n % 1_000_000),
        "local" => format!("'{day} {clock}.{:06}'", n % 1_000_000),
        "millis" => format!("'{day} {clock}.{:03}'", n % 1_000),
        "day" => format!("'{day}'"),
        "clock" => format!("'{clock}.{:06}'", n % 1_000_000),
        "uid" => format!("'00000000-0000-4000-8000-{:012x}'", n & 0xffff_ffff_ffff),
        "doc" => format!(r#"'{{"a":{},"b":["x",null,{{"c":"{}"}}],"d":1.25}}'"#, n % 100, n % 9),
        "blob" => format!("decode('{n:016x}ff00', 'hex')"),
        "tags" => format!("array['a{}', null, 'größer, \"b\"']", n % 5),
        _ => format!("repeat('{n:016x}', {})", 200 + n % 300),
    }
}

/// Random transactions over one table.
struct Transactions {
    rng: Rng,
    table: &'static str,
    ids: Vec<u64>,
    next: u64,
}

impl Transactions {
    fn new(seed: u64, table: &'static str) -> Self {
        Transactions { rng: Rng::new(seed), table, ids: Vec::new(), next: 1 }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.ids.push(self.next);
        self.next
    }

    fn pick(&mut self) -> Option<usize> {
        let count = self.ids.len() as u64;
        (count > 0).then(|| usize::try_from(self.rng.below(count)).unwrap())
    }

    fn insert(&mut self) -> String {
        let names: Vec<&str> = COLUMNS.iter().map(|(name, ..)| *name).collect();
        let id = self.fresh();
        let values: Vec<String> =
            names[1..].iter().map(|name| value(&mut self.rng, name)).collect();
        format!(
            "insert into {} ({}) values ({id}, {});",
            self.table,
            names.join(", "),
            values.join(", ")
        )
    }

    /// Some columns; one in ten touches the one that is stored out of line.
    fn update(&mut self, id: u64) -> String {
        let toast = self.rng.chance(100);
        let mut sets = Vec::new();
        for (name, ..) in &COLUMNS[1..] {
            if if *name == "toast" { toast } else { self.rng.chance(250) } {
                sets.push(format!("{name} = {}", value(&mut self.rng, name)));
            }
        }
        if sets.is_empty() {
            sets.push("n = n + 1".to_owned());
        }
        format!("update {} set {} where id = {id};", self.table, sets.join(", "))
    }

    fn statement(&mut self) -> String {
        let Some(at) = self.pick() else { return self.insert() };
        let (id, table) = (self.ids[at], self.table);
        match self.rng.below(100) {
            0..30 => self.insert(),
            30..80 => self.update(id),
            80..90 => {
                self.ids.swap_remove(at);
                format!("delete from {table} where id = {id};")
            }
            _ => {
                self.ids.swap_remove(at);
                let new = self.fresh();
                // A moved row is a new one to Debezium: what it did not send nobody has (see the end).
                let toast = value(&mut self.rng, "toast");
                let toast =
                    if table == "plain" { format!(", toast = {toast}") } else { String::new() };
                format!("update {table} set id = {new}{toast} where id = {id};")
            }
        }
    }

    fn next(&mut self) -> String {
        let count = 1 + self.rng.below(5);
        let statements: String = (0..count).map(|_| self.statement()).collect();
        format!("begin; {statements} commit;")
    }
}

/// What Debezium writes, and how it is read.
struct Shape {
    name: &'static str,
    /// Of the Debezium connector.
    options: Value,
    converter: &'static str,
    envelope: &'static str,
}

impl Shape {
    fn kind(&self, kind: &'static str) -> &'static str {
        if kind == "jsonb" && self.converter == "json" { "text" } else { kind }
    }

    fn columns(&self) -> Vec<(&'static str, &'static str)> {
        COLUMNS.iter().map(|(name, _, kind)| (*name, self.kind(kind))).collect()
    }

    fn model(&self) -> Model {
        model_of(&self.columns(), 1)
    }
}

/// By Apicurio's converter: keys in Confluent's frame, values whose schema a header names.
fn in_avro(registry: &Registry) -> Value {
    let mut options = json!({ "schema.name.adjustment.mode": "avro" });
    for side in ["key", "value"] {
        let url = registry.url().replace("/apis/ccompat/v7", "/apis/registry/v2");
        for (name, value) in [
            ("", "io.apicurio.registry.utils.converter.AvroConverter"),
            (".apicurio.registry.url", &url),
            (".apicurio.registry.auto-register", "true"),
            (".apicurio.registry.find-latest", "true"),
        ] {
            options[format!("{side}.converter{name}")] = json!(value);
        }
    }
    options["key.converter.apicurio.registry.as-confluent"] = json!("true");
    options["key.converter.apicurio.registry.headers.enabled"] = json!("false");
    options["value.converter.apicurio.registry.headers.enabled"] = json!("true");
    options
}

fn shapes(registry: &Registry) -> Vec<Shape> {
    let texts = json!({ "decimal.handling.mode": "string", "time.precision.mode": "isostring" });
    let mut schemas = json!({});
    for side in ["key", "value"] {
        schemas[format!("{side}.converter")] = json!("org.apache.kafka.connect.json.JsonConverter");
        schemas[format!("{side}.converter.schemas.enable")] = json!("true");
    }
    let mut flat = texts.clone();
    flat["transforms"] = json!("flat");
    flat["transforms.flat.type"] = json!("io.debezium.transforms.ExtractNewRecordState");
    flat["transforms.flat.delete.tombstone.handling.mode"] = json!("rewrite");
    vec![
        Shape { name: "texts", options: texts, converter: "json", envelope: "debezium" },
        Shape {
            name: "schemas",
            options: schemas,
            converter: "connect-json",
            envelope: "debezium",
        },
        Shape { name: "flat", options: flat, converter: "json", envelope: "debezium-flat" },
        Shape { name: "avro", options: in_avro(registry), converter: "avro", envelope: "debezium" },
    ]
}

/// A source, and for each table a projection and the connectors that mirror it, into a table and an index.
fn config(setup: &Setup, shape: &Shape) -> String {
    let (name, prefix) = (shape.name, setup.name(shape.name));
    let converter = shape.converter;
    let mut text = format!(
        "[sources.{name}]\ntype = \"kafka\"\nbootstrap_servers = {:?}\nkey = {converter:?}\nvalue = {converter:?}\n\
         [sources.{name}.properties]\n\"session.timeout.ms\" = 6000\n\"heartbeat.interval.ms\" = 1000\n\
         [sources.{name}.topics.{:?}]\nreplica_identity = \"full\"\n",
        servers::kafka(),
        format!("{prefix}.public.whole"),
    );
    for table in TABLES {
        let projection = format!("{name}_{table}");
        let columns = shape.columns().into_iter();
        let fields: Vec<String> =
            columns.map(|(name, kind)| format!("{name} = {kind:?}")).collect();
        text += &format!(
            "[projections.{projection}]\ntopics = [\"{prefix}.public.{table}\"]\nenvelope = {:?}\n\
             key = {{ id = \"event.id\" }}\n[projections.{projection}.fields]\n{}\n\
             [[projections.{projection}.on]]\nset = \"event\"\n",
            shape.envelope,
            fields.join("\n"),
        );
        let more = format!("source = {name:?}");
        let (docs, target) = (docs(&projection), setup.name(&projection));
        text += &connector(&projection, &projection, "warehouse", &target, &more);
        text += &connector(&docs, &projection, "search", &target, &more);
    }
    text
}

fn connectors(shapes: &[Shape]) -> Vec<String> {
    let of = |shape: &Shape| TABLES.map(|table| format!("{}_{table}", shape.name));
    shapes.iter().flat_map(of).flat_map(|name| [docs(&name), name]).collect()
}

/// The connector into an index, beside the one into a table.
fn docs(name: &str) -> String {
    format!("{name}_docs")
}

fn selected(utc: &str) -> String {
    let column = |(name, source, _): &(&str, &str, &str)| match *name {
        // Without schemas its value is a text.
        "doc" => "doc::jsonb".to_owned(),
        // A number, not the zeros behind it.
        "big" => "trim_scale(big)".to_owned(),
        "local" | "millis" if source.starts_with("timestamp") => {
            format!("({name}{utc})::timestamptz")
        }
        _ => (*name).to_owned(),
    };
    let columns: Vec<String> = COLUMNS.iter().map(column).collect();
    columns.join(", ")
}

/// Each mirror is its table, by SELECTs on both sides, and the index is the mirror.
async fn assert_mirrored(setup: &Setup, client: &tokio_postgres::Client, shapes: &[Shape]) {
    for table in TABLES {
        let wanted = query_with(
            client,
            &format!("select {} from {table} order by id", selected(" at time zone 'UTC'")),
        )
        .await;
        assert!(wanted.len() > 20, "{} rows", wanted.len());
        for shape in shapes {
            let mirror = setup.name(&format!("{}_{table}", shape.name));
            let sql = format!("select {} from {mirror} order by id", selected(""));
            wait::until(&format!("{mirror} is {table}"), wait::SOON, async || {
                let found = query(&sql).await;
                if found == wanted {
                    return Ok(());
                }
                let differs = wanted.iter().find(|row| !found.contains(row));
                let as_found =
                    differs.and_then(|row| found.iter().find(|other| other[0] == row[0]));
                Err(format!(
                    "{} of {} rows\nwanted {differs:?}\nfound {as_found:?}",
                    found.len(),
                    wanted.len()
                ))
            })
            .await;
            let model = shape.model();
            let rows = typed::postgres(&mirror, &model).await;
            wait::until(&format!("the index {mirror} is the table"), wait::SOON, async || {
                let found = typed::elasticsearch(&mirror, &model).await;
                let differs = rows.iter().find(|(key, row)| found.get(*key) != Some(row));
                match differs {
                    None if found.len() == rows.len() => Ok(()),
                    differs => Err(format!("{} of {} rows, {differs:?}", found.len(), rows.len())),
                }
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_mirrored_through_debezium_is_the_table_while_the_worker_is_killed() {
    let _servers = use_servers().await;
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let setup = Setup::new();
    // Both take their time.
    let registry = tokio::task::spawn_blocking(Registry::start);
    let mut debezium = Debezium::start(&setup.name("cdc")).await;
    let registry = registry.await.unwrap();
    let client = debezium.client().await;
    client.batch_execute(&tables()).await.unwrap();
    let mut writers = [Transactions::new(seed, "whole"), Transactions::new(seed ^ 1, "plain")];
    let mut write = async |count: usize| {
        for _ in 0..count {
            for writer in &mut writers {
                let sql = writer.next();
                client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            }
        }
    };
    // What is there before is read as a snapshot.
    write(20).await;
    let shapes = shapes(&registry);
    for shape in &shapes {
        debezium.read(&setup.name(shape.name), "public.whole,public.plain", &shape.options).await;
    }
    let server = format!("[registries.main]\ntype = \"confluent\"\nurl = {:?}\n", registry.url());
    let mut parts = vec![postgres_sink(), elasticsearch_sink(), server];
    parts.extend(shapes.iter().map(|shape| config(&setup, shape)));
    setup.config(&parts);
    let mut kills = 0;
    for _ in 0..4 {
        let daemon = setup.start().await;
        write(50).await;
        daemon.metric("avro_whole", "records_consumed_total", |consumed| consumed > 0).await;
        daemon.kill9();
        kills += 1;
        write(25).await;
    }
    println!("{kills} kills");
    let daemon = setup.start().await;
    for name in connectors(&shapes) {
        daemon.metric(&name, "generation", |generation| generation > 0).await;
    }
    assert_mirrored(&setup, &client, &shapes).await;
    // A row that moves is a new one to Debezium, which does not send what lies out of line and did not change: nobody has it.
    for sql in [
        "insert into plain (id, name, toast) values (1000001, 'a', repeat('x', 5000))",
        "update plain set id = 1000002 where id = 1000001",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    let plain = |name: &str| u64::from(name.contains("_plain"));
    for name in connectors(&shapes) {
        let wanted = plain(&name);
        daemon.metric(&name, "events_dead_lettered_total", |letters| letters == wanted).await;
    }
    // Of an index it says nothing more than that it is the table, which was seen.
    for name in connectors(&shapes).into_iter().filter(|name| !name.ends_with("_docs")) {
        let printed = daemon.cli(&["verify", &name]);
        assert_eq!(printed.code, Some(0), "{printed:?}");
    }
    let metrics = daemon.metrics().await;
    for name in connectors(&shapes) {
        assert_eq!(metrics.of(&name, "events_dead_lettered_total"), plain(&name), "{name}");
    }
    daemon.stop().await;
    drop(client);
    debezium.end().await;
    setup.clean().await;
}
