//! `[sinks.NAME]`: target stores.

use std::path::PathBuf;
use std::time::Duration;

use foldline_api::mask;
use foldline_language::config::reader::{Field, Reader};
use foldline_language::config::tree::Item;
use indexmap::IndexMap;

use super::kafka;
use super::secret::{Secret, read_secret};
use super::source::{ConverterKind, TopicConfig, read_converter, read_topics};

/// Fewer starve one kind of work.
#[cfg(feature = "postgres")]
use foldline_sink_postgres::CONNECTIONS_MIN;
#[cfg(not(feature = "postgres"))]
const CONNECTIONS_MIN: u32 = 1;
/// Connections of a sink where its config says nothing.
const CONNECTIONS: usize = 8;
/// The schema of Foldline's own bookkeeping in PostgreSQL.
const SCHEMA_NAME: &str = "foldline";
/// Below Kafka's session timeout, so that a worker that was stopped holds no lock when its successor comes.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(25);
/// As Elasticsearch itself waits for its shards.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// One sink.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkConfig {
    /// Its name in the config.
    pub name: String,
    /// Which store, and how to reach it.
    pub kind: SinkKind,
}

/// Which store, and how to reach it.
#[derive(Clone, Debug, PartialEq)]
pub enum SinkKind {
    /// PostgreSQL.
    Postgres {
        /// `postgres://…` or `key=value` pairs.
        url: Secret,
        /// The password, where the URL has none.
        password: Option<Secret>,
        /// PEM file of the authorities to trust, in place of the system's.
        ca: Option<PathBuf>,
        /// PEM file of the client's certificate, with `key`.
        cert: Option<PathBuf>,
        /// PEM file of the certificate's key.
        key: Option<PathBuf>,
        /// So many connections at most on a worker, for all its connectors.
        connections: usize,
        /// Schema of Foldline's own bookkeeping.
        schema_name: String,
        /// How long a statement of a flush may take.
        statement_timeout: Duration,
    },
    /// Elasticsearch.
    Elasticsearch {
        /// Its nodes.
        urls: Vec<String>,
        /// Base64 of `id:api_key`.
        api_key: Option<Secret>,
        /// With `password`, instead of `api_key`.
        username: Option<String>,
        /// With `username`.
        password: Option<Secret>,
        /// PEM file of the authority that signed the servers' certificates.
        ca: Option<PathBuf>,
        /// How long a request may take.
        request_timeout: Duration,
    },
    /// SQLite.
    Sqlite {
        /// The database file, or `:memory:`.
        path: PathBuf,
    },
    /// State topics of a Kafka cluster.
    Kafka {
        /// `host:port`, several joined by commas.
        bootstrap_servers: String,
        /// Other librdkafka properties; a value may be a secret.
        properties: IndexMap<String, Secret>,
        /// What encodes keys, where a topic says nothing else.
        key: ConverterKind,
        /// What encodes values, where a topic says nothing else.
        value: ConverterKind,
        /// What topics have of their own.
        topics: IndexMap<String, TopicConfig>,
    },
}

impl SinkKind {
    /// Its name in the config.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Postgres { .. } => "postgres",
            Self::Elasticsearch { .. } => "elasticsearch",
            Self::Sqlite { .. } => "sqlite",
            Self::Kafka { .. } => "kafka",
        }
    }

    /// Whether this build has it: a kind that is a feature and was left out is known by name only.
    pub fn is_built(&self) -> bool {
        match self {
            Self::Postgres { .. } => cfg!(feature = "postgres"),
            Self::Elasticsearch { .. } => cfg!(feature = "elasticsearch"),
            Self::Sqlite { .. } => cfg!(feature = "sqlite"),
            Self::Kafka { .. } => true,
        }
    }

    /// What a connector calls its target here: `table`, `index` or `topic`.
    pub fn target_key(&self) -> &'static str {
        match self {
            Self::Postgres { .. } | Self::Sqlite { .. } => "table",
            Self::Elasticsearch { .. } => "index",
            Self::Kafka { .. } => "topic",
        }
    }
}

