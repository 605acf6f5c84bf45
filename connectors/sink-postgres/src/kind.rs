//! The sink as the worker knows it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::kind::Sink;
use foldline_api::removal::Owned;
use foldline_api::sink::{Target, TargetSpec};
use foldline_language::config::form::{FilePath, Number, Period, SecretText, Text};
use foldline_language::config::key::{Key, Or, Required};
use foldline_language::config::reader::Reader;
use foldline_language::config::sink::{SinkKind, TargetKey};

use crate::config::{PostgresConfig, check_url};
use crate::pool::CONNECTIONS_MIN;
use crate::removal;
use crate::target::{self, PostgresTarget};

/// `type = "postgres"`.
pub static KIND: SinkKind = SinkKind {
    name: "postgres",
    description: "PostgreSQL.",
    target: TargetKey::Table,
    keys: &[&URL, &PASSWORD, &CA, &CERT, &KEY, &CONNECTIONS, &SCHEMA_NAME, &STATEMENT_TIMEOUT],
    read,
};

const URL: Key<SecretText, Required> =
    Key::new("url", SecretText, "postgres://user:password@host/database, or host=… user=…")
        .required("{ env = \"DATABASE_URL\" }");
const PASSWORD: Key<SecretText> =
    Key::new("password", SecretText, "The password, where the URL has none");
const CA: Key<FilePath> =
    Key::new("ca", FilePath, "PEM file of the authority that signed its certificate");
const CERT: Key<FilePath> =
    Key::new("cert", FilePath, "PEM file of the client's certificate, with `key`");
const KEY: Key<FilePath> =
    Key::new("key", FilePath, "PEM file of the certificate's key, unencrypted");
const CONNECTIONS: Key<Number<usize>, Or<usize>> = Key::new(
    "connections",
    Number::between(CONNECTIONS_MIN as i64, 10_000),
    "So many at most on a worker, for all its connectors",
)
.or(8);
const SCHEMA_NAME: Key<Text, Or<&str>> =
    Key::new("schema_name", Text, "Schema of Foldline's own bookkeeping").or("foldline").checked(
        |field, name| {
            if name.len() > 63 || name.contains(['.', '\0']) {
                let rule = "is no schema's name: at most 63 bytes, without `.`";
                field.problem(format!("{name:?} {rule}"));
            }
        },
    );
/// Below Kafka's session timeout, so that a worker that was stopped holds no lock when its successor comes.
const STATEMENT_TIMEOUT: Key<Period, Or<Duration>> =
    Key::new("statement_timeout", Period, "So long may a statement of a flush take")
        .or(Duration::from_secs(25))
        .checked(|field, time| {
            if *time < Duration::from_secs(1) {
                field.problem("a statement needs a second at least");
            }
        });

fn read(reader: &mut Reader<'_>) -> Option<Arc<dyn Sink>> {
    match (reader.given(&CERT), reader.given(&KEY)) {
        (Some(field), None) => field.problem("needs the `key` of the certificate"),
        (None, Some(field)) => field.problem("needs the `cert` that it is the key of"),
        _ => {}
    }
    Some(Arc::new(PostgresConfig {
        password: reader.read(&PASSWORD).map(|password| password.expose().to_owned()),
        ca: reader.read(&CA),
        cert: reader.read(&CERT),
        key: reader.read(&KEY),
        connections: reader.read(&CONNECTIONS),
        schema: reader.read(&SCHEMA_NAME),
        statement_timeout: reader.read(&STATEMENT_TIMEOUT),
        // Last, so that what is wrong with the others is told where it is missing.
        url: read_url(reader)?,
    }))
}

fn read_url(reader: &mut Reader<'_>) -> Option<String> {
    let field = reader.field(&URL)?;
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

#[async_trait]
impl Sink for PostgresConfig {
    fn target(&self, spec: TargetSpec) -> Result<Arc<dyn Target>> {
        Ok(Arc::new(PostgresTarget::new(self.clone(), spec)?))
    }

    fn plan(&self, spec: &TargetSpec) -> Vec<String> {
        target::plan(spec, &self.schema)
    }

    async fn owned(&self, connector: &str) -> Result<Vec<Owned>> {
        removal::owned(self, connector).await
    }

    fn speaks_sql(&self) -> bool {
        true
    }

    fn looks_up(&self) -> bool {
        true
    }
}
