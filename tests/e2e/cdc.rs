//! A real change stream: Debezium reads PostgreSQL, Foldline folds what it writes, and the mirrored tables are the source's, while
//! the worker is killed.

use foldline_testkit::Rng;
use serde_json::{Value, json};

use crate::support::debezium::Debezium;
use crate::support::servers;
use crate::support::setup::{Setup, connector, postgres_sink};
use crate::support::stores::{query, query_with};
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
}

fn shapes() -> Vec<Shape> {
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
    ]
}

/// A source, and for each table a projection and a connector that mirror it.
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
        let fields: Vec<String> = COLUMNS
            .iter()
            .map(|(name, _, kind)| format!("{name} = {:?}", shape.kind(kind)))
            .collect();
        text += &format!(
            "[projections.{projection}]\ntopics = [\"{prefix}.public.{table}\"]\nenvelope = {:?}\n\
             key = {{ id = \"event.id\" }}\n[projections.{projection}.fields]\n{}\n\
             [[projections.{projection}.on]]\nset = \"event\"\n",
            shape.envelope,
            fields.join("\n"),
        );
        let more = format!("source = {name:?}");
        text += &connector(&projection, &projection, "warehouse", &setup.name(&projection), &more);
    }
    text
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

/// Each mirror is its table, by SELECTs on both sides.
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
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_mirrored_through_debezium_is_the_table_while_the_worker_is_killed() {
    let _servers = use_servers().await;
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let setup = Setup::new();
    let mut debezium = Debezium::start(&setup.name("cdc")).await;
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
    let shapes = shapes();
    for shape in &shapes {
        debezium.read(&setup.name(shape.name), "public.whole,public.plain", &shape.options).await;
    }
    let mut parts = vec![postgres_sink()];
    parts.extend(shapes.iter().map(|shape| config(&setup, shape)));
    setup.config(&parts);
    let mut kills = 0;
    for _ in 0..4 {
        let daemon = setup.start().await;
        write(50).await;
        daemon.kill9();
        kills += 1;
        write(25).await;
    }
    println!("{kills} kills");
    let daemon = setup.start().await;
    assert_mirrored(&setup, &client, &shapes).await;
    // A row that moves is a new one to Debezium, which does not send what lies out of line and did not change: nobody has it.
    for sql in [
        "insert into plain (id, name, toast) values (1000001, 'a', repeat('x', 5000))",
        "update plain set id = 1000002 where id = 1000001",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    for shape in &shapes {
        let name = format!("{}_plain", shape.name);
        daemon.metric(&name, "events_dead_lettered_total", |letters| letters == 1).await;
    }
    for shape in &shapes {
        for table in TABLES {
            let name = format!("{}_{table}", shape.name);
            let printed = daemon.cli(&["verify", &name]);
            assert_eq!(printed.code, Some(0), "{printed:?}");
            let letters = u64::from(table == "plain");
            assert_eq!(
                daemon.metrics().await.of(&name, "events_dead_lettered_total"),
                letters,
                "{name}"
            );
        }
    }
    daemon.stop().await;
    drop(client);
    debezium.end().await;
    setup.clean().await;
}