type ReadKind = fn(&mut Reader<'_>, &[&str]) -> Option<SinkKind>;

pub(super) fn read(name: &str, field: &Field<'_>, registries: &[&str]) -> Option<SinkConfig> {
    let Item::Table(table) = &field.node.item else {
        field.table("sink.postgres");
        return None;
    };
    let Some(node) = table.get("type") else {
        let help = "type = \"postgres\", \"elasticsearch\", \"sqlite\" or \"kafka\"";
        field.problem_with_help("`type` is missing", help);
        return None;
    };
    let kinds = ["postgres", "elasticsearch", "sqlite", "kafka"].map(|kind| (kind, kind));
    let kind = Field { cx: field.cx, path: format!("{}.type", field.path), node }.choice(&kinds)?;
    let (label, read): (_, ReadKind) = match kind {
        "postgres" => ("sink.postgres", read_postgres),
        "elasticsearch" => ("sink.elasticsearch", read_elasticsearch),
        "sqlite" => ("sink.sqlite", read_sqlite),
        _ => ("sink.kafka", read_kafka),
    };
    let mut reader = field.table(label)?;
    reader.get("type");
    let kind = read(&mut reader, registries);
    reader.finish();
    Some(SinkConfig { name: name.to_owned(), kind: kind? })
}

fn read_postgres(reader: &mut Reader<'_>, _: &[&str]) -> Option<SinkKind> {
    let url = reader.required("url", "{ env = \"DATABASE_URL\" }").and_then(|field| {
        let url = read_secret(&field)?;
        check_postgres(&field, &url);
        Some(url)
    });
    let password_field = reader.get("password");
    let password = password_field.as_ref().and_then(read_secret);
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
    let schema_name = reader.get("schema_name").and_then(|field| {
        let name = field.text()?;
        if name.len() > 63 || name.contains(['.', '\0']) {
            field.problem(format!("{name:?} is no schema's name: at most 63 bytes, without `.`"));
        }
        Some(name)
    });
    let schema_name = schema_name.unwrap_or_else(|| SCHEMA_NAME.to_owned());
    let connections = connections.unwrap_or(CONNECTIONS);
    let statement_timeout = reader.get("statement_timeout").and_then(|field| {
        let time = field.duration()?;
        if time < Duration::from_secs(1) {
            field.problem("a statement needs a second at least");
        }
        Some(time)
    });
    let statement_timeout = statement_timeout.unwrap_or(STATEMENT_TIMEOUT);
    Some(SinkKind::Postgres {
        url: url?,
        password,
        ca,
        cert,
        key,
        connections,
        schema_name,
        statement_timeout,
    })
}

#[cfg(feature = "postgres")]
fn check_postgres(field: &Field<'_>, url: &Secret) {
    // With placeholders it is not whole.
    if url.expose().contains("${") && field.cx.env.placeholders() {
        return;
    }
    if let Err(reason) = foldline_sink_postgres::check_url(url.expose()) {
        field.problem_with_help(reason, "url = \"postgres://user:password@host/database\"");
    }
}

/// The build cannot read it, and says that it lacks the sink.
#[cfg(not(feature = "postgres"))]
fn check_postgres(_: &Field<'_>, _: &Secret) {}

fn read_elasticsearch(reader: &mut Reader<'_>, _: &[&str]) -> Option<SinkKind> {
    let urls_field = reader.required("urls", "[\"http://localhost:9200\"]");
    let urls = urls_field.as_ref().and_then(|field| field.texts());
    if let (Some(field), Some(urls)) = (&urls_field, &urls) {
        check_urls(field, urls);
    }
    let api_key_field = reader.get("api_key");
    let api_key = api_key_field.as_ref().and_then(read_secret);
    let username_field = reader.get("username");
    let password_field = reader.get("password");
    match (&api_key_field, &username_field, &password_field) {
        (Some(field), Some(_), _) | (Some(field), _, Some(_)) => {
            field.problem("is given beside `username` or `password`: one way to log in is allowed");
        }
        (None, Some(field), None) => field.problem("needs a `password`"),
        (None, None, Some(field)) => field.problem("needs a `username`"),
        _ => {}
    }
    let username = username_field.and_then(|field| field.text());
    let password = password_field.and_then(|field| read_secret(&field));
    let ca = reader.get("ca").and_then(|field| field.file_path());
    let request_timeout = reader.get("request_timeout").and_then(|field| {
        let time = field.duration()?;
        if time < Duration::from_secs(1) {
            field.problem("a request needs a second at least");
        }
        Some(time)
    });
    let request_timeout = request_timeout.unwrap_or(REQUEST_TIMEOUT);
    Some(SinkKind::Elasticsearch { urls: urls?, api_key, username, password, ca, request_timeout })
}

fn check_urls(field: &Field<'_>, urls: &[String]) {
    if urls.is_empty() {
        field.problem("the list is empty");
    }
    for text in urls {
        let parsed = url::Url::parse(text).ok();
        let plain = parsed.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if text.starts_with("${") {
            continue;
        }
        match plain {
            Some(url) if url.username().is_empty() && url.password().is_none() => {}
            Some(_) => field.problem_with_help(
                format!("`{}` holds a login", mask::url(text)),
                "give `username` and `password`, so that no log shows them",
            ),
            None => {
                let found = match mask::url(text) {
                    shown if shown == mask::MASK => "no URL".to_owned(),
                    shown => format!("`{shown}`"),
                };
                let wanted = "expected a URL such as `http://localhost:9200`";
                field.problem(format!("found {found}, {wanted}"));
            }
        }
    }
}

fn read_sqlite(reader: &mut Reader<'_>, _: &[&str]) -> Option<SinkKind> {
    let path = reader.required("path", "\"foldline.db\"").and_then(|field| {
        let in_memory = field.node.as_str() == Some(":memory:");
        if in_memory { Some(PathBuf::from(":memory:")) } else { field.file_path() }
    });
    Some(SinkKind::Sqlite { path: path? })
}

fn read_kafka(reader: &mut Reader<'_>, registries: &[&str]) -> Option<SinkKind> {
    let servers = kafka::read_servers(reader);
    let properties = kafka::read_properties(reader.entries("properties"), kafka::Side::Sink);
    let key = read_converter(reader.get("key"), registries).unwrap_or(ConverterKind::Text);
    let value = read_converter(reader.get("value"), registries).unwrap_or(ConverterKind::Json);
    let topics = reader.entries("topics");
    for (name, field) in &topics {
        if name.starts_with('^') {
            field.problem("a regex names no topic to write to");
        }
    }
    let topics = read_topics(topics, registries);
    Some(SinkKind::Kafka { bootstrap_servers: servers?, properties, key, value, topics })
}
