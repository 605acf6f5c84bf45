//! The sink as the worker knows it.

use std::sync::Arc;
use std::time::Duration;

use foldline_api::Result;
use foldline_api::kind::Sink;
use foldline_api::sink::{Target, TargetSpec};
use foldline_language::config::reader::Reader;
use foldline_language::config::schema::{duration, integer, secret, text};
use foldline_language::config::sink::{Key, SinkKind, TargetKey};

use crate::config::{PostgresConfig, check_url};
use crate::pool::CONNECTIONS_MIN;
use crate::target::{self, PostgresTarget};

/// `type = "postgres"`.
pub static KIND: SinkKind =
    SinkKind { name: "postgres", description: "PostgreSQL.", target: TargetKey::Table, keys, read };

/// Connections of a sink where its config says nothing.
const CONNECTIONS: usize = 8;
/// The schema of Foldline's own bookkeeping.
const SCHEMA_NAME: &str = "foldline";
/// Below Kafka's session timeout, so that a worker that was stopped holds no lock when its successor comes.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(25);

fn keys() -> Vec<Key> {
    let connections = "So many at most on a worker, for all its connectors; by default 8.";
    vec![
        Key::required("url", secret("postgres://user:password@host/database, or host=… user=….")),
        Key::optional("password", secret("The password, where the URL has none.")),
        Key::optional("ca", text("PEM file of the authority that signed its certificate.")),
        Key::optional("cert", text("PEM file of the client's certificate, with `key`.")),
        Key::optional("key", text("PEM file of the certificate's key, unencrypted.")),
        Key::optional("connections", integer(connections, CONNECTIONS_MIN.into())),
        Key::optional(
            "schema_name",
            text("Schema of Foldline's own bookkeeping; by default foldline."),
        ),
        Key::optional(
            "statement_timeout",
            duration("So long may a statement of a flush take; by default 25s."),
        ),
    ]
}

fn read(reader: &mut Reader<'_>) -> Option<Arc<dyn Sink>> {
    let url = read_url(reader);
    let password = reader.get("password").and_then(|field| field.secret());
    let ca = reader.get("ca").and_then(|field| field.file_path());
    let (cert_field, key_field) = (reader.get("cert"), reader.get("key"));
    match (&cert_field, &key_field) {
        (Some(field), None) => field.problem("needs the `key` of the certificate"),
        (None, Some(field)) => field.problem("needs the `cert` that it is the key of"),
        _ => {}
    }
    let cert = cert_field.and_then(|field| field.file_path());
    let key = key_field.and_then(|field| field.file_path());
    let connections =
        reader.get("connections").and_then(|field| field.number(CONNECTIONS_MIN.into(), 10_000));
    let schema = reader.get("schema_name").and_then(|field| {
        let name = field.text()?;
        if name.len() > 63 || name.contains(['.', '\0']) {
            field.problem(format!("{name:?} is no schema's name: at most 63 bytes, without `.`"));
        }
        Some(name)
    });
    let statement_timeout = reader.get("statement_timeout").and_then(|field| {
        let time = field.duration()?;
        if time < Duration::from_secs(1) {
            field.problem("a statement needs a second at least");
        }
        Some(time)
    });
    Some(Arc::new(PostgresConfig {
        url: url?,
        password: password.map(|password| password.expose().to_owned()),
        ca,
        cert,
        key,
        connections: connections.unwrap_or(CONNECTIONS),
        schema: schema.unwrap_or_else(|| SCHEMA_NAME.to_owned()),
        statement_timeout: statement_timeout.unwrap_or(STATEMENT_TIMEOUT),
    }))
}

fn read_url(reader: &mut Reader<'_>) -> Option<String> {
    let field = reader.required("url", "{ env = \"DATABASE_URL\" }")?;
    let url = field.secret()?.expose().to_owned();
    // With placeholders it is not whole.
    if url.contains("${") && field.cx.env.placeholders() {
        return Some(url);
    }
    if let Err(reason) = check_url(&url) {
        field.problem_with_help(reason, "url = \"postgres://user:password@host/database\"");
    }
    Some(url)
}

impl Sink for PostgresConfig {
    fn target(&self, spec: TargetSpec) -> Result<Arc<dyn Target>> {
        Ok(Arc::new(PostgresTarget::new(self.clone(), spec)?))
    }

    fn plan(&self, spec: &TargetSpec) -> Vec<String> {
        target::plan(spec, &self.schema)
    }

    fn speaks_sql(&self) -> bool {
        true
    }
}
