//! Sinks, as a config names them.

use std::sync::Arc;

use foldline_api::error::Result;
use foldline_api::sink::{Target, TargetSpec};

#[cfg(any(feature = "postgres", feature = "sqlite"))]
use super::commented;
use super::not_yet;
use crate::config::SinkKind;
#[cfg(not(all(feature = "postgres", feature = "elasticsearch", feature = "sqlite")))]
use crate::config::unsupported::lacks;

/// A target of a sink of this kind.
///
/// # Errors
/// A config error where the build or this version lacks the sink, or where its settings contradict each other.
#[cfg_attr(
    not(any(feature = "postgres", feature = "elasticsearch", feature = "sqlite")),
    expect(unused_variables, reason = "a build without sinks")
)]
pub(super) fn target(sink: &SinkKind, spec: TargetSpec) -> Result<Arc<dyn Target>> {
    match sink {
        #[cfg(feature = "postgres")]
        SinkKind::Postgres {
            url,
            password,
            ca,
            cert,
            key,
            connections,
            schema_name,
            statement_timeout,
        } => {
            let config = foldline_sink_postgres::PostgresConfig {
                url: url.expose().to_owned(),
                password: password.as_ref().map(|password| password.expose().to_owned()),
                ca: ca.clone(),
                cert: cert.clone(),
                key: key.clone(),
                connections: *connections,
                schema: schema_name.clone(),
                statement_timeout: *statement_timeout,
            };
            Ok(Arc::new(foldline_sink_postgres::PostgresTarget::new(config, spec)?))
        }
        #[cfg(feature = "elasticsearch")]
        SinkKind::Elasticsearch { urls, api_key, username, password, ca, request_timeout } => {
            let config = foldline_sink_elasticsearch::ElasticsearchConfig {
                urls: urls.clone(),
                api_key: api_key.as_ref().map(|key| key.expose().to_owned()),
                username: username.clone(),
                password: password.as_ref().map(|password| password.expose().to_owned()),
                ca: ca.clone(),
                request_timeout: Some(*request_timeout),
            };
            Ok(Arc::new(foldline_sink_elasticsearch::ElasticsearchTarget::new(&config, spec)?))
        }
        #[cfg(feature = "sqlite")]
        SinkKind::Sqlite { path } => {
            let config = foldline_sink_sqlite::SqliteConfig { path: path.clone() };
            Ok(Arc::new(foldline_sink_sqlite::SqliteTarget::new(config, spec)?))
        }
        SinkKind::Kafka { .. } => Err(not_yet("a sink of type \"kafka\"")),
        #[cfg(not(all(feature = "postgres", feature = "elasticsearch", feature = "sqlite")))]
        kind => Err(lacks(kind.name())),
    }
}

/// What the sink makes and asks for a target, without a connection.
///
/// # Errors
/// A config error where the build or this version lacks the sink.
#[cfg_attr(
    not(any(feature = "postgres", feature = "elasticsearch", feature = "sqlite")),
    expect(unused_variables, reason = "a build without sinks")
)]
pub(super) fn plan(sink: &SinkKind, spec: &TargetSpec) -> Result<Vec<String>> {
    match sink {
        #[cfg(feature = "postgres")]
        SinkKind::Postgres { schema_name, .. } => {
            Ok(script(&foldline_sink_postgres::plan(spec, schema_name)))
        }
        #[cfg(feature = "elasticsearch")]
        SinkKind::Elasticsearch { .. } => Ok(foldline_sink_elasticsearch::plan(spec)),
        #[cfg(feature = "sqlite")]
        SinkKind::Sqlite { .. } => Ok(script(&foldline_sink_sqlite::plan(spec))),
        SinkKind::Kafka { .. } => Err(not_yet("a sink of type \"kafka\"")),
        #[cfg(not(all(feature = "postgres", feature = "elasticsearch", feature = "sqlite")))]
        kind => Err(lacks(kind.name())),
    }
}

/// Statements as a script that runs as it stands: what takes parameters is in its comments.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
fn script(statements: &[String]) -> Vec<String> {
    let runnable = |sql: &String| {
        if sql.starts_with("CREATE ") { format!("{sql};") } else { commented(sql) }
    };
    statements.iter().map(runnable).collect()
}
