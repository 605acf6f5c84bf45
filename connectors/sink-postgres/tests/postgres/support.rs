//! A table, its books and a second session beside them.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use foldline_api::column::ColumnType;
use foldline_api::json;
use foldline_api::model::{Column, Key, Model, Row};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{
    Advance, Beginning, Flush, Lease, Marks, OnChange, RowWrite, Target, TargetSpec, Version,
    Versions, Writer, Written,
};
use foldline_api::value::Value;
use foldline_sink_postgres::{PostgresConfig, PostgresTarget};
use serde_json::json;
use tokio_postgres::{Client, NoTls};

pub(crate) fn url() -> String {
    std::env::var("DATABASE_URL").expect("DATABASE_URL must name a PostgreSQL to test against")
}

/// What PostgreSQL's own tool writes of a database.
pub(crate) fn dump(url: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("pg_dump").arg(url).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Reads it back into a database.
pub(crate) fn load(url: &str, dump: &[u8]) {
    let mut psql = Command::new("psql")
        .args(["-qX", "-v", "ON_ERROR_STOP=1", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    psql.stdin.take().unwrap().write_all(dump).unwrap();
    assert!(psql.wait().unwrap().success());
}

pub(crate) async fn session() -> Client {
    let (client, connection) = tokio_postgres::connect(&url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// One test's schema, for the table and for the books.
pub(crate) struct Fixture {
    pub(crate) schema: String,
    pub(crate) sql: Client,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let schema = self.schema.clone();
        let remove = async move {
            let drop = format!(
                "SET client_min_messages = warning; SET lock_timeout = '5s'; DROP SCHEMA IF EXISTS \
                 {schema}, {schema}_books CASCADE"
            );
            let _ = session().await.batch_execute(&drop).await;
        };
        let thread = std::thread::spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(remove);
        });
        let _ = thread.join();
    }
}

pub(crate) fn column(name: &str, ty: &str) -> Column {
    let ty = ColumnType::parse(ty).unwrap();
    Column { name: name.into(), ty, index: false, default: Value::Null }
}

pub(crate) fn model(columns: &[(&str, &str)]) -> Model {
    let columns = columns.iter().map(|(name, ty)| column(name, ty)).collect();
    Model { columns, key: vec![0], indexes: Vec::new() }
}

pub(crate) fn orders() -> Model {
    model(&[("id", "bigint"), ("amount", "bigint"), ("note", "varchar(9)")])
}

/// A sink whose books are in this schema.
pub(crate) fn config_of(schema: &str) -> PostgresConfig {
    PostgresConfig {
        url: url(),
        password: None,
        ca: None,
        cert: None,
        key: None,
        connections: 8,
        schema: schema.to_owned(),
        statement_timeout: Duration::from_secs(25),
    }
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nanos = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() % 1_000_000_000_000;
        let schema = format!("fl_test_{nanos}_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Fixture { schema, sql: session().await }
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.sql.batch_execute(&sql.replace("{s}", &self.schema)).await.unwrap();
    }

    pub(crate) async fn text(&self, sql: &str) -> String {
        let sql = format!("SELECT ({})::text", sql.replace("{s}", &self.schema));
        self.sql.query_one(&sql, &[]).await.unwrap().get::<_, Option<String>>(0).unwrap_or_default()
    }

    pub(crate) fn spec(&self, model: Model) -> TargetSpec {
        let columns: Vec<_> = model
            .columns
            .iter()
            .map(|column| json!({"name": &*column.name, "type": column.ty.to_string()}))
            .collect();
        let key: Vec<_> = model.key_columns().map(|c| json!({"name": &*c.name})).collect();
        let projection = json!({"columns": columns, "key": key});
        TargetSpec {
            worker: "foldline".into(),
            connector: self.schema.clone(),
            group: "foldline-orders".into(),
            log: "cluster-1".into(),
            target: format!("{}.orders", self.schema),
            fingerprint: projection.to_string(),
            model: Arc::new(model),
            joins: None,
            projection,
            on_change: OnChange::Refuse,
            auto_create: true,
            mapping: None,
            settings: None,
            expire: None,
        }
    }

    pub(crate) fn config(&self) -> PostgresConfig {
        config_of(&format!("{}_books", self.schema))
    }

    pub(crate) fn target(&self, spec: TargetSpec) -> PostgresTarget {
        PostgresTarget::new(self.config(), spec).unwrap()
    }

    /// An open target with a writer that holds partition 0.
    pub(crate) async fn writer(&self, model: Model) -> Held {
        let target = self.target(self.spec(model.clone()));
        let generation = target.open().await.unwrap().generation;
        Held::new(&target, generation, model).await
    }
}

pub(crate) fn part(partition: i32) -> TopicPartition {
    TopicPartition::new("es-orders", partition)
}

pub(crate) fn claim(partition: i32) -> Beginning {
    Beginning {
        partition: part(partition),
        topic_id: Some("topic-1".into()),
        position: Position(0),
    }
}

pub(crate) fn key(id: i64) -> Key {
    Key::new(vec![Value::Int(id)])
}

pub(crate) fn row(id: i64, amount: i64, note: &str) -> Row {
    Row::new(vec![Value::Int(id), Value::Int(amount), Value::text(note)])
}

pub(crate) fn put(row: Row, version: Version) -> RowWrite {
    RowWrite {
        key: Key::new(vec![row.get(0).clone()]),
        row: Some(row),
        version,
        marks: Marks::new(),
    }
}

pub(crate) fn delete(id: i64, version: Version) -> RowWrite {
    RowWrite { key: key(id), row: None, version, marks: Marks::new() }
}

pub(crate) fn parse(ty: &ColumnType, text: &str) -> Value {
    ty.coerce(json::parse(text.as_bytes()).unwrap()).unwrap()
}

/// A writer and the partition that it holds.
pub(crate) struct Held {
    pub(crate) writer: Arc<dyn Writer>,
    pub(crate) lease: Lease,
    pub(crate) model: Model,
}

impl Held {
    pub(crate) async fn new(target: &dyn Target, generation: u64, model: Model) -> Self {
        let writer = target.writer(generation).await.unwrap();
        let lease = writer.acquire(&[claim(0)]).await.unwrap().leases.remove(0);
        Held { writer, lease, model }
    }

    /// A flush that moves the position by one.
    pub(crate) fn flush(&self, writes: Vec<RowWrite>) -> Flush {
        let Lease { partition, epoch, position } = self.lease.clone();
        let advance = Advance { partition, epoch, from: position, to: Position(position.0 + 1) };
        Flush { advances: vec![advance], writes, ..Flush::default() }
    }

    pub(crate) async fn write(&mut self, writes: Vec<RowWrite>) -> Written {
        let flush = self.flush(writes);
        self.send(flush).await
    }

    pub(crate) async fn send(&mut self, flush: Flush) -> Written {
        let written = self.writer.write(&flush).await.unwrap();
        if matches!(written, Written::Durable(_)) {
            self.lease.position = flush.advances[0].to;
        }
        written
    }

    /// Writes, and returns the version of the flush.
    pub(crate) async fn durable(&mut self, writes: Vec<RowWrite>) -> Version {
        match self.write(writes).await {
            Written::Durable(Versions::All(version)) => version,
            other => panic!("not durable: {other:?}"),
        }
    }

    pub(crate) async fn load(&self, id: i64) -> (Option<Row>, Version) {
        let loaded = self.writer.load(&[key(id)]).await.unwrap().remove(0);
        (loaded.row, loaded.version)
    }
}

/// Asks `sql` until it says true.
pub(crate) async fn wait_for(sql: &Client, question: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !sql.query_one(question, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(Instant::now() < deadline, "still not: {question}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
