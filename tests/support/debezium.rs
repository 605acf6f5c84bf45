//! A database that Debezium reads, and Kafka Connect with its source (tests/services/connect).

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::servers::{self, required, run};
use super::stores::{postgres, postgres_at};
use super::wait;

/// Connect, running, and a database of its own.
pub(crate) struct Debezium {
    connect: String,
    database: String,
    http: reqwest::Client,
    sources: Vec<String>,
}

fn service(action: &str) -> String {
    run(Command::new(PathBuf::from(required("FOLDLINE_KAFKA_BIN")).join("connect")).arg(action))
}

impl Debezium {
    /// Starts Connect, and makes `database`.
    pub(crate) async fn start(database: &str) -> Self {
        postgres().await.batch_execute(&format!("create database {database}")).await.unwrap();
        let connect = service("start").trim().to_owned();
        let (database, http) = (database.to_owned(), crate::support::http(wait::SOON));
        Debezium { connect, database, http, sources: Vec::new() }
    }

    fn url(&self) -> String {
        let tests = servers::postgres();
        let (server, _) = tests.rsplit_once('/').unwrap();
        format!("{server}/{}", self.database)
    }

    /// A connection to the database that is read.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        postgres_at(&self.url()).await
    }

    /// Begins to read the database's `tables` into topics `<name>.public.<table>`, with `more` in the connector's config; it runs
    /// when this returns.
    pub(crate) async fn read(&mut self, name: &str, tables: &str, more: &Value) {
        let url: tokio_postgres::Config = self.url().parse().unwrap();
        let [tokio_postgres::config::Host::Tcp(host)] = url.get_hosts() else { panic!("{url:?}") };
        let slot = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let mut config = json!({
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "database.hostname": host,
            "database.port": url.get_ports()[0].to_string(),
            "database.user": url.get_user(),
            "database.password": String::from_utf8(url.get_password().unwrap().to_vec()).unwrap(),
            "database.dbname": self.database,
            "topic.prefix": name,
            "table.include.list": tables,
            "plugin.name": "pgoutput",
            "slot.name": slot,
            "slot.drop.on.stop": "true",
            "publication.name": slot,
            "publication.autocreate.mode": "filtered",
            "topic.creation.default.partitions": "3",
            "topic.creation.default.replication.factor": "1",
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        let (status, answer) =
            self.request("POST", "", Some(json!({ "name": name, "config": config }))).await;
        assert_eq!(status, 201, "{answer}");
        self.sources.push(name.to_owned());
        wait::until("Debezium reads", wait::SOON, async || {
            let (_, status) = self.request("GET", &format!("/{name}/status"), None).await;
            match status["tasks"][0]["state"].as_str() {
                Some("RUNNING") => Ok(()),
                _ => Err(status.to_string()),
            }
        })
        .await;
    }

    async fn request(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("{}/connectors{path}", self.connect);
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, &url);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap_or_else(|error| panic!("{url}: {error}"));
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    /// Stops Connect and drops the database.
    pub(crate) async fn end(self) {
        for name in &self.sources {
            self.request("DELETE", &format!("/{name}"), None).await;
        }
        service("stop");
        let database = &self.database;
        let client = postgres().await;
        let slots = format!(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '{database}' and not active"
        );
        client.batch_execute(&slots).await.unwrap();
        client.batch_execute(&format!("drop database {database} with (force)")).await.unwrap();
    }
}
